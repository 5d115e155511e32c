//! The one thread that may configure the tunnel's interface.
//!
//! Capabilities belong to a thread, and a new thread has those of its maker (capabilities(7)): the thread is started
//! before the runtime and keeps what it needs, then the rest of the process gives everything up. Jobs are few and
//! short; they wait in a bounded queue, and are refused where it is full.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use podwitness_tunnel::{Job, Privileged, Stopped};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use thiserror::Error;

/// Jobs that wait at a time.
const QUEUE: usize = 64;

/// The way to the thread, which ends when this is dropped.
#[derive(Debug)]
pub struct PrivilegedThread(SyncSender<Job>);

/// Why there is no such thread.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The capability is missing.
    #[error(
        "CAP_NET_ADMIN is not permitted to this process: the container needs capabilities.add [NET_ADMIN] and the \
         binary its file capability cap_net_admin+p"
    )]
    Missing,
    /// Capabilities cannot be read or changed.
    #[error("cannot {0} capabilities")]
    Change(&'static str, #[source] io::Error),
    /// The operating system makes no thread.
    #[error("cannot start the privileged thread")]
    Thread(#[source] io::Error),
}

impl PrivilegedThread {
    /// Starts the thread, and leaves the calling one, with all that it makes from now on, without any capability.
    ///
    /// # Errors
    /// Where `CAP_NET_ADMIN` is not permitted to this process.
    pub fn start() -> Result<Self, PrivilegeError> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let (raised, outcome) = mpsc::sync_channel(1);
        let work = move || {
            let result = raise();
            let go_on = result.is_ok();
            // The starter waits for this word; should it be gone, the queue is closed too.
            let _ = raised.send(result);
            if go_on {
                serve(&queue);
            }
        };
        let thread = thread::Builder::new().name("privileged".to_owned());
        thread.spawn(work).map_err(PrivilegeError::Thread)?;
        outcome.recv().map_err(|gone| PrivilegeError::Thread(io::Error::other(gone)))??;
        set(CapabilitySet::empty()).map_err(change("give up"))?;
        Ok(Self(jobs))
    }
}

impl Privileged for PrivilegedThread {
    fn submit(&self, job: Job) -> Result<(), Stopped> {
        self.0.try_send(job).map_err(|_| Stopped)
    }
}

/// `CAP_NET_ADMIN` for the interface; `CAP_NET_BIND_SERVICE`, where it is permitted, for port 80.
fn raise() -> Result<(), PrivilegeError> {
    let wanted = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE;
    let kept = capabilities(None).map_err(change("read"))?.permitted & wanted;
    if !kept.contains(CapabilitySet::NET_ADMIN) {
        return Err(PrivilegeError::Missing);
    }
    set(kept).map_err(change("raise"))
}

fn set(capabilities: CapabilitySet) -> rustix::io::Result<()> {
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: capabilities, permitted: capabilities, inheritable })
}

fn change(what: &'static str) -> impl Fn(rustix::io::Errno) -> PrivilegeError {
    move |errno| PrivilegeError::Change(what, errno.into())
}

fn serve(queue: &Receiver<Job>) {
    for job in queue {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a privileged job panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn only_the_privileged_thread_keeps_a_capability() {
        // A thread of its own gives everything up, so that the other tests notice nothing.
        let (ours, theirs) = thread::spawn(|| {
            let privileged = PrivilegedThread::start().unwrap();
            let (done, result) = mpsc::channel();
            privileged.submit(Box::new(move || done.send(capabilities(None).unwrap()).unwrap())).unwrap();
            (capabilities(None).unwrap(), result.recv().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((ours.permitted, ours.effective), (CapabilitySet::empty(), CapabilitySet::empty()));
        assert!(theirs.effective.contains(CapabilitySet::NET_ADMIN));
        assert!(!theirs.permitted.contains(CapabilitySet::SYS_ADMIN));
    }

    #[test]
    fn a_job_that_panics_ends_alone() {
        let (jobs, queue) = mpsc::sync_channel::<Job>(2);
        let (done, result) = mpsc::channel();
        jobs.send(Box::new(|| panic!("on purpose"))).unwrap();
        jobs.send(Box::new(move || done.send(7).unwrap())).unwrap();
        drop(jobs);
        serve(&queue);
        assert_eq!(result.recv(), Ok(7));
    }
}
