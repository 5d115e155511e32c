//! Rate limits: token buckets by key (source address, pod), in a table that cannot grow without end.
//!
//! A bucket that has filled up again says nothing and is forgotten. When the table is full of buckets that have not,
//! all further keys share one bucket, so that a flood of sources slows itself.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How fast a key may ask.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Requests at once after a pause.
    pub burst: u32,
    /// Time in which one more is earned.
    pub every: Duration,
}

/// Buckets of one rate.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    cap: usize,
    buckets: HashMap<K, Bucket>,
    overflow: Bucket,
}

/// A bucket as the moment at which it is full again (generic cell rate algorithm): one instant, no counting.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl<K: Eq + Hash> Buckets<K> {
    /// At most `cap` keys are told apart.
    #[must_use]
    pub fn new(rate: Rate, cap: usize) -> Self {
        Self { rate, cap, buckets: HashMap::new(), overflow: Bucket { full_at: Instant::now() } }
    }

    /// Takes one from the bucket of `key`.
    ///
    /// # Errors
    /// Where it is empty: how long until there is one.
    pub fn take(&mut self, key: K) -> Result<(), Duration> {
        let now = Instant::now();
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(self.rate, now);
        }
        if self.buckets.len() >= self.cap {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        if self.buckets.len() >= self.cap {
            return self.overflow.take(self.rate, now);
        }
        self.buckets.entry(key).or_insert(Bucket { full_at: now }).take(self.rate, now)
    }
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + rate.every;
        let debt = full_at.duration_since(now);
        let most = rate.every.saturating_mul(rate.burst);
        if debt > most {
            return Err(debt.saturating_sub(most));
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 2, every: Duration::from_secs(1) };

    #[tokio::test(start_paused = true)]
    async fn a_key_has_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::new(RATE, 8);
        assert_eq!((buckets.take("a"), buckets.take("a")), (Ok(()), Ok(())));
        assert_eq!(buckets.take("a"), Err(Duration::from_secs(1)));
        assert_eq!(buckets.take("b"), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(buckets.take("a"), Ok(()));
        assert!(buckets.take("a").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_keys_shares_one_bucket_and_the_table_stays_small() {
        let mut buckets = Buckets::new(RATE, 8);
        let passed = (0..1000).filter(|key| buckets.take(*key).is_ok()).count();
        assert_eq!((passed, buckets.buckets.len()), (8 + 2, 8));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(buckets.take(7777), Ok(()));
        assert_eq!(buckets.buckets.len(), 1);
    }
}
