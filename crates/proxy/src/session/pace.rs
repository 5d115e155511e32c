//! How often a stream that says much is read.
//!
//! The API server passes output on in pieces of 4 KiB. Read as they come, each costs a wake-up, a read, a record of TLS
//! and a write, which together are more than its bytes. A stream above [`RATE`] is therefore left alone for
//! [`PAUSE`] whenever everything was read, and what comes meanwhile is read at once. What somebody types, and what a
//! terminal shows of it, stays far below.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::stream::TOGETHER;

/// Long enough for some ten pieces at [`RATE`], short enough for an eye and for the receive buffer of the kernel.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes a millisecond above which a stream says much.
const RATE: u128 = 8 << 10;
/// Bytes above that rate which make no difference yet: a screen is drawn without a pause.
const BURST: u128 = 64 << 10;

/// The pace of one stream: a leaky bucket.
pub(super) struct Pace {
    level: u128,
    at: Instant,
    until: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { level: 0, at: Instant::now(), until: None }
    }

    /// Notes what was read.
    pub(super) fn note(&mut self, len: usize) {
        let now = Instant::now();
        let leaked = now.duration_since(self.at).as_micros() * RATE / 1000;
        // Capped, so that what follows a flood is soon itself again.
        self.level = (self.level.saturating_sub(leaked) + len as u128).min(2 * BURST);
        self.at = now;
        self.until = (self.level > BURST && len < TOGETHER).then(|| now + PAUSE);
    }

    /// Waits until the stream should be read again. Dropped in between, the next call waits for what is left.
    pub(super) async fn pause(&self) {
        if let Some(until) = self.until.filter(|until| *until > Instant::now()) {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    async fn paused(pace: &Pace) -> Duration {
        let before = Instant::now();
        pace.pause().await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_small_pieces_is_read_once_in_a_pause() {
        let mut pace = Pace::new();
        for _ in 0..16 {
            pace.note(4 << 10);
            assert_eq!(paused(&pace).await, Duration::ZERO);
        }
        for _ in 0..100 {
            pace.note(48 << 10);
            assert_eq!(paused(&pace).await, PAUSE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_has_more_to_give_is_read_on() {
        let mut pace = Pace::new();
        for _ in 0..100 {
            pace.note(TOGETHER);
            assert_eq!(paused(&pace).await, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_typed_never_waits_and_soon_not_after_a_flood_either() {
        let mut pace = Pace::new();
        pace.note(1 << 20);
        advance(Duration::from_millis(20)).await;
        for _ in 0..1000 {
            pace.note(100);
            assert_eq!(paused(&pace).await, Duration::ZERO);
            advance(Duration::from_millis(1)).await;
        }
    }
}
