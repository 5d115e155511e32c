//! Waiting for what is to come true, with a limit and the last reason it was not.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

/// Longest wait of any test for one thing, generous because machines are small and noisy.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries, at first and at last: what takes long is not hurried by many questions, each of which costs time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_millis(1200);

/// Tries `check` until it succeeds.
///
/// # Errors
/// After [`PATIENCE`], with `what` was awaited and the last reason why it had not come.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let (end, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
    loop {
        let reason = match check().await {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if Instant::now() > end {
            return Err(anyhow!("gave up waiting until {what}: {reason:#}"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(LAST_PAUSE);
    }
}
