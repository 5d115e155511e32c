//! Questions of ours to the API server, with the caller's own credential: they need no right of ours, and nobody learns
//! what he may not. Their user agent tells them apart in the cluster's audit log.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::{Duration, timeout};

use crate::{
    body::full,
    classify::Credential,
    target::Target,
    upstream::{Lane, Upstream, UpstreamError},
};

const AGENT: &str = concat!("podwitness/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Longest answer; the API server's own objects are shorter.
const MAX_ANSWER: usize = 2 << 20;
/// How often a question is asked that was not looked at.
const MAX_ATTEMPTS: usize = 4;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a question has no answer.
#[derive(Debug, Error)]
pub(crate) enum QuestionError {
    /// No answer.
    #[error("no answer")]
    Upstream(#[from] UpstreamError),
    /// An answer, but not this one.
    #[error("the answer is {0}")]
    Refused(StatusCode),
    /// Another answer than expected.
    #[error("the answer cannot be read")]
    Unreadable,
    /// No answer in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
}

/// Who asks, and whom.
pub(crate) struct Asker<'a> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) target: &'a Arc<Target>,
    pub(crate) credential: &'a Credential,
    /// Of the caller's request, for its `Authorization`.
    pub(crate) headers: &'a HeaderMap,
    /// `Impersonate-*` headers to ask under.
    pub(crate) impersonation: HeaderMap,
}

impl Asker<'_> {
    /// The answer to a GET of `uri`.
    ///
    /// # Errors
    /// Where there is none that can be read.
    pub(crate) async fn get<T: DeserializeOwned>(&self, uri: Uri) -> Result<T, QuestionError> {
        self.ask(Method::GET, uri, Bytes::new()).await
    }

    /// The answer to a POST of a JSON object to `uri`.
    ///
    /// # Errors
    /// Where there is none that can be read.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        uri: Uri,
        body: &'static str,
    ) -> Result<T, QuestionError> {
        self.ask(Method::POST, uri, Bytes::from_static(body.as_bytes())).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: Uri,
        body: Bytes,
    ) -> Result<T, QuestionError> {
        let asking = async {
            let mut attempts = 1;
            let (answer, _slot) = loop {
                let mut request = Request::new(full(body.clone()));
                *request.method_mut() = method.clone();
                *request.uri_mut() = uri.clone();
                *request.headers_mut() = self.question_headers();
                let sent = self.upstream.send(self.target, self.credential.hash(), Lane::Bulk, request);
                match sent.await {
                    Err(UpstreamError::Unprocessed(_)) if attempts < MAX_ATTEMPTS => attempts += 1,
                    sent => break sent?,
                }
            };
            if !answer.status().is_success() {
                return Err(QuestionError::Refused(answer.status()));
            }
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|_| QuestionError::Unreadable)?.to_bytes();
            serde_json::from_slice(&body).map_err(|_| QuestionError::Unreadable)
        };
        timeout(PATIENCE, asking).await.unwrap_or(Err(QuestionError::Slow))
    }

    fn question_headers(&self) -> HeaderMap {
        let mut question = self.impersonation.clone();
        question.insert(ACCEPT, JSON);
        question.insert(CONTENT_TYPE, JSON);
        question.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let from_token = || HeaderValue::try_from(format!("Bearer {}", self.credential.bearer()?)).ok();
        if let Some(mut authorization) = self.headers.get(AUTHORIZATION).cloned().or_else(from_token) {
            authorization.set_sensitive(true);
            question.insert(AUTHORIZATION, authorization);
        }
        question
    }
}
