//! One `SelfSubjectReview` (`authentication.k8s.io/v1`).

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt as _, Limited};
use podwitness_core::identity::User;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::{Duration, timeout};

use crate::{
    body::full,
    classify::Credential,
    target::Target,
    upstream::{Lane, Upstream, UpstreamError},
};

const PATH: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const QUESTION: &str = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;
const AGENT: &str = concat!("podwitness-identity/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Longest answer; a user may be in very many groups.
const MAX_ANSWER: usize = 1 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nobody knows who is calling.
#[derive(Debug, Error)]
pub(super) enum ReviewError {
    /// No answer.
    #[error("no answer to the review")]
    Upstream(#[from] UpstreamError),
    /// An answer, but not this one.
    #[error("the review was answered {0}")]
    Refused(StatusCode),
    /// An answer that is no review.
    #[error("the answer to the review cannot be read")]
    Unreadable,
    /// No answer in time.
    #[error("no answer to the review within {} s", PATIENCE.as_secs())]
    Slow,
}

#[derive(Deserialize)]
struct Answer {
    status: AnswerStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerStatus {
    user_info: UserInfo,
}

#[derive(Deserialize)]
struct UserInfo {
    username: String,
    #[serde(default)]
    groups: Vec<String>,
}

/// Asks who the holder of `credential` is, under `impersonation`.
pub(super) async fn ask(
    upstream: &Upstream,
    target: &Arc<Target>,
    credential: &Credential,
    headers: &HeaderMap,
    impersonation: &HeaderMap,
) -> Result<User, ReviewError> {
    let asking = async {
        let mut request = Request::new(full(QUESTION));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(PATH);
        *request.headers_mut() = question_headers(credential, headers, impersonation);
        let (answer, _slot) = upstream.send(target, credential.hash(), Lane::Bulk, request).await?;
        if !answer.status().is_success() {
            return Err(ReviewError::Refused(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|_| ReviewError::Unreadable)?;
        let answer: Answer = serde_json::from_slice(&body.to_bytes()).map_err(|_| ReviewError::Unreadable)?;
        let UserInfo { username, groups } = answer.status.user_info;
        Ok(User { name: username, groups })
    };
    timeout(PATIENCE, asking).await.unwrap_or(Err(ReviewError::Slow))
}

fn question_headers(credential: &Credential, headers: &HeaderMap, impersonation: &HeaderMap) -> HeaderMap {
    let mut question = impersonation.clone();
    question.insert(ACCEPT, JSON);
    question.insert(CONTENT_TYPE, JSON);
    question.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let from_token = || HeaderValue::try_from(format!("Bearer {}", credential.bearer()?)).ok();
    if let Some(mut authorization) = headers.get(AUTHORIZATION).cloned().or_else(from_token) {
        authorization.set_sensitive(true);
        question.insert(AUTHORIZATION, authorization);
    }
    question
}
