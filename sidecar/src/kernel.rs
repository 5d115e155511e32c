//! The one thread that may change the pod's network.
//!
//! Capabilities belong to a thread: this one raises `CAP_NET_ADMIN` for itself, every other has none. It takes short
//! jobs from a bounded queue: install or renew the rules, open and hand out sockets that carry our mark, do what the
//! tunnel needs. `async caller --job--> queue of 64 --> this thread`: callers wait for room, except the tunnel's jobs, which
//! are few and refused when the queue is full.
//!
//! Invariant: no job waits for the network, and a job that panics ends alone.

pub mod privilege;
pub mod rules;
pub mod selftest;

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use futures_util::future::BoxFuture;
use netlink_socket2::NetlinkSocket;
use podwitness_tunnel::{Privileged, Stopped};
use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
};

use privilege::PrivilegeError;
use rules::{Refreshed, Rules, RulesError, Targets};

/// Jobs that wait at a time.
const QUEUE: usize = 64;
/// Stack of the thread; netlink messages are on the heap.
const STACK: usize = 256 << 10;

type Job = Box<dyn FnOnce(&mut NetlinkSocket) + Send>;

/// The way to the thread; clones lead to the same one, which ends when the last is dropped.
#[derive(Clone, Debug)]
pub struct Kernel {
    jobs: mpsc::Sender<Job>,
    mark: u32,
}

/// Why something privileged was not done.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The operating system makes no thread.
    #[error("cannot start the privileged thread")]
    Thread(#[source] io::Error),
    /// No mark could be drawn.
    #[error("cannot draw a random mark")]
    Mark(#[source] io::Error),
    /// The capability is missing.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The rules are not in place.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The thread has ended, or the job did not survive.
    #[error("the privileged thread did not do its job")]
    Stopped,
}

impl Kernel {
    /// Starts the thread and raises its capability. Call it before the runtime's threads are made and before the
    /// process gives its capabilities up.
    ///
    /// # Errors
    /// Where the capability is not permitted to this process.
    pub fn start() -> Result<Self, KernelError> {
        let mark = draw_mark().map_err(KernelError::Mark)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (raised, outcome) = std_mpsc::sync_channel(1);
        let work = move || {
            let result = privilege::raise();
            let go_on = result.is_ok();
            // The starter waits for this word; should it be gone, the queue is closed too.
            let _ = raised.send(result);
            if go_on {
                serve(queue);
            }
        };
        let thread = thread::Builder::new().name("kernel".into()).stack_size(STACK);
        thread.spawn(work).map_err(KernelError::Thread)?;
        outcome.recv().map_err(|_| KernelError::Stopped)??;
        Ok(Self { jobs, mark })
    }

    /// The mark of our own connections, drawn at this start.
    #[must_use]
    pub const fn mark(&self) -> u32 {
        self.mark
    }

    /// Puts the rules in place.
    ///
    /// # Errors
    /// Where the kernel refuses them.
    pub async fn install(&self, rules: Arc<Rules>, targets: Arc<Targets>) -> Result<(), KernelError> {
        Ok(self.run(move |socket| rules.install(socket, &targets)).await??)
    }

    /// Renews the rules' elements.
    ///
    /// # Errors
    /// Where the kernel refuses them.
    pub async fn refresh(&self, rules: Arc<Rules>, targets: Arc<Targets>) -> Result<Refreshed, KernelError> {
        Ok(self.run(move |socket| rules.refresh(socket, &targets)).await??)
    }

    /// Takes the rules away.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn remove(&self) -> Result<(), KernelError> {
        Ok(self.run(Rules::remove).await??)
    }

    /// Connects past our own rules.
    ///
    /// # Errors
    /// Where the connection cannot be made.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let mark = self.mark;
        let made = self.run(move |_| marked_socket(to, mark)).await.map_err(io::Error::other)?;
        let stream = TcpSocket::from_std_stream(made?.into()).connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// [`Self::connect`] as a future of its own.
    #[must_use]
    pub fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        let kernel = self.clone();
        Box::pin(async move { kernel.connect(to).await })
    }

    pub(crate) async fn run<T, W>(&self, work: W) -> Result<T, KernelError>
    where
        T: Send + 'static,
        W: FnOnce(&mut NetlinkSocket) -> T + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        // The receiver is gone where the caller was cancelled; the job has then been done for nobody.
        let job: Job = Box::new(move |socket| drop(done.send(work(socket))));
        self.jobs.send(job).await.map_err(|_| KernelError::Stopped)?;
        result.await.map_err(|_| KernelError::Stopped)
    }
}

impl Privileged for Kernel {
    fn submit(&self, job: podwitness_tunnel::Job) -> Result<(), Stopped> {
        self.jobs.try_send(Box::new(move |_| job())).map_err(|_| Stopped)
    }
}

fn serve(mut queue: mpsc::Receiver<Job>) {
    let mut socket = NetlinkSocket::new();
    while let Some(job) = queue.blocking_recv() {
        if catch_unwind(AssertUnwindSafe(|| job(&mut socket))).is_err() {
            tracing::error!("a privileged job panicked");
            // What the job left half read would confuse the next one.
            socket = NetlinkSocket::new();
        }
    }
}

fn marked_socket(to: SocketAddr, mark: u32) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(to), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_mark(mark)?;
    Ok(socket)
}

/// A mark that nobody guesses; never 0, which means none.
fn draw_mark() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes).max(1))
}
