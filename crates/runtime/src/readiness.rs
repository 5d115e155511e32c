//! Readiness as tokens: whoever has something to do before the program is ready holds a [`BlockReady`] and drops it
//! when that is done. Nobody can forget to be waited for, and nobody can be ready by mistake.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// What a program still waits for. Clones are the same readiness.
#[derive(Clone, Debug)]
pub struct Readiness {
    pending: Arc<watch::Sender<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    names: BTreeMap<u64, &'static str>,
}

/// Holds readiness back until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it means ready"]
pub struct BlockReady {
    id: u64,
    pending: Arc<watch::Sender<Pending>>,
}

impl Readiness {
    /// Nothing to wait for: ready.
    #[must_use]
    pub fn new() -> Self {
        Self { pending: Arc::new(watch::Sender::default()) }
    }

    /// Holds readiness back under a name that `/readyz` shows. The same name may be held several times.
    pub fn block(&self, name: &'static str) -> BlockReady {
        let mut id = 0;
        self.pending.send_modify(|pending| {
            id = pending.next;
            pending.next = pending.next.wrapping_add(1);
            pending.names.insert(id, name);
        });
        BlockReady { id, pending: Arc::clone(&self.pending) }
    }

    /// Whether nothing is waited for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pending.borrow().names.is_empty()
    }

    /// Names of what is waited for, oldest first.
    #[must_use]
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.borrow().names.values().copied().collect()
    }

    /// Completes when nothing is waited for; at once if so already.
    pub async fn ready(&self) {
        // The sender is held by self, so that the only error, a closed channel, cannot occur.
        let _ = self.pending.subscribe().wait_for(|pending| pending.names.is_empty()).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockReady {
    /// What was waited for is done; the same as dropping it.
    pub fn clear(self) {}
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        self.pending.send_modify(|pending| {
            pending.names.remove(&self.id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_ready_when_every_token_is_dropped() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let certificate = readiness.block("certificate");
        let cache = readiness.clone().block("cache");
        assert_eq!(readiness.pending(), ["certificate", "cache"]);
        certificate.clear();
        assert_eq!(readiness.pending(), ["cache"]);
        drop(cache);
        assert!(readiness.is_ready());
    }

    #[test]
    fn two_tokens_of_one_name_are_two() {
        let readiness = Readiness::new();
        let (first, _second) = (readiness.block("cache"), readiness.block("cache"));
        drop(first);
        assert_eq!(readiness.pending(), ["cache"]);
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_token_goes() {
        let readiness = Readiness::new();
        let token = readiness.block("cache");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(token);
        waiting.await.unwrap();
    }
}
