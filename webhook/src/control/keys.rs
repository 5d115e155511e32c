//! The keys with which the cluster signs service-account tokens (KEP-1393), read from the API server and kept.
//!
//! An unknown key id makes us read them again, but not more often than every ten seconds, so that a stranger's
//! tokens cannot make us ask the API server at will.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::jwk::JwkSet;
use kube::Client;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::refusal::Refusal;

const PATH: &str = "/openid/v1/jwks";
/// Age at which keys are read again though all are known: the API server may have dropped one.
const FRESH: Duration = Duration::from_secs(600);
/// Least time between two attempts.
const PAUSE: Duration = Duration::from_secs(10);
/// For one attempt.
const LIMIT: Duration = Duration::from_secs(5);

/// The cluster's keys.
pub struct Keys {
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<JwkSet>>,
    read: Option<Instant>,
    tried: Option<Instant>,
}

impl Keys {
    /// None yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, state: Mutex::default() }
    }

    /// Keys among which the one with id `kid` should be.
    ///
    /// # Errors
    /// Where they were never read.
    pub async fn with(&self, kid: &str) -> Result<Arc<JwkSet>, Refusal> {
        // Held while they are read, so that callers who miss the same key ask once.
        let mut state = self.state.lock().await;
        if state.wanted(kid) {
            state.tried = Some(Instant::now());
            if let Some(keys) = self.read().await {
                state.keys = Some(Arc::new(keys));
                state.read = state.tried;
            }
        }
        state.keys.clone().ok_or(Refusal::Unavailable("cannot read the cluster's signing keys now"))
    }

    async fn read(&self) -> Option<JwkSet> {
        let request = http::Request::get(PATH).body(Vec::new()).ok()?;
        match timeout(LIMIT, self.client.request::<JwkSet>(request)).await {
            Ok(Ok(keys)) => Some(keys),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot read {PATH}; may the service account get it?");
                None
            }
            Err(_) => {
                tracing::warn!("the API server does not answer {PATH} in time");
                None
            }
        }
    }
}

impl State {
    fn wanted(&self, kid: &str) -> bool {
        let older = |at: Option<Instant>, age| at.is_none_or(|at| at.elapsed() >= age);
        let known = self.keys.as_ref().is_some_and(|keys| keys.find(kid).is_some());
        older(self.tried, PAUSE) && (!known || older(self.read, FRESH))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{testing::Api, token::testing::Cluster},
        *,
    };

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_asked_for_again_but_not_at_will() {
        let (old, new) = (Cluster::new("old"), Cluster::new("new"));
        let api = Api::default();
        api.answer("GET", PATH, old.jwks_json());
        let keys = Keys::new(api.client());
        assert!(keys.with("old").await.unwrap().find("old").is_some());
        keys.with("old").await.unwrap();
        assert_eq!(api.count(PATH), 1);
        api.answer("GET", PATH, new.jwks_json());
        for _ in 0..100 {
            assert!(keys.with("new").await.unwrap().find("new").is_none());
        }
        assert_eq!(api.count(PATH), 1);
        tokio::time::advance(PAUSE).await;
        assert!(keys.with("new").await.unwrap().find("new").is_some());
        assert_eq!(api.count(PATH), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_once_read_outlive_an_outage() {
        let api = Api::default();
        let keys = Keys::new(api.client());
        assert_eq!(keys.with("k").await.unwrap_err().label(), "unavailable");
        api.answer("GET", PATH, Cluster::new("k").jwks_json());
        tokio::time::advance(PAUSE).await;
        assert!(keys.with("k").await.is_ok());
        api.forget("GET", PATH);
        tokio::time::advance(FRESH).await;
        assert!(keys.with("k").await.unwrap().find("k").is_some());
    }
}
