//! What is remembered of recorders: which failed lately, and which version of the protocol each speaks.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::plan::Needs;

/// How long a recorder that failed is left alone, at first and at most.
const FIRST_REST: Duration = Duration::from_secs(1);
const LAST_REST: Duration = Duration::from_secs(30);
/// The same for recordings that a session waits for: it does so for 20 s, and has to see that a recorder is back.
const AWAITED_REST: Duration = Duration::from_secs(4);
/// How long a recorder of version 1 is not asked for version 2: it may be replaced by a better one.
const STAYS_OLD: Duration = Duration::from_secs(600);
/// Cap on recorders that are remembered; above it the memory starts afresh.
const MAX_REMEMBERED: usize = 1024;

/// Recorders by address.
#[derive(Default)]
pub(super) struct Health(Mutex<HashMap<SocketAddr, Memory>>);

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaks {
    /// Without acknowledgements.
    V1,
    V2,
}

#[derive(Default)]
struct Memory {
    failure: Option<Failure>,
    speaks: Option<(Speaks, Instant)>,
}

struct Failure {
    at: Instant,
    rest: Duration,
}

impl Health {
    /// A recorder failed: it rests, longer each time.
    pub(super) fn failed(&self, recorder: SocketAddr) {
        self.remember(recorder, |memory| {
            let before = memory.failure.as_ref().map(|failure| failure.rest);
            let rest = before.map_or(FIRST_REST, |rest| (rest * 2).min(LAST_REST));
            memory.failure = Some(Failure { at: Instant::now(), rest });
        });
    }

    /// A recorder acknowledged something, or is another than before: that it failed is forgotten.
    pub(super) fn recovered(&self, recorder: SocketAddr) {
        self.remember(recorder, |memory| memory.failure = None);
    }

    /// A recorder showed which version it speaks.
    pub(super) fn heard(&self, recorder: SocketAddr, speaks: Speaks) {
        self.remember(recorder, |memory| memory.speaks = Some((speaks, Instant::now())));
    }

    /// What a recorder speaks is to be found out anew.
    pub(super) fn forget_version(&self, recorder: SocketAddr) {
        self.remember(recorder, |memory| memory.speaks = None);
    }

    /// The version that a recorder speaks, if that is known.
    pub(super) fn speaks(&self, recorder: SocketAddr) -> Option<Speaks> {
        self.all().get(&recorder)?.speaks(Instant::now())
    }

    pub(super) fn failed_since(&self, recorder: SocketAddr, since: Instant) -> bool {
        let all = self.all();
        let failure = all.get(&recorder).and_then(|memory| memory.failure.as_ref());
        failure.is_some_and(|failure| failure.at > since)
    }

    /// Those that may be tried, and those that rest or cannot do what is needed.
    pub(super) fn divide(
        &self,
        recorders: &[SocketAddr],
        needs: Needs,
    ) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let (all, now) = (self.all(), Instant::now());
        recorders.iter().partition(|recorder| {
            all.get(recorder).is_none_or(|memory| memory.rests_until(now, needs) <= now)
        })
    }

    /// When the first of them may be tried; a little later, so that not everybody comes at once.
    pub(super) fn next_attempt(&self, recorders: &[SocketAddr], needs: Needs) -> Option<Instant> {
        let (all, now) = (self.all(), Instant::now());
        let rested =
            recorders.iter().map(|r| all.get(r).map_or(now, |memory| memory.rests_until(now, needs)));
        let jitter = RandomState::new().hash_one(()) % 250;
        Some(rested.min()? + Duration::from_millis(jitter))
    }

    fn remember(&self, recorder: SocketAddr, what: impl FnOnce(&mut Memory)) {
        let mut all = self.all();
        if all.len() >= MAX_REMEMBERED && !all.contains_key(&recorder) {
            all.clear();
        }
        what(all.entry(recorder).or_default());
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SocketAddr, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn speaks(&self, now: Instant) -> Option<Speaks> {
        let (speaks, since) = self.speaks?;
        (speaks == Speaks::V2 || now < since + STAYS_OLD).then_some(speaks)
    }

    /// A time that is over where it does not rest.
    fn rests_until(&self, now: Instant, needs: Needs) -> Instant {
        let most = if needs.acks { AWAITED_REST } else { LAST_REST };
        let failed = self.failure.as_ref().map(|failure| failure.at + failure.rest.min(most));
        let old = self.speaks.filter(|_| needs.acks && self.speaks(now) == Some(Speaks::V1));
        let better = old.map(|(_, since)| since + STAYS_OLD);
        failed.max(better).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACKS: Needs = Needs::acks();

    fn one() -> SocketAddr {
        "[fd70::1]:80".parse().unwrap()
    }

    fn may_be_tried(health: &Health, needs: Needs) -> bool {
        !health.divide(&[one()], needs).0.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn a_recorder_rests_longer_each_time_it_fails() {
        let health = Health::default();
        for rest in [1, 2, 4, 8, 16, 30, 30] {
            health.failed(one());
            assert!(!may_be_tried(&health, Needs::default()));
            tokio::time::advance(Duration::from_secs(rest)).await;
            assert!(may_be_tried(&health, Needs::default()), "after {rest} s");
        }
        health.recovered(one());
        health.failed(one());
        tokio::time::advance(FIRST_REST).await;
        assert!(may_be_tried(&health, Needs::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_recorder_of_version_1_is_nothing_for_those_who_need_acknowledgements() {
        let health = Health::default();
        health.heard(one(), Speaks::V1);
        assert!(may_be_tried(&health, Needs::default()) && !may_be_tried(&health, ACKS));
        assert!(health.next_attempt(&[one()], ACKS).unwrap() >= Instant::now() + STAYS_OLD);
        tokio::time::advance(STAYS_OLD).await;
        assert!(may_be_tried(&health, ACKS), "it may have been replaced");
        assert_eq!(health.speaks(one()), None);
        health.heard(one(), Speaks::V2);
        tokio::time::advance(10 * STAYS_OLD).await;
        assert_eq!(health.speaks(one()), Some(Speaks::V2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_sees_in_time_that_a_recorder_is_back() {
        let health = Health::default();
        for _ in 0..10 {
            health.failed(one());
        }
        assert!(!may_be_tried(&health, ACKS));
        tokio::time::advance(AWAITED_REST).await;
        assert!(may_be_tried(&health, ACKS) && !may_be_tried(&health, Needs::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let health = Health::default();
        for port in 0..=u16::MAX {
            health.failed(SocketAddr::new(one().ip(), port));
        }
        assert!(health.all().len() <= MAX_REMEMBERED);
    }
}
