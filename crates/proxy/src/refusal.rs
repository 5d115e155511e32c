//! Answers of ours: a `metav1.Status` as the API server would write it, which kubectl prints.
//!
//! Of some requests client-go shows no Status: of discovery and everything else that is no resource, and of
//! `SelfSubjectReview`. The answers to these have the message as a warning too
//! (`k8s.io/apimachinery/pkg/util/net.ParseWarningHeaders`), which client-go prints whatever the request was. A 403 that
//! is no JSON it quotes; it is text there, so that the last line that kubectl prints says why (seen with kubectl 1.32).

mod reporter;

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use podwitness_core::{request_info::RequestInfo, status::Status};

use crate::body::{Body, full};

pub(crate) use reporter::RefusalReporter;

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Longest message in a warning, in bytes: a message may quote a request.
const MAX_WARNING: usize = 1024;

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

/// The same to a request for `info`, in the form in which kubectl shows the message; `info` is `None` where the path
/// cannot be read.
#[must_use]
fn answer_request(status: &Status, info: Option<&RequestInfo>) -> Response<Body> {
    let mut response = answer(status);
    let Some(info) = info.filter(|info| hides_status(info)) else { return response };
    if let Some(warning) = warning(&status.message) {
        response.headers_mut().insert(WARNING, warning);
    }
    if !info.is_resource_request && response.status() == StatusCode::FORBIDDEN {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        *response.body_mut() = full(status.message.clone());
    }
    response
}

/// Whether kubectl shows an error of its own in place of an answer's Status.
fn hides_status(info: &RequestInfo) -> bool {
    !info.is_resource_request || info.resource == "selfsubjectreviews"
}

/// `299 - "TEXT"` (RFC 7234 §5.5), the only code and form that client-go prints. It refuses control characters.
fn warning(message: &str) -> Option<HeaderValue> {
    let end = message.floor_char_boundary(MAX_WARNING);
    let mut text = String::from("299 - \"");
    for char in message.get(..end)?.chars().filter(|char| !char.is_control()) {
        if matches!(char, '"' | '\\') {
            text.push('\\');
        }
        text.push(char);
    }
    text.push('"');
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

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

    #[test]
    fn the_message_is_a_warning_where_kubectl_shows_no_status() {
        let status = Status::unrecordable("podwitness: Grant \"pci\" \\ asks\nfor a record");
        let warned = |target: &str| {
            let info = RequestInfo::parse("GET", target).unwrap();
            let response = answer_request(&status, Some(&info));
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json", "{target}");
            response.headers().get(WARNING).map(|it| it.to_str().unwrap().to_owned())
        };
        let expected = r#"299 - "podwitness: Grant \"pci\" \\ asksfor a record""#;
        let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        for target in ["/api", "/apis", "/api/v1", "/apis/apps/v1?x=y", "/version", "/openapi/v3", reviews] {
            assert_eq!(warned(target).as_deref(), Some(expected), "{target}");
        }
        for target in ["/api/v1/pods", "/api/v1/namespaces/n/pods/p/exec"] {
            assert_eq!(warned(target), None, "{target}");
        }
    }

    #[test]
    fn a_warning_is_capped_and_cut_between_characters() {
        let warning = warning(&"é\"".repeat(MAX_WARNING)).unwrap();
        assert!(std::str::from_utf8(warning.as_bytes()).is_ok());
        assert!(warning.len() <= 2 * MAX_WARNING, "{}", warning.len());
    }

    #[tokio::test]
    async fn a_403_on_discovery_is_text_which_kubectl_quotes() {
        let status = Status::forbidden("podwitness: no");
        let info = RequestInfo::parse("GET", "/api").unwrap();
        let response = answer_request(&status, Some(&info));
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "podwitness: no");
        let info = RequestInfo::parse("GET", "/api/v1/pods").unwrap();
        assert_eq!(answer_request(&status, Some(&info)).headers()[CONTENT_TYPE], "application/json");
    }
}
