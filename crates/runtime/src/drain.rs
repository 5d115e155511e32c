//! Orderly shutdown: tell everyone to take nothing new, wait for what is alive, then say that it is over.
//!
//! Order of events: [`Watch::draining`] completes when the drain begins; whoever holds a [`Guard`] finishes its
//! work and drops it; [`Watch::over`] completes when no guard is left or the deadline has passed, whichever is
//! first. What still lives then should end at once and say why.

use std::time::Duration;

use tokio::signal::unix::{Signal as OsSignal, SignalKind, signal};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Makes the two ends of a drain.
#[derive(Clone, Copy, Debug)]
pub enum Drain {}

/// The end that begins the drain. Dropping it begins nothing.
#[derive(Debug)]
pub struct Signal {
    watch: Watch,
}

/// The end that learns of the drain.
#[derive(Clone, Debug)]
pub struct Watch {
    begun: CancellationToken,
    over: CancellationToken,
    sessions: TaskTracker,
}

/// Held by a live session; the drain waits for it.
#[derive(Debug)]
#[must_use = "the drain waits only for guards that are held"]
pub struct Guard {
    _token: TaskTrackerToken,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drained {
    /// Every guard was dropped.
    All,
    /// Guards were left at the deadline.
    Deadline,
}

impl Drain {
    /// Both ends.
    #[expect(clippy::new_ret_no_self, reason = "a drain is its two ends")]
    #[must_use]
    pub fn new() -> (Signal, Watch) {
        let watch = Watch {
            begun: CancellationToken::new(),
            over: CancellationToken::new(),
            sessions: TaskTracker::new(),
        };
        (Signal { watch: watch.clone() }, watch)
    }
}

impl Signal {
    /// The other end once more.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Begins the drain and waits at most `deadline` for all guards.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.watch.begun.cancel();
        self.watch.sessions.close();
        let outcome = match tokio::time::timeout(deadline, self.watch.sessions.wait()).await {
            Ok(()) => Drained::All,
            Err(_) => Drained::Deadline,
        };
        self.watch.over.cancel();
        outcome
    }
}

impl Watch {
    /// Completes when the drain begins; at once if it has.
    pub async fn draining(&self) {
        self.begun.cancelled().await;
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Completes when the drain is over: no guard left, or the deadline passed.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Completes when no guard is left, also after the deadline. Until the drain begins it does not complete.
    pub async fn released(&self) {
        self.sessions.wait().await;
    }

    /// Makes the drain wait until the guard is dropped.
    pub fn guard(&self) -> Guard {
        Guard { _token: self.sessions.token() }
    }
}

/// Completes at the first SIGTERM or SIGINT.
///
/// Where a handler cannot be installed, it never completes for that signal, whose default action then ends the
/// process.
pub async fn shutdown_signal() {
    tokio::select! {
        () = received(SignalKind::terminate()) => {}
        () = received(SignalKind::interrupt()) => {}
    }
}

async fn received(kind: SignalKind) {
    let stream: Option<OsSignal> = signal(kind)
        .inspect_err(|error| tracing::error!(%error, ?kind, "cannot handle this signal; it will end the process at once"))
        .ok();
    match stream {
        Some(mut stream) => {
            stream.recv().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_every_guard_and_then_is_over() {
        let (signal, watch) = Drain::new();
        let guard = watch.guard();
        let session = tokio::spawn({
            let watch = watch.clone();
            async move {
                watch.draining().await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                drop(guard);
            }
        });
        assert!(!watch.is_draining());
        let begun = tokio::time::Instant::now();
        assert_eq!(signal.drain(Duration::from_secs(60)).await, Drained::All);
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        watch.over().await;
        session.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_that_stays_holds_the_drain_to_its_deadline_only() {
        let (signal, watch) = Drain::new();
        let _guard = watch.guard();
        assert_eq!(signal.drain(Duration::from_secs(60)).await, Drained::Deadline);
        watch.over().await;
    }

    #[tokio::test(start_paused = true)]
    async fn guards_that_are_dropped_after_the_deadline_are_told_too() {
        let (signal, watch) = Drain::new();
        let guard = watch.guard();
        assert_eq!(signal.drain(Duration::from_secs(60)).await, Drained::Deadline);
        let released = tokio::spawn({
            let watch = watch.clone();
            async move { watch.released().await }
        });
        tokio::task::yield_now().await;
        assert!(!released.is_finished());
        drop(guard);
        released.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_taken_while_draining_counts() {
        let (signal, watch) = Drain::new();
        let first = watch.guard();
        let drained = tokio::spawn(signal.drain(Duration::from_secs(60)));
        watch.draining().await;
        let second = watch.guard();
        drop(first);
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        drop(second);
        assert_eq!(drained.await.unwrap(), Drained::All);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_signal_begins_no_drain() {
        let (signal, watch) = Drain::new();
        drop(signal);
        assert!(tokio::time::timeout(Duration::from_secs(3600), watch.draining()).await.is_err());
    }
}
