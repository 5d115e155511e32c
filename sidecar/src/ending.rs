//! How long a sidecar that is told to end finishes what it has begun.
//!
//! The kubelet ends a pod's first native sidecar last: when all other containers have ended, or have used up the pod's grace
//! period (`pkg/kubelet/kuberuntime/kuberuntime_termination_order.go`). It then has what is left of that period, and 2 s
//! at least (`minimumGracePeriodInSeconds`), and is killed. How much is left it is not told. A process that is killed
//! reports nothing of what it could not upload, and its exit code, 137, may count as a failure of the pod's Job.

use std::time::Duration;

use podwitness_runtime::drain::{Drained, Signal};
use tokio::time::timeout;

/// What the kubelet leaves at least, less some for its own work.
const LEAST: Duration = Duration::from_millis(1200);
/// What is kept of a longer time for the end itself.
const MARGIN: Duration = Duration::from_secs(1);
/// Grace periods up to this have no room for looking for a recorder (10 s) and what other containers take of them: the
/// least is what can be relied upon.
const SHORT: Duration = Duration::from_secs(12);
/// How long recordings may take to say that they are over, when the time is.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// How long what has begun may go on in a pod with this grace period, in seconds.
pub(crate) fn deadline(grace_period: u32) -> Duration {
    let grace_period = Duration::from_secs(grace_period.into());
    if grace_period <= SHORT { LEAST } else { grace_period.saturating_sub(MARGIN) }
}

/// Drains once `shutdown` completes, for `deadline` at most.
pub(crate) async fn drain_after(shutdown: impl Future<Output = ()>, signal: Signal, deadline: Duration) {
    shutdown.await;
    tracing::info!(?deadline, "draining");
    let watch = signal.watch();
    let outcome = signal.drain(deadline).await;
    if outcome == Drained::Deadline && timeout(LAST_WORDS, watch.released()).await.is_err() {
        tracing::warn!("some of what was going on has not ended by itself");
    }
    tracing::info!(?outcome, "drained");
}

#[cfg(test)]
mod tests {
    use podwitness_runtime::drain::Drain;
    use tokio::time::Instant;

    use super::*;

    /// What the kubelet leaves the sidecar where other containers have taken `used` seconds.
    fn left(grace_period: u32, used: u32) -> Duration {
        Duration::from_secs(grace_period.saturating_sub(used).max(2).into())
    }

    #[test]
    fn a_short_grace_period_is_never_outlived() {
        for grace_period in 0..=12 {
            for used in 0..=grace_period {
                assert!(
                    deadline(grace_period) + LAST_WORDS < left(grace_period, used),
                    "{grace_period} {used}"
                );
            }
        }
    }

    #[test]
    fn a_long_one_is_used_and_not_outlived_where_other_containers_end_at_once() {
        for grace_period in [13, 30, 3600, u32::MAX] {
            let taken = deadline(grace_period) + LAST_WORDS;
            assert!(taken < left(grace_period, 0) && taken > Duration::from_secs(12), "{grace_period}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_ended_at_the_deadline_and_waited_for_shortly() {
        let (signal, watch) = Drain::new();
        let guard = watch.guard();
        let (stubborn, session) = (watch.guard(), watch.clone());
        tokio::spawn(async move {
            session.over().await;
            drop(guard);
        });
        let begun = Instant::now();
        drain_after(async {}, signal, LEAST).await;
        assert_eq!(begun.elapsed(), LEAST + LAST_WORDS);
        drop(stubborn);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_where_nothing_goes_on() {
        let (signal, watch) = Drain::new();
        let begun = Instant::now();
        drain_after(async {}, signal, deadline(30)).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(watch);
    }
}
