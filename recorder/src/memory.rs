//! How the container's memory is divided among what senders can make the recorder hold.
//!
//! | budget | share | what it holds |
//! |---|---|---|
//! | reading | 1/16 | frames of HTTP/2 that a task has read and not looked at, because the volume is slow |
//! | unfinished | 1/16 | lines, compressed frames and events that are not whole yet: the sender alone decides when they are |
//! | waiting | 1/8 | whole lines and events that are not durable yet: the volume decides |
//! | windows | 1/4 | what HTTP/2 lets senders send before it is read |
//! | described | 1/16 | what headers say of sessions, for as long as these last |
//!
//! A peer has a quarter of each at most, of the last a sixteenth.

use podwitness_runtime::quota::QuotaLimits;

/// Memory that is reckoned with where the container has no limit: that of a shipped recorder.
const DEFAULT: u64 = 512 << 20;
/// More is not divided: it would not be used.
const MOST: u64 = 8 << 30;
/// Least share of a peer: the longest header line, whose buffer grows by doubling.
const LEAST: usize = 4 << 20;
/// Least of what headers may say.
const LEAST_DESCRIBED: usize = 1 << 20;

/// Caps on memory, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemoryBudget {
    /// What was read and not looked at.
    pub reading: QuotaLimits,
    /// What is not whole.
    pub unfinished: QuotaLimits,
    /// What is not durable.
    pub waiting: QuotaLimits,
    /// What was not read.
    pub windows: QuotaLimits,
    /// What sessions that last are described by.
    pub described: QuotaLimits,
}

impl MemoryBudget {
    /// The budget of a container with this limit.
    #[must_use]
    pub fn of(limit: Option<u64>) -> Self {
        let limit = usize::try_from(limit.unwrap_or(DEFAULT).min(MOST)).unwrap_or(usize::MAX);
        Self {
            reading: share(limit / 16, 4, LEAST),
            unfinished: share(limit / 16, 4, LEAST),
            waiting: share(limit / 8, 4, LEAST),
            windows: share(limit / 4, 4, LEAST),
            described: share(limit / 16, 16, LEAST_DESCRIBED),
        }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::of(None)
    }
}

fn share(total: usize, part: usize, least: usize) -> QuotaLimits {
    let per_key = total.checked_div(part).unwrap_or(total).max(least);
    QuotaLimits { total: total.max(per_key), per_key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_limit_is_divided_and_the_rest_is_left() {
        let MemoryBudget { reading, unfinished, waiting, windows, described } = MemoryBudget::default();
        assert_eq!(reading, unfinished);
        assert_eq!((unfinished.total, waiting.total, windows.total), (32 << 20, 64 << 20, 128 << 20));
        assert_eq!((described.total, described.per_key), (32 << 20, 2 << 20));
        assert_eq!((unfinished.per_key, waiting.per_key, windows.per_key), (8 << 20, 16 << 20, 32 << 20));
    }

    #[test]
    fn a_small_container_still_takes_any_line_of_one_peer() {
        let small = MemoryBudget::of(Some(32 << 20));
        assert_eq!(small.unfinished, QuotaLimits { total: LEAST, per_key: LEAST });
        assert_eq!(MemoryBudget::of(Some(u64::MAX)), MemoryBudget::of(Some(MOST)));
    }
}
