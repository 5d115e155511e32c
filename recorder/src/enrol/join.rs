//! The join file: what a recorder outside the clusters has to know of those that send to it.
//!
//! ```json
//! {"recorder": "vault", "issuers": [{"id": "…", "cluster": "…", "publicKey": "…"}]}
//! ```
//! Of several clusters it is a list of such objects. `recorder` is the name of the `Recorder` there, `issuers` the list
//! that the cluster's ConfigMap `podwitness-issuers` holds. Nothing in it is secret, and everything is trusted: whoever
//! may write it says whose pods may record.
//!
//! Invariant: no two entries speak for one cluster, so that none can borrow the name of another.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use podwitness_core::control::Issuer;
use serde::Deserialize;
use thiserror::Error;

/// Cap on the file.
const MAX_FILE: u64 = 1 << 20;
/// Caps on its entries, and on the issuers of one.
const MAX_CLUSTERS: usize = 64;
const MAX_ISSUERS: usize = 16;
/// Cap on names and ids.
const MAX_NAME: usize = 253;
/// Bytes of an Ed25519 public key.
const KEY_LEN: usize = 32;

/// One cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Name of the `Recorder` that this recorder is there.
    pub recorder: String,
    /// Keys that speak for it.
    pub issuers: Vec<Issuer>,
}

/// Why a join file cannot be used.
#[derive(Debug, Error)]
pub enum JoinError {
    /// It cannot be read.
    #[error("cannot read the join file {0}")]
    Read(PathBuf, #[source] io::Error),
    /// It is too long.
    #[error("the join file is longer than {MAX_FILE} bytes")]
    TooLong,
    /// It is no JSON of that form.
    #[error("the join file is no {{\"recorder\": …, \"issuers\": […]}} and no list of such")]
    Form(#[source] serde_json::Error),
    /// It names too few or too many.
    #[error("the join file names {0} clusters; 1 to {MAX_CLUSTERS} are allowed")]
    Clusters(usize),
    /// An entry names too few or too many issuers.
    #[error("the entry of {0:?} names {1} issuers; 1 to {MAX_ISSUERS} are allowed")]
    Issuers(String, usize),
    /// A name is none.
    #[error("{0:?} is no name of a Recorder")]
    Name(String),
    /// An issuer is none.
    #[error("the issuer {0:?} needs an id, a cluster and the base64 text of {KEY_LEN} bytes as publicKey")]
    Issuer(String),
    /// Two entries speak for one cluster.
    #[error(
        "two entries of the join file speak for the cluster {0:?}; each has to come from its own cluster"
    )]
    Twice(String),
}

/// Reads a join file.
///
/// # Errors
/// Where it cannot be read, or says what cannot be.
pub fn read(path: &Path) -> Result<Vec<Cluster>, JoinError> {
    let mut text = Vec::new();
    let reading = |error| JoinError::Read(path.to_owned(), error);
    let file = File::open(path).map_err(reading)?;
    file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut text).map_err(reading)?;
    if text.len() as u64 > MAX_FILE {
        return Err(JoinError::TooLong);
    }
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Vec<Cluster>, JoinError> {
    let is_list = text.trim_ascii_start().starts_with(b"[");
    let clusters = if is_list {
        serde_json::from_slice(text)
    } else {
        serde_json::from_slice(text).map(|one| vec![one])
    };
    let clusters: Vec<Cluster> = clusters.map_err(JoinError::Form)?;
    if clusters.is_empty() || clusters.len() > MAX_CLUSTERS {
        return Err(JoinError::Clusters(clusters.len()));
    }
    let mut spoken_for = BTreeSet::new();
    for cluster in &clusters {
        check(cluster)?;
        let own: BTreeSet<&str> = cluster.issuers.iter().map(|issuer| issuer.cluster.as_str()).collect();
        if let Some(twice) = own.into_iter().find(|id| !spoken_for.insert(*id)) {
            return Err(JoinError::Twice(twice.to_owned()));
        }
    }
    Ok(clusters)
}

fn check(cluster: &Cluster) -> Result<(), JoinError> {
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let Cluster { recorder, issuers } = cluster;
    if recorder.is_empty() || recorder.len() > MAX_NAME || !recorder.chars().all(named) {
        return Err(JoinError::Name(recorder.chars().take(MAX_NAME).collect()));
    }
    if issuers.is_empty() || issuers.len() > MAX_ISSUERS {
        return Err(JoinError::Issuers(recorder.clone(), issuers.len()));
    }
    let fits = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
    let is_key = |text: &str| STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == KEY_LEN);
    let wrong = issuers.iter().find(|it| !fits(&it.id) || !fits(&it.cluster) || !is_key(&it.public_key));
    wrong.map_or(Ok(()), |issuer| Err(JoinError::Issuer(issuer.id.chars().take(MAX_NAME).collect())))
}

/// The issuers of all clusters.
#[must_use]
pub fn issuers(clusters: Vec<Cluster>) -> Vec<Issuer> {
    clusters.into_iter().flat_map(|cluster| cluster.issuers).collect()
}

/// The `Recorder` objects by which the clusters name this recorder: one for each name. `endpoint` is where pods reach
/// it; where nobody has said that, a place that has to be filled in, which no API server takes.
#[must_use]
pub fn manifest(clusters: &[Cluster], public_key: &str, endpoint: Option<&str>, port: u16) -> String {
    let names: BTreeSet<&str> = clusters.iter().map(|cluster| cluster.recorder.as_str()).collect();
    let endpoint = endpoint.map_or_else(|| format!("<ADDRESS OF THIS HOST>:{port}"), ToOwned::to_owned);
    let object = |name: &&str| {
        format!(
            "---\napiVersion: podwitness.dev/v1alpha1\nkind: Recorder\nmetadata:\n  name: {name}\nspec:\n  \
             tags: [\"tag:{tag}\"]\n  external:\n    publicKey: {public_key}\n    endpoint: \"{endpoint}\"\n",
            tag = tag(name)
        )
    };
    let objects: String = names.iter().map(object).collect();
    format!("# Apply to each cluster, with the tags that its grants name.\n{objects}")
}

/// A tag from a name: a tag holds no dots and begins with a letter.
fn tag(name: &str) -> String {
    let tag = name.replace('.', "-");
    if tag.starts_with(|c: char| c.is_ascii_alphabetic()) { tag } else { format!("recorder-{tag}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    fn entry(recorder: &str, cluster: &str) -> String {
        format!(
            r#"{{"recorder":"{recorder}","issuers":[{{"id":"i","cluster":"{cluster}","publicKey":"{KEY}"}}]}}"#
        )
    }

    fn clusters(text: &str) -> Vec<String> {
        let clusters = parse(text.as_bytes()).unwrap();
        clusters.into_iter().flat_map(|cluster| cluster.issuers).map(|issuer| issuer.cluster).collect()
    }

    #[test]
    fn one_cluster_is_an_object_and_several_are_a_list() {
        assert_eq!(clusters(&entry("vault", "a")), ["a"]);
        assert_eq!(clusters(&format!("\n [{}]", entry("vault", "a"))), ["a"]);
        assert_eq!(clusters(&format!("[{}, {}]", entry("vault", "a"), entry("archive", "b"))), ["a", "b"]);
    }

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        let no_key = entry("vault", "a").replace(KEY, "a2V5");
        for (text, says) in [
            ("[]".to_owned(), "0 clusters"),
            ("{\"recorder\":".to_owned(), "no {\"recorder\""),
            (r#"{"recorder":"vault","issuers":[]}"#.to_owned(), "0 issuers"),
            (entry("vault", "a").replace("issuers", "issuer"), "no {\"recorder\""),
            (entry("Vault: x\nkind", "a").replace('\n', "\\n"), "no name of a Recorder"),
            (entry("", "a"), "no name of a Recorder"),
            (entry("vault", ""), "needs an id"),
            (no_key, "32 bytes"),
            (format!("[{}, {}]", entry("vault", "a"), entry("archive", "a")), "speak for the cluster \"a\""),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_may_be_replaced_within_one_entry() {
        let two = format!(
            r#"{{"recorder":"vault","issuers":[{{"id":"old","cluster":"a","publicKey":"{KEY}"}},
                {{"id":"new","cluster":"a","publicKey":"{KEY}"}}]}}"#
        );
        assert_eq!(clusters(&two), ["a", "a"]);
    }

    #[test]
    fn the_manifest_names_every_recorder_once() {
        let file = format!("[{}, {}, {}]", entry("vault", "a"), entry("vault", "b"), entry("7.archive", "c"));
        let clusters = parse(file.as_bytes()).unwrap();
        let text = manifest(&clusters, KEY, Some("vault.example:51820"), 51820);
        assert_eq!(text.matches("kind: Recorder").count(), 2);
        assert!(text.contains("name: vault\nspec:\n  tags: [\"tag:vault\"]"), "{text}");
        assert!(text.contains("tags: [\"tag:recorder-7-archive\"]"), "{text}");
        assert!(text.contains(&format!("publicKey: {KEY}\n    endpoint: \"vault.example:51820\"")), "{text}");
        assert!(manifest(&clusters, KEY, None, 4500).contains("endpoint: \"<ADDRESS OF THIS HOST>:4500\""));
    }

    #[test]
    fn a_file_that_is_missing_or_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("join.json");
        assert!(matches!(read(&path), Err(JoinError::Read(..))));
        std::fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
        assert!(matches!(read(&path), Err(JoinError::TooLong)));
        std::fs::write(&path, entry("vault", "a")).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
    }
}
