//! Answers of ours: a `metav1.Status` as the API server would write it, which kubectl prints.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use podwitness_core::status::Status;

use crate::body::{Body, full};

/// The answer that says `status`.
#[must_use]
pub fn answer(status: &Status) -> Response<Body> {
    let body = serde_json::to_vec(status).unwrap_or_default();
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_passes_says_when_to_try_again() {
        let later = answer(&Status::unavailable("not yet", 2));
        assert_eq!((later.status().as_u16(), &later.headers()[RETRY_AFTER]), (503, &HeaderValue::from(2)));
        let never = answer(&Status::forbidden("no"));
        assert_eq!(never.status(), StatusCode::FORBIDDEN);
        assert_eq!(never.headers()[CONTENT_TYPE], "application/json");
        assert!(!never.headers().contains_key(RETRY_AFTER));
    }
}
