//! kubectl tries again over SPDY when its WebSocket was refused (KEP-4006). The second attempt is the same command:
//! it is answered like the first, so that the reason shown is the one that mattered, and counts once.

use std::time::Duration;

use aws_lc_rs::digest;
use http::{Uri, request::Parts};
use moka::future::Cache;
use podwitness_core::status::Status;

use crate::{
    classify::{Credential, Session, Transport},
    sha256,
};

/// Refusals remembered; the least used give way.
const MAX_ENTRIES: u64 = 256;
/// kubectl falls back at once.
const MAX_AGE: Duration = Duration::from_secs(5);

/// What was refused a moment ago, and why.
pub(crate) struct Refusals(Cache<[u8; 32], Status>);

/// One command of one caller, whatever it travels over.
pub(super) struct Attempt {
    key: [u8; 32],
    transport: Transport,
}

impl Attempt {
    pub(super) fn of(head: &Parts, credential: &Credential, session: &Session) -> Self {
        Self { key: key_of(&head.uri, credential), transport: session.transport }
    }
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(MAX_AGE).build())
    }

    /// What to answer instead of a refusal, if this attempt follows a refused one. Taken once.
    pub(super) async fn first(&self, attempt: &Attempt) -> Option<Status> {
        if attempt.transport == Transport::Spdy { self.0.remove(&attempt.key).await } else { None }
    }

    /// Remembers a refusal that a client may answer with another attempt.
    pub(super) async fn remember(&self, attempt: &Attempt, status: &Status) {
        if matches!(attempt.transport, Transport::WebSocket) {
            self.0.insert(attempt.key, status.clone()).await;
        }
    }
}

fn key_of(uri: &Uri, credential: &Credential) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&credential.hash());
    context.update(uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    sha256::finish(context)
}
