//! Waiting between attempts: doubles up to a cap, with half of it left to chance so that the pods of a cluster do
//! not come back at the same moment.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Delays of one agent.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays that begin near `first` and stay below `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// Begins again at the first delay.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next delay, between half of the step and the whole of it.
    pub fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.most);
        (step / 2).saturating_add((step / 2).mul_f64(chance()))
    }
}

/// A number in 0..1. The standard library's hash keys are random in each process and differ with each call, which
/// is enough to spread a crowd; nothing secret depends on it.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_their_jitter_and_stay_below_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for step in [1, 2, 4, 8, 16, 30, 30] {
            let delay = backoff.delay();
            assert!(
                delay >= Duration::from_millis(step * 500) && delay <= Duration::from_secs(step),
                "{delay:?}"
            );
        }
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_secs(1));
    }

    #[test]
    fn two_agents_do_not_wait_alike() {
        let delays: Vec<_> =
            (0..8).map(|_| Backoff::new(Duration::from_secs(1), Duration::MAX).delay()).collect();
        assert!(delays.iter().any(|delay| Some(delay) != delays.first()));
    }
}
