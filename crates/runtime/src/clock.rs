//! The wall clock, as a seam: what is dated (certificates, assertions, file names) asks it, what only takes time uses
//! `tokio::time`, which obeys the paused clock of a test.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Tells the time of day.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_unix_millis(&self) -> i64;

    /// Seconds since the Unix epoch, rounded down.
    fn now_unix(&self) -> i64 {
        self.now_unix_millis().div_euclid(1000)
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock that stands until it is set; for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl Clock for SystemClock {
    fn now_unix_millis(&self) -> i64 {
        // A clock before 1970 reads as 1970: certificates are then not yet valid, which is said elsewhere.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

impl ManualClock {
    /// A clock that stands at `unix` seconds.
    #[must_use]
    pub const fn at(unix: i64) -> Self {
        Self(AtomicI64::new(unix.saturating_mul(1000)))
    }

    /// Sets the clock to `unix` seconds.
    pub fn set(&self, unix: i64) {
        self.0.store(unix.saturating_mul(1000), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_unix_millis(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_down_on_both_sides_of_the_epoch() {
        let clock = ManualClock(AtomicI64::new(-1));
        assert_eq!(clock.now_unix(), -1);
        clock.set(7);
        assert_eq!((clock.now_unix(), clock.now_unix_millis()), (7, 7000));
    }

    #[test]
    fn the_system_clock_is_past_the_year_2024() {
        assert!(SystemClock.now_unix() > 1_704_067_200);
    }
}
