//! Token buckets: one for all sources together, one for each.
//!
//! Invariant: at most `max_sources` buckets are kept; a bucket that is full again says nothing and goes first.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use tokio::time::Instant;

use super::{ProvisionalLimits, Rate};

/// What is left to unknown keys.
pub(super) struct Rates {
    total: Bucket,
    per_source: Rate,
    sources: HashMap<IpAddr, Bucket>,
    max_sources: usize,
    /// For the sources that have no bucket of their own.
    others: Bucket,
}

struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

// === impl Rates ===

impl Rates {
    pub(super) fn new(limits: &ProvisionalLimits, now: Instant) -> Self {
        Self {
            total: Bucket::full(limits.total, now),
            per_source: limits.per_source,
            sources: HashMap::new(),
            max_sources: limits.max_sources,
            others: Bucket::full(limits.per_source, now),
        }
    }

    /// Takes one from the source and one from all, or nothing.
    pub(super) fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        // The source is asked first: one that has used up its own must not use up what belongs to all.
        self.source(network(source), now).take(now) && self.total.take(now)
    }

    /// Whether more than half of what belongs to all is used up.
    pub(super) fn are_short(&mut self, now: Instant) -> bool {
        self.total.refill(now);
        self.total.tokens < self.total.rate.burst / 2.0
    }

    fn source(&mut self, source: IpAddr, now: Instant) -> &mut Bucket {
        if !self.sources.contains_key(&source) && self.sources.len() >= self.max_sources {
            self.sources.retain(|_, bucket| !bucket.is_full(now));
            if self.sources.len() >= self.max_sources {
                return &mut self.others;
            }
        }
        let rate = self.per_source;
        self.sources.entry(source).or_insert_with(|| Bucket::full(rate, now))
    }
}

/// What one holder of addresses has at least: an IPv4 address, or a /64 of IPv6.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}

// === impl Bucket ===

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate.per_second;
        self.tokens = (self.tokens + gained).min(self.rate.burst);
        self.at = now;
    }

    fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.rate.burst
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(per_source: f64, total: f64, max_sources: usize) -> ProvisionalLimits {
        let rate = |burst| Rate { per_second: 1.0, burst };
        ProvisionalLimits {
            per_source: rate(per_source),
            total: rate(total),
            max_sources,
            ..ProvisionalLimits::default()
        }
    }

    fn v4(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let mut rates = Rates::new(&limits(2.0, 100.0, 10), now);
        assert_eq!([(); 3].map(|()| rates.take(v4(1), now)), [true, true, false]);
        assert!(rates.take(v4(1), now + Duration::from_secs(1)));
        assert!(!rates.take(v4(1), now + Duration::from_secs(1)));
    }

    #[test]
    fn a_loud_source_takes_nothing_from_a_quiet_one() {
        let now = Instant::now();
        let mut rates = Rates::new(&limits(2.0, 4.0, 10), now);
        let taken = (0..1000).filter(|_| rates.take(v4(1), now)).count();
        assert_eq!(taken, 2);
        assert!(rates.take(v4(2), now));
    }

    #[test]
    fn many_sources_together_are_bounded_and_the_shortage_shows() {
        let now = Instant::now();
        let mut rates = Rates::new(&limits(2.0, 10.0, 100), now);
        assert!(!rates.are_short(now));
        let taken = (0..50).filter(|last| rates.take(v4(*last), now)).count();
        assert_eq!(taken, 10);
        assert!(rates.are_short(now));
        assert!(!rates.are_short(now + Duration::from_secs(10)));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let now = Instant::now();
        let mut rates = Rates::new(&limits(2.0, 100.0, 10), now);
        let taken =
            (0..10).filter(|host| rates.take(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, *host).into(), now));
        assert_eq!(taken.count(), 2);
    }

    #[test]
    fn sources_are_bounded_and_those_that_rest_make_room() {
        let now = Instant::now();
        let mut rates = Rates::new(&limits(2.0, 1000.0, 3), now);
        for last in 0..100 {
            rates.take(v4(last), now);
        }
        assert_eq!(rates.sources.len(), 3);
        assert!(!rates.take(v4(200), now), "sources beyond the bound share one bucket");
        let later = now + Duration::from_secs(60);
        assert!(rates.take(v4(200), later));
        assert_eq!(rates.sources.len(), 1);
    }
}
