//! Live pods: from the cache, and from the API server where the cache is behind.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::time::timeout;

use super::{pod::Pod, refusal::Refusal};

/// For one question to the API server.
const LIMIT: Duration = Duration::from_secs(5);

/// Where pods are looked up.
#[derive(Clone)]
pub struct Pods {
    cache: Store<Pod>,
    client: Client,
}

impl Pods {
    /// From this cache, else by this client.
    #[must_use]
    pub const fn new(cache: Store<Pod>, client: Client) -> Self {
        Self { cache, client }
    }

    /// The pod of this name, if it has this uid and an address; asked of the API server where the cache says
    /// otherwise, because a young pod may not be in it yet.
    ///
    /// # Errors
    /// Where the API server does not answer, or there is no such pod.
    pub async fn find(&self, namespace: &str, name: &str, uid: &str) -> Result<Arc<Pod>, Refusal> {
        let current = |pod: &Arc<Pod>| pod.uid() == uid && pod.status.pod_ip.is_some();
        if let Some(pod) = self.cached(namespace, name).filter(current) {
            return Ok(pod);
        }
        let found = self.ask(namespace, name).await;
        let found = found.ok_or(Refusal::Unavailable("cannot look the pod up now"))?;
        found.map(Arc::new).ok_or(GONE)
    }

    /// Whether the pod is surely gone. What cannot be found out is not sure.
    pub async fn gone(&self, namespace: &str, name: &str, uid: &str) -> bool {
        if let Some(pod) = self.cached(namespace, name) {
            return pod.uid() != uid || pod.finished();
        }
        let gone = |pod: Option<Pod>| pod.is_none_or(|pod| pod.uid() != uid || pod.finished());
        self.ask(namespace, name).await.is_some_and(gone)
    }

    fn cached(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.cache.get(&ObjectRef::new(name).within(namespace))
    }

    /// `None` where there is no answer.
    async fn ask(&self, namespace: &str, name: &str) -> Option<Option<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match timeout(LIMIT, api.get_opt(name)).await {
            Ok(Ok(pod)) => Some(pod),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot look a pod up");
                None
            }
            Err(_) => {
                tracing::warn!("the API server does not say in time whether a pod lives");
                None
            }
        }
    }
}

/// The pod of a token is gone.
pub const GONE: Refusal = Refusal::Unauthenticated("the token is bound to a pod that is gone");

#[cfg(test)]
pub(super) mod testing {
    use kube::runtime::{reflector::store, watcher::Event};

    use super::*;

    /// Pods of which these are in the cache.
    pub fn pods(cached: Vec<Pod>, client: Client) -> Pods {
        let (cache, mut writer) = store();
        writer.apply_watcher_event(&Event::Init);
        for pod in cached {
            writer.apply_watcher_event(&Event::InitApply(pod));
        }
        writer.apply_watcher_event(&Event::InitDone);
        Pods::new(cache, client)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            pod::testing::{injected, pod},
            testing::{Api as TestApi, status},
        },
        testing::pods,
        *,
    };

    const PATH: &str = "/api/v1/namespaces/shop/pods/till";

    #[tokio::test]
    async fn the_cache_answers_for_the_pod_it_knows() {
        let api = TestApi::default();
        let pods = pods(vec![pod(injected())], api.client());
        assert_eq!(pods.find("shop", "till", "uid-till").await.unwrap().name(), "till");
        assert!(!pods.gone("shop", "till", "uid-till").await);
        assert!(pods.gone("shop", "till", "uid-before").await);
        assert_eq!(api.count(PATH), 0);
    }

    #[tokio::test]
    async fn a_pod_that_the_cache_has_not_seen_is_asked_for() {
        let api = TestApi::default();
        api.answer("GET", PATH, injected());
        let mut old = injected();
        old["metadata"]["uid"] = json!("uid-before");
        let mut young = injected();
        young["status"] = json!({"phase": "Pending"});
        for cached in [vec![], vec![pod(old)], vec![pod(young)]] {
            let found = pods(cached, api.client()).find("shop", "till", "uid-till").await.unwrap();
            assert_eq!(found.status.pod_ip.as_deref(), Some("10.0.0.7"));
        }
        assert_eq!(api.count(PATH), 3);
    }

    #[tokio::test]
    async fn a_pod_is_gone_only_if_the_api_server_says_so() {
        let api = TestApi::default();
        let pods = pods(vec![], api.client());
        assert!(pods.gone("shop", "till", "uid-till").await);
        assert_eq!(pods.find("shop", "till", "uid-till").await.unwrap_err(), GONE);
        api.answer_with("GET", PATH, 500, status(500, "InternalError"));
        assert!(!pods.gone("shop", "till", "uid-till").await);
        assert_eq!(pods.find("shop", "till", "uid-till").await.unwrap_err().label(), "unavailable");
    }
}
