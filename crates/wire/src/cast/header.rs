//! The first line of a recording.
//!
//! Keys and their order are the reference's (Go struct order, capitalised `kubernetes` keys, HTML-escaped text);
//! `podwitness` is ours and goes to recorders only that announce `Podwitness-Ack`. Reading tolerates missing and
//! null keys, as other writers leave them.

use std::{collections::BTreeMap, io};

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Cap on a header line: a command line may fill most of a request target.
pub const MAX_HEADER: usize = 1 << 20;

/// Header of a recording.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Header {
    /// Version of asciicast: 2.
    #[serde(deserialize_with = "or_default")]
    pub version: u32,
    /// Columns of the terminal; 0 without one.
    #[serde(deserialize_with = "or_default")]
    pub width: u32,
    /// Rows of the terminal; 0 without one.
    #[serde(deserialize_with = "or_default")]
    pub height: u32,
    /// Start of the session, Unix seconds.
    #[serde(deserialize_with = "or_default")]
    pub timestamp: i64,
    /// Words of the command, joined with spaces.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub command: String,
    /// Name of the machine the session came from.
    #[serde(rename = "srcNode", deserialize_with = "or_default")]
    pub src_node: String,
    /// Stable id of that machine.
    #[serde(rename = "srcNodeID", deserialize_with = "or_default")]
    pub src_node_id: String,
    /// Its tags, where it has any.
    #[serde(rename = "srcNodeTags", skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub src_node_tags: Vec<String>,
    /// Id of the user, where the writer has such ids.
    #[serde(rename = "srcNodeUserID", skip_serializing_if = "Option::is_none")]
    pub src_node_user_id: Option<i64>,
    /// The user.
    #[serde(
        rename = "srcNodeUser",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub src_node_user: String,
    /// Environment; null for Kubernetes.
    pub env: Option<BTreeMap<String, String>>,
    /// User asked for over SSH.
    #[serde(rename = "sshUser", deserialize_with = "or_default")]
    pub ssh_user: String,
    /// Local user of an SSH session.
    #[serde(rename = "localUser", deserialize_with = "or_default")]
    pub local_user: String,
    /// Id of an SSH connection.
    #[serde(rename = "connectionID", deserialize_with = "or_default")]
    pub connection_id: String,
    /// What the session acts on, for Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// What only our sidecars say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub podwitness: Option<Podwitness>,
}

/// What a session acts on.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Kubernetes {
    /// Pod.
    #[serde(rename = "PodName", deserialize_with = "or_default")]
    pub pod_name: String,
    /// Its namespace.
    #[serde(rename = "Namespace", deserialize_with = "or_default")]
    pub namespace: String,
    /// Its container; empty where the request names none.
    #[serde(rename = "Container", deserialize_with = "or_default")]
    pub container: String,
    /// `exec` or `attach`.
    #[serde(rename = "SessionType", deserialize_with = "or_default")]
    pub session_type: String,
}

/// Our part of the header. `pod`, `podUID`, `namespace` and `node` are where the session came from.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Podwitness {
    /// Id of the session, the same in all its parts.
    pub session: String,
    /// Number of this part.
    pub part: u32,
    /// Where it begins: bytes of event lines before it. Part *k* ends where part *k+1* begins.
    pub offset: u64,
    /// Id of the cluster.
    pub cluster: String,
    /// Namespace of the pod in which the client ran.
    pub namespace: String,
    /// That pod.
    pub pod: String,
    /// Its uid.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Its node.
    pub node: String,
    /// Container that the session acts on.
    pub container: String,
    /// The effective user.
    pub user: String,
    /// That user's groups.
    pub groups: Vec<String>,
    /// The user whose credential was used, where that is another one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authenticated_user: String,
    /// Whether the API server confirmed the names.
    pub verified: bool,
    /// User agent of the client.
    pub user_agent: String,
    /// Protocol of the streams.
    pub subprotocol: String,
    /// Whether there is a terminal.
    pub tty: bool,
    /// Whether the client may type.
    pub stdin: bool,
    /// Words of the command, each for itself; those of an attached container where they are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Image of the container, where it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The user's word for it where that is another than the session's type: `run`, `debug`, `cp`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub via: String,
}

/// Place of an upload within its session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Part {
    /// Number, from 0.
    pub number: u32,
    /// Bytes of event lines before it.
    pub offset: u64,
}

/// A header that cannot be written or read.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// The line is longer than [`MAX_HEADER`].
    #[error("the header line is longer than {MAX_HEADER} bytes")]
    TooLong,
    /// The line is no JSON object of a header.
    #[error("the header line is not a JSON header")]
    Json(#[from] serde_json::Error),
    /// Another format than asciicast v2.
    #[error("the recording has version {0}, not 2")]
    Version(u32),
}

impl Header {
    /// The line, newline included, for a recorder that knows us: as `part`.
    ///
    /// # Errors
    /// Where it is too long.
    pub fn to_line(&self, part: Part) -> Result<Vec<u8>, HeaderError> {
        let podwitness =
            self.podwitness.clone().map(|ours| Podwitness { part: part.number, offset: part.offset, ..ours });
        write(&Self { podwitness, ..self.clone() })
    }

    /// The line for any other recorder: nothing in it is ours.
    ///
    /// # Errors
    /// Where it is too long.
    pub fn to_plain_line(&self) -> Result<Vec<u8>, HeaderError> {
        write(&Self { podwitness: None, ..self.clone() })
    }

    /// Reads a header line, with or without its newline.
    ///
    /// # Errors
    /// Where it is none of asciicast v2.
    pub fn parse(line: &[u8]) -> Result<Self, HeaderError> {
        if line.len() > MAX_HEADER {
            return Err(HeaderError::TooLong);
        }
        let header: Self = serde_json::from_slice(line)?;
        if header.version == 2 { Ok(header) } else { Err(HeaderError::Version(header.version)) }
    }
}

fn write(header: &Header) -> Result<Vec<u8>, HeaderError> {
    let mut line = Vec::new();
    header.serialize(&mut serde_json::Serializer::with_formatter(&mut line, GoEscapes))?;
    line.push(b'\n');
    if line.len() > MAX_HEADER { Err(HeaderError::TooLong) } else { Ok(line) }
}

/// Escapes what Go's encoder escapes by default, so that equal headers are equal bytes.
struct GoEscapes;

impl serde_json::ser::Formatter for GoEscapes {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        for piece in text.split_inclusive(['&', '<', '>', '\u{2028}', '\u{2029}']) {
            let end =
                piece.chars().next_back().filter(|c| matches!(c, '&' | '<' | '>' | '\u{2028}' | '\u{2029}'));
            let Some(end) = end else {
                writer.write_all(piece.as_bytes())?;
                continue;
            };
            writer.write_all(piece.strip_suffix(end).unwrap_or(piece).as_bytes())?;
            write!(writer, "\\u{:04x}", u32::from(end))?;
        }
        Ok(())
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}
