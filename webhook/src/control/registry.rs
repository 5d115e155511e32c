//! One tunnel key per pod.
//!
//! The first key of a pod is taken as it comes; another one replaces it only if its bearer proves to hold the old
//! one (by an assertion for it that is still valid), or if the pod has a new sandbox, in which nothing of the old
//! one lives. The registry is memory only: after a restart of the control plane keys are first ones again, except
//! those of recorders, which their `Recorder` objects remember.

use std::{collections::HashMap, time::Duration};

use podwitness_core::{assertion::Claims, control::Taking};
use thiserror::Error;
use tokio::time::Instant;

use super::pod::Sandbox;

/// Cap on enrolled pods; further ones are refused until some are gone.
pub const MAX_PODS: usize = 100_000;
/// Age before which an entry is kept though its pod is not in the cache yet.
const SETTLE: Duration = Duration::from_secs(60);

/// Keys by uid of their pod.
#[derive(Debug, Default)]
pub struct Registry {
    pods: HashMap<String, Enrolled>,
}

/// What is known of an enrolled pod.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// WireGuard public key, base64.
    pub key: String,
    /// Name of the `Recorder`, where the pod is a replica.
    pub recorder: Option<String>,
    /// What it takes, where it is a replica and has said so.
    pub taking: Option<Taking>,
    sandbox: Sandbox,
    since: Instant,
}

/// A pod that asks for a key.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Uid of the pod.
    pub uid: &'a str,
    /// The key.
    pub key: &'a str,
    /// Name of the `Recorder`, where the pod is a replica.
    pub recorder: Option<&'a str>,
    /// The pod's sandbox.
    pub sandbox: Sandbox,
    /// An assertion that came with the request and is valid.
    pub proof: Option<&'a Claims>,
}

/// How a key came to be the pod's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claimed {
    /// The pod had none.
    First,
    /// The pod had this one.
    Same,
    /// It replaces one that the caller proved to hold.
    Proven,
    /// It replaces one of an earlier sandbox.
    NewSandbox,
}

/// Why a key cannot be the pod's.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ClaimError {
    /// The pod has another key.
    #[error("another key is enrolled for this pod")]
    Taken,
    /// Too many pods are enrolled.
    #[error("too many pods are enrolled")]
    Full,
}

impl Claimed {
    /// Whether another key was there before.
    #[must_use]
    pub const fn replaces(self) -> bool {
        matches!(self, Self::Proven | Self::NewSandbox)
    }

    /// Stable name for metrics and Events.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Same => "same",
            Self::Proven => "proven",
            Self::NewSandbox => "new-sandbox",
        }
    }
}

impl Registry {
    /// Makes a key the pod's.
    ///
    /// # Errors
    /// Where the pod has another key that the request does not prove to hold, or the registry is full.
    pub fn claim(&mut self, request: Request<'_>) -> Result<Claimed, ClaimError> {
        let claimed = self.judge(&request)?;
        let entry = self.pods.entry(request.uid.to_owned()).or_insert_with(|| Enrolled::new(&request));
        if claimed.replaces() {
            *entry = Enrolled::new(&request);
        }
        entry.recorder = request.recorder.map(ToOwned::to_owned);
        entry.sandbox.learn(request.sandbox);
        Ok(claimed)
    }

    fn judge(&self, request: &Request<'_>) -> Result<Claimed, ClaimError> {
        let Some(known) = self.pods.get(request.uid) else {
            return if self.pods.len() < MAX_PODS { Ok(Claimed::First) } else { Err(ClaimError::Full) };
        };
        if known.key == request.key {
            return Ok(Claimed::Same);
        }
        if request.proof.is_some_and(|claims| claims.pod_uid == request.uid && claims.key == known.key) {
            return Ok(Claimed::Proven);
        }
        if known.sandbox.replaced_by(&request.sandbox) {
            return Ok(Claimed::NewSandbox);
        }
        Err(ClaimError::Taken)
    }

    /// A replica says what it takes: what it said before, where that was something else. Nobody hears of a pod without a
    /// key.
    pub fn takes(&mut self, uid: &str, taking: Taking) -> Option<Option<Taking>> {
        let before = self.pods.get_mut(uid)?.taking.replace(taking);
        (before != Some(taking)).then_some(before)
    }

    /// The entry of a pod.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Enrolled> {
        self.pods.get(uid)
    }

    /// Replicas of a recorder: uid and key.
    pub fn replicas<'a>(&'a self, recorder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.pods
            .iter()
            .filter(move |(_, entry)| entry.recorder.as_deref() == Some(recorder))
            .map(|(uid, entry)| (uid.as_str(), entry.key.as_str()))
    }

    /// Forgets pods that are gone. An entry younger than a minute stays, because the cache may be behind.
    pub fn prune(&mut self, lives: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, entry| entry.since.elapsed() < SETTLE || lives(uid));
    }

    /// How many pods are enrolled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod is enrolled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

impl Enrolled {
    fn new(request: &Request<'_>) -> Self {
        Self {
            key: request.key.to_owned(),
            recorder: request.recorder.map(ToOwned::to_owned),
            taking: None,
            sandbox: request.sandbox.clone(),
            since: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(ip: &str) -> Sandbox {
        Sandbox { ip: Some(ip.into()), ready_since: None }
    }

    fn request(key: &'static str) -> Request<'static> {
        Request { uid: "u", key, recorder: None, sandbox: sandbox("10.0.0.1"), proof: None }
    }

    fn proof(uid: &str, key: &str) -> Claims {
        Claims {
            cluster: "c".into(),
            namespace: "n".into(),
            pod: "p".into(),
            pod_uid: uid.into(),
            node: String::new(),
            service_account: String::new(),
            key: key.into(),
            mode: None,
            iat: 0,
            exp: 1,
        }
    }

    #[tokio::test]
    async fn a_second_key_needs_a_proof_or_a_new_sandbox() {
        let (own, of_other_key, of_other_pod) = (proof("u", "k1"), proof("u", "k9"), proof("v", "k1"));
        for (second, expected) in [
            (request("k1"), Ok(Claimed::Same)),
            (request("k2"), Err(ClaimError::Taken)),
            (Request { proof: Some(&own), ..request("k2") }, Ok(Claimed::Proven)),
            (Request { proof: Some(&of_other_key), ..request("k2") }, Err(ClaimError::Taken)),
            (Request { proof: Some(&of_other_pod), ..request("k2") }, Err(ClaimError::Taken)),
            (Request { sandbox: sandbox("10.0.0.2"), ..request("k2") }, Ok(Claimed::NewSandbox)),
            (Request { sandbox: Sandbox::default(), ..request("k2") }, Err(ClaimError::Taken)),
            (Request { uid: "v", ..request("k2") }, Ok(Claimed::First)),
        ] {
            let mut registry = Registry::default();
            assert_eq!(registry.claim(request("k1")), Ok(Claimed::First));
            let uid = second.uid;
            let wanted = second.key;
            assert_eq!(registry.claim(second.clone()), expected, "{second:?}");
            assert_eq!(registry.get(uid).unwrap().key, if expected.is_ok() { wanted } else { "k1" });
        }
    }

    #[tokio::test]
    async fn a_sandbox_unknown_at_first_is_learned_and_then_counts() {
        let mut registry = Registry::default();
        registry.claim(Request { sandbox: Sandbox::default(), ..request("k1") }).unwrap();
        assert_eq!(registry.claim(request("k2")), Err(ClaimError::Taken));
        registry.claim(request("k1")).unwrap();
        let moved = Request { sandbox: sandbox("10.0.0.2"), ..request("k2") };
        assert_eq!(registry.claim(moved), Ok(Claimed::NewSandbox));
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_are_gone_are_forgotten_once_the_cache_must_have_seen_them() {
        let mut registry = Registry::default();
        registry.claim(request("k1")).unwrap();
        registry.prune(|_| false);
        assert_eq!(registry.len(), 1);
        tokio::time::advance(SETTLE).await;
        registry.prune(|uid| uid == "u");
        assert_eq!(registry.len(), 1);
        registry.prune(|_| false);
        assert!(registry.is_empty());
    }

    #[tokio::test]
    async fn replicas_of_a_recorder_are_found_by_its_name() {
        let mut registry = Registry::default();
        registry.claim(Request { recorder: Some("a"), ..request("k1") }).unwrap();
        registry.claim(Request { uid: "v", ..request("k2") }).unwrap();
        assert_eq!(registry.replicas("a").collect::<Vec<_>>(), [("u", "k1")]);
        assert_eq!(registry.replicas("b").count(), 0);
    }

    #[tokio::test]
    async fn what_a_replica_takes_is_kept_with_its_key() {
        let mut registry = Registry::default();
        assert_eq!(registry.takes("u", Taking::Refusing), None);
        assert_eq!(registry.claim(request("k1")), Ok(Claimed::First));
        assert_eq!(registry.takes("u", Taking::Accepting), Some(None));
        assert_eq!(registry.takes("u", Taking::Accepting), None);
        assert_eq!(registry.takes("u", Taking::Refusing), Some(Some(Taking::Accepting)));
        assert_eq!(registry.claim(request("k1")), Ok(Claimed::Same));
        assert_eq!(registry.get("u").unwrap().taking, Some(Taking::Refusing));
    }
}
