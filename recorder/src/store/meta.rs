//! What is known of a part beside its bytes: who uploaded it, what its header says, how it ended.
//!
//! Written when the part is created, replaced when it ends. Keys are camel case; readers leave out what they do not
//! know, so that later versions can add.

use std::{fmt, net::IpAddr};

use podwitness_core::{assertion::Claims, inject::Inject};
use serde::{Deserialize, Serialize};

/// Cap on a metadata file; a longer one is not read.
pub const MAX_META: usize = 256 << 10;
/// Cap on each text that is taken over from a header; the recording itself has it whole.
const MAX_TEXT: usize = 4096;
/// Cap on groups that are taken over.
const MAX_GROUPS: usize = 32;

/// Metadata of one part.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Who uploaded it.
    pub owner: Owner,
    /// When the upload began by the recorder's clock, Unix milliseconds.
    pub received: i64,
    /// Bytes of event lines that the session had before this part.
    #[serde(default)]
    pub offset: u64,
    /// Bytes of the header line, newline included.
    pub header_bytes: u64,
    /// What the header says.
    pub facts: Facts,
    /// How it ended; absent while it lasts, and after a crash until the next process has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// Whose recording it is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// A pod, by the word of its cluster's control plane.
    Pod(Pod),
    /// Whoever had this address on the plain listener.
    Unverified {
        /// The address.
        address: IpAddr,
    },
}

/// The pod in which the client ran.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Id of its cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    #[serde(rename = "podUID")]
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its service account.
    pub service_account: String,
    /// How binding injection was. Only where it is `required` other containers of the pod were kept from the sidecar
    /// that says all this; absent where the control plane did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Inject>,
}

/// What a header says of its session. Not verified: the words of the client's side.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    /// Start of the session, Unix seconds: what the header says where that can be, else when it was received.
    pub start: i64,
    /// What the header says of the start, where that cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_stated: Option<i64>,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Command.
    pub command: String,
    /// The user who acted.
    pub user: String,
    /// That user's groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The user whose credential was used, where that is another one: who impersonates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authenticated_user: String,
    /// Whether the API server confirmed the user, by the word of the client's side.
    pub user_verified: bool,
    /// Namespace that the session acts on.
    pub namespace: String,
    /// Pod that it acts on.
    pub pod: String,
    /// Container that it acts on.
    pub container: String,
    /// `exec`, `attach`, `ssh`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The user's word for it where that is another than its type: `run`, `debug`, `cp`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub via: String,
    /// Whether there is a terminal.
    pub tty: bool,
}

/// How a part ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// In which way.
    pub outcome: Outcome,
    /// More for people, where it went wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When, by the recorder's clock, Unix milliseconds.
    pub at: i64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Time of its last line, in seconds since the session's start.
    pub duration: f64,
    /// What the command's end was, as the last `x-exit` line has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// How the session ended, as the `x-end` line has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_end: Option<String>,
    /// What became of its recording, as the `x-close` line has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_outcome: Option<String>,
    /// Bytes of output that the client's side says are missing (`x-gap`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap: u64,
    /// Bytes of the file behind `bytes`: what a crash tore off, and nobody was told to be safe.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub torn: u64,
    /// Lines before that which are none, found when the part was completed after a crash.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub damaged: u64,
}

/// In which way a part ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The client said that this was all.
    Complete,
    /// The client went away.
    Lost,
    /// The client sent what is no recording, or too much of it.
    Refused,
    /// It could not be stored.
    Failed,
    /// The recorder shut down.
    Shutdown,
    /// The recorder was killed; the next one wrote this.
    Interrupted,
}

impl Outcome {
    /// The name in metadata, log and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Lost => "lost",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Shutdown => "shutdown",
            Self::Interrupted => "interrupted",
        }
    }
}

/// As people are told who says something.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "{}/{}", pod.namespace, pod.pod),
            Self::Unverified { address } => write!(f, "unverified {address}"),
        }
    }
}

impl From<Claims> for Pod {
    fn from(claims: Claims) -> Self {
        Self {
            cluster: claims.cluster,
            namespace: claims.namespace,
            pod: claims.pod,
            uid: claims.pod_uid,
            node: claims.node,
            service_account: claims.service_account,
            mode: claims.mode,
        }
    }
}

impl Facts {
    /// Bytes of its texts.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = [
            &self.command,
            &self.user,
            &self.authenticated_user,
            &self.namespace,
            &self.pod,
            &self.container,
            &self.kind,
            &self.via,
        ];
        texts.into_iter().chain(&self.groups).map(String::len).fold(0, usize::saturating_add)
    }

    /// The same with every text within its cap.
    #[must_use]
    pub fn capped(mut self) -> Self {
        self.groups.truncate(MAX_GROUPS);
        let texts = [
            &mut self.command,
            &mut self.user,
            &mut self.authenticated_user,
            &mut self.namespace,
            &mut self.pod,
            &mut self.container,
            &mut self.kind,
            &mut self.via,
        ];
        texts.into_iter().for_each(|text| cap(text, MAX_TEXT));
        self.groups.iter_mut().for_each(|group| cap(group, MAX_TEXT / MAX_GROUPS));
        self
    }
}

/// Cuts at a character boundary.
fn cap(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stays_below_its_cap_whatever_a_header_says() {
        // A control character is six bytes of JSON.
        let long = || "\u{1}".repeat(100_000);
        let facts = Facts {
            command: long(),
            user: long(),
            namespace: long(),
            pod: long(),
            container: long(),
            kind: long(),
            authenticated_user: long(),
            via: long(),
            groups: vec![long(); 1000],
            ..Facts::default()
        };
        let length = serde_json::to_vec(&facts.capped()).unwrap().len();
        assert!(length < MAX_META - (16 << 10), "{length}");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut text = "ä".repeat(10);
        cap(&mut text, 5);
        assert_eq!(text, "ää");
    }
}
