//! What one upload holds because its sender has not sent the rest of it: bounded in memory and in time.
//!
//! Memory is that of [`unfinished`](crate::memory::MemoryBudget::unfinished), which all uploads share. Where it is used up, the
//! uploads that have held some for the longest time end, of the peer that holds most.

use std::time::Duration;

use podwitness_runtime::quota::{Quota, QuotaExceeded, QuotaKey, QuotaLease};
use thiserror::Error;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a line, a frame or an event may take from its first byte to its last.
const WITHIN: Duration = Duration::from_secs(30);

/// Why an upload may not hold what it holds.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum UnfinishedError {
    /// Too much of this peer, or of all.
    #[error("the recorder has no memory for what is not whole: {0}")]
    Memory(#[from] QuotaExceeded),
    /// For too long.
    #[error("what was begun was not finished within {} s", WITHIN.as_secs())]
    Late,
}

impl UnfinishedError {
    /// The reason as a metric's label.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Memory(QuotaExceeded::PerKey) => "unfinished_of_peer",
            Self::Memory(QuotaExceeded::Total) => "unfinished",
            Self::Memory(QuotaExceeded::Revoked) => "unfinished_evicted",
            Self::Late => "unfinished_late",
        }
    }
}

/// What one upload holds.
#[derive(Debug)]
pub(super) struct UnfinishedInput {
    lease: QuotaLease,
    revoked: CancellationToken,
    /// How many things were whole at the last look.
    whole: u64,
    until: Option<Instant>,
}

impl UnfinishedInput {
    /// Nothing, of an upload of `peer`.
    pub(super) fn new(unfinished: &Quota, peer: QuotaKey) -> Self {
        let revoked = CancellationToken::new();
        Self { lease: unfinished.open(peer, revoked.clone()), revoked, whole: 0, until: None }
    }

    /// It holds `bytes` of something that is not whole, after `whole` things that were.
    pub(super) fn set(&mut self, bytes: usize, whole: u64) -> Result<(), UnfinishedError> {
        if bytes == 0 {
            self.until = None;
        } else if self.until.is_none() || whole != self.whole {
            self.until = Some(Instant::now() + WITHIN);
            // It is young again: what others have held for longer goes first.
            self.lease.give(usize::MAX);
        }
        self.whole = whole;
        Ok(self.lease.resize(bytes)?)
    }

    /// Completes when what is held may be held no longer.
    pub(super) async fn expired(&self) -> UnfinishedError {
        let late = async {
            match self.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => UnfinishedError::Memory(QuotaExceeded::Revoked),
            () = late => UnfinishedError::Late,
        }
    }
}

#[cfg(test)]
mod tests {
    use podwitness_runtime::quota::{QuotaLimits, QuotaMetrics};

    use super::*;

    fn quota() -> Quota {
        Quota::new(QuotaLimits { total: 300, per_key: 200 }, QuotaMetrics::default())
    }

    fn peer(last: u8) -> QuotaKey {
        QuotaKey::source([10, 0, 0, last].into())
    }

    async fn is_expired(held: &UnfinishedInput) -> bool {
        tokio::time::timeout(Duration::ZERO, held.expired()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_may_take_as_long_as_it_likes_and_what_stands_still_may_not() {
        let (quota, begun) = (quota(), Instant::now());
        let mut held = UnfinishedInput::new(&quota, peer(1));
        for whole in 0..10 {
            held.set(10, whole).unwrap();
            tokio::time::advance(WITHIN - Duration::from_secs(1)).await;
            assert!(!is_expired(&held).await);
        }
        for bytes in 10..20 {
            held.set(bytes, 9).unwrap();
        }
        assert_eq!(held.expired().await, UnfinishedError::Late);
        assert_eq!(begun.elapsed(), 9 * (WITHIN - Duration::from_secs(1)) + WITHIN);
        held.set(0, 9).unwrap();
        tokio::time::advance(WITHIN * 9).await;
        assert!(!is_expired(&held).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_takes_it_from_itself_and_the_oldest_goes_first() {
        let quota = quota();
        let mut others = UnfinishedInput::new(&quota, peer(2));
        others.set(50, 0).unwrap();
        let mut own: Vec<_> = (0..3).map(|_| UnfinishedInput::new(&quota, peer(1))).collect();
        for held in &mut own {
            tokio::time::advance(Duration::from_secs(1)).await;
            held.set(100, 0).unwrap();
        }
        assert!(is_expired(&own[0]).await && !is_expired(&own[1]).await && !is_expired(&others).await);
        assert_eq!(own[0].set(1, 0), Err(UnfinishedError::Memory(QuotaExceeded::Revoked)));
        assert_eq!(
            own[1].set(201, 0),
            Err(UnfinishedError::Memory(QuotaExceeded::PerKey)),
            "for itself alone"
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        own[1].set(100, 1).unwrap();
        UnfinishedInput::new(&quota, peer(1)).set(100, 0).unwrap();
        assert!(is_expired(&own[2]).await && !is_expired(&own[1]).await, "it had gone on");
    }
}
