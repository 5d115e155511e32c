//! Why a request to the control API is refused, and how that is said: a `metav1.Status`, as the API server would.
//!
//! No variant holds a token, a key's private half or an assertion.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use podwitness_core::status::{Details, Status};
use thiserror::Error;

use super::certificates::{CertificateError, request::RequestError};

/// A refused request.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// There is no token, or it cannot be believed.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The token's bearer may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The request is malformed.
    #[error("{0}")]
    BadRequest(String),
    /// There is nothing at this path.
    #[error(
        "the control API has POST /v1/enrol, GET /v1/netmap, POST /v1/notice and, where it may, POST /v1/certificate"
    )]
    NotFound,
    /// Another key is enrolled for this pod, or none.
    #[error("{0}")]
    Conflict(&'static str),
    /// The body is too long.
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
    /// Too many requests.
    #[error("too many requests; try again in {} s", .0.as_secs().max(1))]
    TooMany(Duration),
    /// Nothing wrong with the request; the control plane cannot answer it now.
    #[error("{0}")]
    Unavailable(&'static str),
    /// No certificate came of a request that is in order.
    #[error("{0}")]
    NoCertificate(String),
}

impl From<CertificateError> for Refusal {
    fn from(error: CertificateError) -> Self {
        match error {
            // It has the names of an earlier netmap, most likely.
            CertificateError::Request(RequestError::Names) => Self::Conflict(
                "the certificate request is not for the names of the netmap; they may have changed",
            ),
            CertificateError::Request(error) => Self::BadRequest(error.to_string()),
            error => Self::NoCertificate(error.to_string()),
        }
    }
}

impl Refusal {
    /// What the caller is told.
    #[must_use]
    pub fn status(&self) -> Status {
        let message = self.to_string();
        let other = |code, reason: &str, message| Status {
            code,
            reason: reason.to_owned(),
            ..Status::bad_request(message)
        };
        match self {
            Self::Unauthenticated(_) => other(401, "Unauthorized", message),
            Self::Forbidden(_) => Status::forbidden(message),
            Self::BadRequest(_) => Status::bad_request(message),
            Self::NotFound => other(404, "NotFound", message),
            Self::Conflict(_) => other(409, "Conflict", message),
            Self::TooLarge(_) => other(413, "RequestEntityTooLarge", message),
            Self::TooMany(wait) => Status {
                details: Some(Details { retry_after_seconds: Some(seconds(*wait)) }),
                ..other(429, "TooManyRequests", message)
            },
            Self::Unavailable(_) => Status::unavailable(message, 2),
            Self::NoCertificate(_) => Status::unavailable(message, 10),
        }
    }

    /// Stable name for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Forbidden(_) => "forbidden",
            Self::BadRequest(_) | Self::TooLarge(_) | Self::NotFound => "bad-request",
            Self::Conflict(_) => "conflict",
            Self::TooMany(_) => "rate-limited",
            Self::Unavailable(_) => "unavailable",
            Self::NoCertificate(_) => "no-certificate",
        }
    }
}

fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = status.details.as_ref().and_then(|details| details.retry_after_seconds);
        let mut response = (code, Json(status)).into_response();
        if let Some(retry) = retry {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_a_status_with_its_code() {
        for (refusal, code, reason) in [
            (Refusal::Unauthenticated("x"), 401, "Unauthorized"),
            (Refusal::Forbidden("x".into()), 403, "Forbidden"),
            (Refusal::Conflict("x"), 409, "Conflict"),
            (Refusal::TooLarge(9), 413, "RequestEntityTooLarge"),
            (Refusal::TooMany(Duration::from_millis(10)), 429, "TooManyRequests"),
            (Refusal::Unavailable("x"), 503, "ServiceUnavailable"),
        ] {
            let status = refusal.status();
            assert_eq!(
                (status.code, status.reason.as_str(), status.status.as_str()),
                (code, reason, "Failure")
            );
            assert_eq!(refusal.into_response().status().as_u16(), code);
        }
    }

    #[test]
    fn who_is_too_fast_is_told_when_to_return() {
        let response = Refusal::TooMany(Duration::from_secs(7)).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "7");
    }
}
