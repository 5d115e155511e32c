//! The seam to where `CAP_NET_ADMIN` is effective.
//!
//! Capabilities belong to a thread: in the sidecar one operating-system thread raises `NET_ADMIN` for itself and takes
//! jobs, everything else runs without. A job is short and never waits for the network.

use tokio::sync::oneshot;

/// Work for the privileged thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs where `CAP_NET_ADMIN` is effective.
pub trait Privileged: Send + Sync + 'static {
    /// Hands a job over; it runs later, or at once on the caller's thread.
    ///
    /// # Errors
    /// [`Stopped`] where no job is taken any more. A job that was taken but never run is dropped.
    fn submit(&self, job: Job) -> Result<(), Stopped>;
}

/// The privileged thread has ended; nothing that needs `CAP_NET_ADMIN` can be done any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the privileged thread has ended")]
pub struct Stopped;

/// Runs every job at once on the caller's thread: for processes that hold the capability on all of their threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Privileged for Inline {
    fn submit(&self, job: Job) -> Result<(), Stopped> {
        job();
        Ok(())
    }
}

/// Runs `work` as a job and waits for its result.
pub(crate) async fn run<T, W>(privileged: &dyn Privileged, work: W) -> Result<T, Stopped>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    let (done, result) = oneshot::channel();
    // The receiver is gone where the caller was cancelled; the job has then been done for nobody.
    privileged.submit(Box::new(move || drop(done.send(work()))))?;
    result.await.map_err(|_| Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Forgetful;

    impl Privileged for Forgetful {
        fn submit(&self, job: Job) -> Result<(), Stopped> {
            drop(job);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_job_gives_its_result_back() {
        assert_eq!(run(&Inline, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_job_that_never_runs_is_an_error_not_a_wait() {
        assert_eq!(run(&Forgetful, || 7).await, Err(Stopped));
    }
}
