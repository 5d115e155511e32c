//! Who is calling: asked of the API server with the caller's own credential (`SelfSubjectReview`, KEP-3325), which
//! needs no right of ours and works for every kind of token.
//!
//! Asked twice where the request impersonates: without `Impersonate-*` for the authenticated user, with it for the
//! effective one. Answers are kept by hash of the credential, at most five minutes and never beyond the token's own
//! end; simultaneous callers share one question. Where no answer comes, the token's claims stand in, unverified, and it is
//! asked again a few seconds later. A request asks once, whatever looks at its caller ([`CallerCell`]).

mod claims;
mod review;

pub(crate) use claims::id as credential_id;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName};
use moka::{Expiry, future::Cache};
use podwitness_core::identity::{Caller, User};
use podwitness_runtime::clock::Clock;
use tokio::{sync::OnceCell, time::Instant};

use crate::{
    classify::Credential,
    metrics::{Metrics, Review},
    question::Asker,
    sha256,
    target::Target,
    upstream::Upstream,
};

/// Answers kept; the least used give way.
const MAX_ENTRIES: u64 = 1024;
/// How long an answer is believed.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long it stands that no answer comes: an API server that is slow or refuses is not asked by every request.
const FAILURE_AGE: Duration = Duration::from_secs(3);
const IMPERSONATE: &str = "impersonate-";

/// Finds out who is calling.
pub struct Identities {
    upstream: Upstream,
    cache: Cache<[u8; 32], Known>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// The caller of one request, once that was found out.
pub(crate) type CallerCell = OnceCell<Caller>;

#[derive(Clone)]
struct Known {
    /// `None` where no answer came.
    user: Option<User>,
    life: Duration,
    asked: Instant,
}

impl Known {
    /// Whether it is asked again; answers go by the cache.
    fn is_stale(&self) -> bool {
        self.user.is_none() && self.asked.elapsed() >= FAILURE_AGE
    }
}

struct LifeOf;

impl Expiry<[u8; 32], Known> for LifeOf {
    #[expect(clippy::disallowed_types, reason = "the trait asks for it; it is not looked at")]
    fn expire_after_create(&self, _: &[u8; 32], known: &Known, _: std::time::Instant) -> Option<Duration> {
        Some(known.life)
    }
}

impl Identities {
    /// Asks through `upstream`.
    #[must_use]
    pub fn new(upstream: Upstream, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        let cache = Cache::builder().max_capacity(MAX_ENTRIES).expire_after(LifeOf).build();
        Self { upstream, cache, clock, metrics }
    }

    /// The caller of a request with this credential and these headers.
    pub async fn caller(&self, target: &Arc<Target>, credential: &Credential, headers: &HeaderMap) -> Caller {
        let caller = self.find(target, credential, headers).await;
        self.metrics.review(if caller.verified { Review::Verified } else { Review::Claimed });
        caller
    }

    /// The same, asked once for all who look at the request.
    pub(crate) async fn caller_once(
        &self,
        cell: &CallerCell,
        target: &Arc<Target>,
        credential: &Credential,
        headers: &HeaderMap,
    ) -> Caller {
        // On the heap, so that the future of a request stays small.
        cell.get_or_init(|| self.caller(target, credential, headers).boxed()).await.clone()
    }

    async fn find(&self, target: &Arc<Target>, credential: &Credential, headers: &HeaderMap) -> Caller {
        if credential.is_anonymous() {
            let user = claims::anonymous();
            return Caller { authenticated: user.clone(), effective: user, verified: true };
        }
        let impersonation = impersonation_of(headers);
        let authenticated = self.ask(target, credential, headers, &HeaderMap::new()).await;
        // Where it is not known who is authenticated, nothing is verified, whoever is effective.
        let effective = match &authenticated {
            Some(_) if !impersonation.is_empty() => {
                self.ask(target, credential, headers, &impersonation).await
            }
            found => found.clone(),
        };
        let verified = authenticated.is_some() && effective.is_some();
        let authenticated = authenticated.unwrap_or_else(|| claims::of(credential));
        let effective = effective
            .unwrap_or_else(|| claims::impersonated(&impersonation).unwrap_or_else(|| authenticated.clone()));
        Caller { authenticated, effective, verified }
    }

    async fn ask(
        &self,
        target: &Arc<Target>,
        credential: &Credential,
        headers: &HeaderMap,
        impersonation: &HeaderMap,
    ) -> Option<User> {
        let key = key_of(credential, impersonation);
        let question = async {
            let impersonation = impersonation.clone();
            let asker = Asker { upstream: &self.upstream, target, credential, headers, impersonation };
            let answer = review::ask(&asker).await;
            let asked = Instant::now();
            match answer {
                Ok(user) => Known { user: Some(user), life: self.life_of(credential), asked },
                Err(error) => {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the API server does not say who is calling"
                    );
                    Known { user: None, life: MAX_AGE, asked }
                }
            }
        };
        self.cache.entry(key).or_insert_with_if(question.boxed(), Known::is_stale).await.into_value().user
    }

    fn life_of(&self, credential: &Credential) -> Duration {
        let left = claims::expiry(credential)
            .map(|exp| exp.saturating_sub(self.clock.now_unix()).max(0).unsigned_abs());
        left.map_or(MAX_AGE, |left| MAX_AGE.min(Duration::from_secs(left)))
    }
}

pub(crate) fn impersonation_of(headers: &HeaderMap) -> HeaderMap {
    let ours = |name: &HeaderName| name.as_str().starts_with(IMPERSONATE);
    let mut impersonation = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| ours(name)) {
        impersonation.append(name, value.clone());
    }
    impersonation
}

/// Every part is preceded by its length, so that no two sets of headers look the same.
fn key_of(credential: &Credential, impersonation: &HeaderMap) -> [u8; 32] {
    if impersonation.is_empty() {
        return credential.hash();
    }
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&credential.hash());
    for (name, value) in impersonation {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
    }
    sha256::finish(context)
}

#[cfg(test)]
mod tests;
