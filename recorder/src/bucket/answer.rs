//! What a server says of a request that it refuses: the status, and the code and words in the XML of its body (Amazon S3
//! API reference, "Error responses").
//!
//! The crate that asks keeps the answer to itself, but for what it prints.

use std::error::Error as StdError;

use object_store::Error;

/// Cap on each text of an answer that is taken over.
const MAX_TEXT: usize = 128;

/// The last answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: Option<u16>,
    /// The code, such as `AccessDenied`.
    pub(super) code: Option<String>,
    /// The region or the endpoint that would have been right.
    pub(super) wanted: Option<String>,
    /// Whether the server asks to go elsewhere, and does not say where.
    pub(super) redirects: bool,
    /// Whether it says that it does not understand a checksum.
    pub(super) no_checksum: bool,
}

impl Answer {
    /// The answer that an error is about.
    pub(super) fn of(error: &Error) -> Self {
        let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
        let find = |read: &dyn Fn(&str) -> Option<String>| texts.iter().find_map(|text| read(text));
        let status = find(&|text| text.split_once("status code: ")?.1.get(..3).map(str::to_owned));
        let status = status.and_then(|status| status.parse().ok());
        Self {
            status,
            code: find(&|text| element(text, "Code")),
            wanted: find(&|text| element(text, "Region").or_else(|| element(text, "Endpoint"))),
            redirects: matches!(status, Some(301 | 302 | 307 | 308))
                || texts.iter().any(|text| text.contains("redirect without LOCATION")),
            no_checksum: texts.iter().any(|text| {
                content(text, "Message").is_some_and(|message| message.contains("x-amz-checksum"))
            }),
        }
    }
}

/// An error and its causes.
pub(super) fn chain(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source())
}

/// The text of an element, where it is a word or a name.
fn element(text: &str, name: &str) -> Option<String> {
    let content = content(text, name)?;
    let fits = content.len() <= MAX_TEXT && content.bytes().all(|byte| byte.is_ascii_graphic());
    (fits && !content.is_empty()).then(|| content.to_owned())
}

fn content<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(content, _)| content)
}
