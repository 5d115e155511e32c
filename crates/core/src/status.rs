//! `metav1.Status`, the body of every refusal: kubectl prints its message.
//!
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1/types.go`.

use serde::{Deserialize, Serialize};

/// A failure as the API server would report it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// Always `Status`.
    pub kind: String,
    /// Always `v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Empty list metadata, which clients expect to be present.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Always `Failure` here.
    pub status: String,
    /// For people.
    pub message: String,
    /// For machines, such as `Forbidden`.
    pub reason: String,
    /// HTTP status code.
    pub code: u16,
    /// More for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// Details of a [`Status`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Details {
    /// Seconds after which the client should try again.
    #[serde(rename = "retryAfterSeconds", default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

impl Status {
    /// 403: the request must not be made as things stand.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::failure(403, "Forbidden", message.into(), None)
    }

    /// 400: the request cannot be read.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message.into(), None)
    }

    /// 502: the API server cannot be reached.
    #[must_use]
    pub fn bad_gateway(message: impl Into<String>) -> Self {
        Self::failure(502, "ServiceUnavailable", message.into(), None)
    }

    /// 503 with `Retry-After`: the same request may succeed in `seconds`.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, seconds: u32) -> Self {
        Self::failure(503, "ServiceUnavailable", message.into(), Some(seconds))
    }

    /// 503 without `Retry-After`: clients would repeat the request by themselves, and nobody would learn why it fails.
    #[must_use]
    pub fn unrecordable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message.into(), None)
    }

    /// 500: a recorded stream was ended.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::failure(500, "InternalError", message.into(), None)
    }

    fn failure(code: u16, reason: &str, message: String, retry_after: Option<u32>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata: serde_json::Map::new(),
            status: "Failure".to_owned(),
            message,
            reason: reason.to_owned(),
            code,
            details: retry_after.map(|seconds| Details { retry_after_seconds: Some(seconds) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_shape_clients_decode() {
        let json = serde_json::to_value(Status::unavailable("later", 2)).unwrap();
        let expected = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "later",
            "reason": "ServiceUnavailable", "code": 503, "details": {"retryAfterSeconds": 2}
        });
        assert_eq!(json, expected);
    }
}
