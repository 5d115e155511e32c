//! Who calls: from a bearer token to a live pod and its role.
//!
//! The order keeps strangers cheap: signature first (no question to anyone), then the token's rate limit, then the
//! API server's word (`TokenReview`), then the live pod.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use podwitness_core::{
    inject::{Inject, TOKEN_AUDIENCE},
    labels,
};
use podwitness_runtime::clock::Clock;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    keys::Keys,
    limits::{Buckets, Rate},
    pod::Pod,
    pods::Pods,
    refusal::Refusal,
    role::{self, Owners, Role, Rules},
    token::{self, Bound},
    watch::NamespaceMeta,
};

/// For one review, waiting for its turn included.
const LIMIT: Duration = Duration::from_secs(5);
/// Reviews at a time, so that a cluster full of pods that reconnect at once does not fall upon the API server; further
/// ones wait, within [`LIMIT`].
const AT_A_TIME: usize = 64;
/// Requests of one pod: a start, a few restarts, then one every five seconds.
const POD_RATE: Rate = Rate { burst: 12, every: Duration::from_secs(5) };
/// Pods that are told apart.
const POD_CAP: usize = 65_536;

/// A caller who is who he says.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What the token says.
    pub bound: Bound,
    /// The live pod.
    pub pod: Arc<Pod>,
    /// What it is to us.
    pub role: Role,
    /// How binding injection is; `None` for a recorder.
    pub mode: Option<Inject>,
}

/// A token whose signature holds. What else it is worth is not known yet.
pub struct Verified<'t> {
    token: &'t str,
    bound: Bound,
}

/// Checks callers.
pub struct Access {
    keys: Keys,
    reviews: Api<TokenReview>,
    turns: Semaphore,
    pods: Pods,
    namespaces: Store<NamespaceMeta>,
    owners: Owners,
    system_namespace: String,
    images: Vec<String>,
    clock: Arc<dyn Clock>,
    rates: Mutex<Buckets<String>>,
}

/// What is known of the cluster.
pub struct Known {
    /// Live pods.
    pub pods: Pods,
    /// Namespaces: their labels.
    pub namespaces: Store<NamespaceMeta>,
    /// Recorders and their StatefulSets.
    pub owners: Owners,
}

/// What tells our pods from others.
#[derive(Clone, Debug)]
pub struct Ours {
    /// Namespace of the control plane and its recorders.
    pub system_namespace: String,
    /// Repositories of images that are our sidecar.
    pub images: Vec<String>,
}

impl Verified<'_> {
    /// Uid of the pod for which it was made.
    #[must_use]
    pub fn pod_uid(&self) -> &str {
        &self.bound.pod_uid
    }
}

impl Access {
    /// Checks callers against these caches and the API server.
    #[must_use]
    pub fn new(client: Client, known: Known, ours: Ours, clock: Arc<dyn Clock>) -> Self {
        let Known { pods, namespaces, owners } = known;
        Self {
            keys: Keys::new(client.clone()),
            reviews: Api::all(client),
            turns: Semaphore::new(AT_A_TIME),
            pods,
            namespaces,
            owners,
            system_namespace: ours.system_namespace,
            images: ours.images,
            clock,
            rates: Mutex::new(Buckets::new(POD_RATE, POD_CAP)),
        }
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// Where the request has no token that can be believed, or its bearer may not enrol.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        self.confirm(self.verify(headers).await?).await
    }

    /// The token of a request, if this cluster has signed it for us. Cheap: only the signing keys are asked for, and they are kept.
    ///
    /// # Errors
    /// Where the request has no such token.
    pub async fn verify<'t>(&self, headers: &'t HeaderMap) -> Result<Verified<'t>, Refusal> {
        let token = token::bearer(headers)?;
        let keys = self.keys.with(&token::key_id(token)?).await?;
        let bound = token::verify(token, &keys, self.clock.now_unix())?;
        Ok(Verified { token, bound })
    }

    /// The caller who shows a token.
    ///
    /// # Errors
    /// Where the pod asks too often, the API server does not confirm the token, or its bearer may not enrol.
    pub async fn confirm(&self, Verified { token, bound }: Verified<'_>) -> Result<Caller, Refusal> {
        self.not_too_often(&bound.pod_uid)?;
        bound.confirmed_by(&self.review(token).await?)?;
        let pod = self.pods.find(&bound.namespace, &bound.pod, &bound.pod_uid).await?;
        let rules = Rules { system_namespace: &self.system_namespace, images: &self.images };
        let label = self.inject_label(&bound.namespace);
        let (role, mode) = role::of_pod(&bound, &pod, rules, &self.owners, label.as_deref())?;
        Ok(Caller { bound, pod, role, mode })
    }

    /// What the namespace says about injection. One that was made a moment ago may be missing; its pods ask again.
    fn inject_label(&self, namespace: &str) -> Option<String> {
        let namespace = self.namespaces.get(&ObjectRef::new(namespace))?;
        namespace.labels().get(labels::INJECT).cloned()
    }

    fn not_too_often(&self, pod_uid: &str) -> Result<(), Refusal> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(pod_uid.to_owned()).map_err(Refusal::TooMany)
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        let audiences = Some(vec![TOKEN_AUDIENCE.to_owned()]);
        let spec = TokenReviewSpec { audiences, token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = timeout(LIMIT, async {
            // The semaphore is never closed, so that there always is a turn.
            let _turn = self.turns.acquire().await;
            self.reviews.create(&PostParams::default(), &review).await
        });
        let answer = answer.await;
        let answer = answer.map_err(|_| "it does not answer in time".to_owned());
        match answer.and_then(|answer| answer.map_err(|error| error.to_string())) {
            Ok(review) => Ok(review.status.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(%error, "the API server cannot review a token");
                Err(Refusal::Unavailable("the API server cannot review the token now"))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
