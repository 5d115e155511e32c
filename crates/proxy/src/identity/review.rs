//! One `SelfSubjectReview` (`authentication.k8s.io/v1`).

use http::Uri;
use podwitness_core::identity::User;
use serde::Deserialize;

use crate::question::{Asker, QuestionError};

const PATH: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const QUESTION: &str = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;

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

/// Asks who it is that asks.
pub(super) async fn ask(asker: &Asker<'_>) -> Result<User, QuestionError> {
    let answer: Answer = asker.post(Uri::from_static(PATH), QUESTION).await?;
    let UserInfo { username, groups } = answer.status.user_info;
    Ok(User { name: username, groups })
}
