//! Settings of the bucket, the same for both roles.

use std::{fmt, path::PathBuf, time::Duration};

use podwitness_runtime::config::{Reader, parse};

const URL: &str = "a host, or a URL with http or https";
const BUCKET: &str = "PODWITNESS_S3_BUCKET";

/// A bucket and how to come to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct S3Config {
    /// URL of the endpoint; without one, that of AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What our keys begin with; may be empty.
    pub prefix: String,
    /// Whether the bucket is named in the path, not in the host.
    pub path_style: bool,
    /// PEM roots of the endpoint, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// How objects are encrypted by the endpoint.
    pub sse: Option<Sse>,
    /// With which key.
    pub sse_key: Option<String>,
    /// Who asks.
    pub credentials: Credentials,
    /// How long files stay on the volume once they are in the bucket; `None` for ever.
    pub keep: Option<Duration>,
}

/// Encryption by the endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sse {
    /// With keys of the endpoint.
    Aes256,
    /// With a key of its key management.
    Kms,
}

/// Where credentials come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// A directory whose files are named as the variables below, read again.
    Directory(PathBuf),
    /// `AWS_ACCESS_KEY_ID` and its like.
    Keys {
        /// Id of the key.
        id: String,
        /// The key.
        secret: Secret,
        /// Token of a key that does not last.
        token: Option<Secret>,
    },
    /// A token that a role is assumed with.
    WebIdentity {
        /// File of the token.
        token_file: String,
        /// The role.
        role: String,
    },
    /// An agent of the node that gives them.
    Container {
        /// URL of the agent.
        url: String,
        /// File of the token that it wants.
        token_file: String,
    },
}

/// Text that nobody prints.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Sse {
    /// The name in S3.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
        }
    }
}

impl S3Config {
    /// The inner option is absent where there is no bucket.
    pub(super) fn read(read: &mut Reader<'_>) -> Option<Option<Self>> {
        let endpoint = read.optional("PODWITNESS_S3_ENDPOINT", URL, endpoint)?;
        let bucket = if endpoint.is_some() {
            Some(read.required(BUCKET, "the name of a bucket", bucket_name)?)
        } else {
            read.optional(BUCKET, "the name of a bucket", bucket_name)?
        };
        let Some(bucket) = bucket else { return Some(None) };
        let region = read.or("PODWITNESS_S3_REGION", "a region", "us-east-1".to_owned(), parse::text);
        let prefix = read.or("PODWITNESS_S3_PREFIX", "a prefix of keys", String::new(), prefix);
        let path_style =
            read.or("PODWITNESS_S3_PATH_STYLE", "true or false", endpoint.is_some(), parse::flag);
        let ca_file = read.optional("PODWITNESS_S3_CA_FILE", "a file", super::path);
        let sse = read.optional("PODWITNESS_S3_SSE", "AES256 or aws:kms", sse);
        let sse_key = read.optional("PODWITNESS_S3_SSE_KMS_KEY", "the id of a key", parse::text);
        let keep = read.or("PODWITNESS_S3_KEEP_LOCAL", "a time such as 24h, or forever", Some(KEEP), keep);
        let credentials = Credentials::read(read);
        Some(Some(Self {
            endpoint,
            region: region?,
            bucket,
            prefix: prefix?,
            path_style: path_style?,
            ca_file: ca_file?,
            sse: sse?,
            sse_key: sse_key?,
            credentials: credentials?,
            keep: keep?,
        }))
    }

    /// The endpoint as requests are sent to it; `None` for that of AWS.
    pub(crate) fn address(&self) -> Option<String> {
        let endpoint = self.endpoint.as_ref()?;
        match endpoint.split_once("://") {
            Some((scheme, host)) if !self.path_style => Some(format!("{scheme}://{}.{host}", self.bucket)),
            _ => Some(endpoint.clone()),
        }
    }
}

impl Credentials {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let directory = read.optional("PODWITNESS_S3_CREDENTIALS_DIR", "a directory", super::path)?;
        if let Some(directory) = directory {
            return Some(Self::Directory(directory));
        }
        let text = "text";
        let web = read.optional("AWS_WEB_IDENTITY_TOKEN_FILE", text, parse::text)?;
        let role = read.optional("AWS_ROLE_ARN", text, parse::text)?;
        let id = read.optional("AWS_ACCESS_KEY_ID", text, parse::text)?;
        if let (None, Some(token_file), Some(role)) = (&id, web, role) {
            return Some(Self::WebIdentity { token_file, role });
        }
        let url = read.optional("AWS_CONTAINER_CREDENTIALS_FULL_URI", text, parse::text)?;
        let file = read.optional("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", text, parse::text)?;
        if let (None, Some(url), Some(token_file)) = (&id, url, file) {
            return Some(Self::Container { url, token_file });
        }
        const FROM: &str = "set where there is neither PODWITNESS_S3_CREDENTIALS_DIR nor a workload identity";
        let id = read.required("AWS_ACCESS_KEY_ID", FROM, parse::text);
        let secret = read.required("AWS_SECRET_ACCESS_KEY", FROM, hidden);
        let token = read.optional("AWS_SESSION_TOKEN", text, hidden);
        Some(Self::Keys { id: id?, secret: secret?, token: token? })
    }
}

/// How long files stay unless it is said.
const KEEP: Duration = Duration::from_secs(24 * 3600);

fn endpoint(text: &str) -> Option<String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#');
    (!host.is_empty() && host.bytes().all(plain)).then(|| url.trim_end_matches('/').to_owned())
}

fn bucket_name(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    ((3..=255).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned())
}

/// Slashes at the ends mean nothing.
fn prefix(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/!-_.=".contains(&byte);
    let text = text.trim_matches('/');
    let plain = text.bytes().all(allowed) && text.split('/').all(|part| part != "." && part != "..");
    (plain && text.len() <= 512).then(|| text.to_owned())
}

fn sse(text: &str) -> Option<Sse> {
    [Sse::Aes256, Sse::Kms].into_iter().find(|sse| sse.as_str() == text)
}

fn hidden(text: &str) -> Option<Secret> {
    Some(Secret(text.to_owned()))
}

fn keep(text: &str) -> Option<Option<Duration>> {
    if text == "forever" { Some(None) } else { parse::duration(text).map(Some) }
}

#[cfg(test)]
mod tests;
