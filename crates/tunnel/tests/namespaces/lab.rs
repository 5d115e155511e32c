//! Network namespaces joined by wires.

use std::{
    future::Future,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use netlink_bindings::{rt_addr, rt_link};
use netlink_socket2::NetlinkSocket;
use nix::sched::{CloneFlags, unshare};
use podwitness_tunnel::{Job, Privileged, Stopped, netlink::Netlink};
use rustix::{
    net::AddressFamily,
    thread::{CapabilitySet, capabilities, set_capabilities},
};
use tokio::{
    runtime::{Builder, Runtime},
    time,
};

/// Name of the interface at either end of a wire.
const WIRE: &str = "eth0";
/// Patience of [`eventually`] and [`Node::run`]; far above what WireGuard's own timers (5, 10, 15 s) need.
const PATIENCE: Duration = Duration::from_secs(90);

/// A network namespace and a runtime whose threads live in it.
pub struct Node {
    runtime: Option<Runtime>,
    namespace: OwnedFd,
}

/// Two nodes on one wire.
pub struct Lab {
    pub sidecar: Node,
    pub recorder: Node,
}

// === impl Lab ===

impl Lab {
    /// Address of the recorder's end of the wire.
    pub const RECORDER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 1);
    /// Address of the sidecar's end.
    pub const SIDECAR: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 2);

    pub fn new() -> Self {
        let (sidecar, recorder) = (Node::new(), Node::new());
        sidecar.wire_to(&recorder);
        sidecar.come_up(Self::SIDECAR);
        recorder.come_up(Self::RECORDER);
        Self { sidecar, recorder }
    }

    /// As [`Lab::new`], but in the sidecar's node nothing but the returned seam may administer the network.
    pub fn unprivileged() -> (Self, Arc<dyn Privileged>) {
        let ((sidecar, seam), recorder) = (Node::unprivileged(), Node::new());
        recorder.wire_to(&sidecar);
        Node::as_privileged(&seam, |netlink| come_up(netlink, Self::SIDECAR));
        recorder.come_up(Self::RECORDER);
        (Self { sidecar, recorder }, seam)
    }
}

// === impl Node ===

impl Node {
    pub fn new() -> Self {
        Self::after(|| ())
    }

    /// A node of whose threads only the one behind the returned seam may administer the network.
    pub fn unprivileged() -> (Self, Arc<dyn Privileged>) {
        let (seam, given) = mpsc::channel();
        let node = Self::after(move || {
            seam.send(OneThread::start()).unwrap();
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, sets).unwrap();
        });
        (node, Arc::new(given.recv().unwrap()))
    }

    /// A node whose threads begin with what `prepare` has made of the first.
    fn after(prepare: impl FnOnce() + Send + 'static) -> Self {
        thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of our own; are we root?");
            prepare();
            Self {
                namespace: std::fs::File::open("/proc/thread-self/ns/net").unwrap().into(),
                // Threads have the namespace and the capabilities of the thread that starts them.
                runtime: Some(Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()),
            }
        })
        .join()
        .unwrap()
    }

    /// Runs the future in the namespace and waits for it.
    pub fn run<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, result) = mpsc::channel();
        let task = self.runtime.as_ref().unwrap().spawn(async move {
            let _ = done.send(time::timeout(PATIENCE, future).await.expect("patience is over"));
        });
        match result.recv() {
            Ok(output) => output,
            Err(_) => panic!("{:?}", self.runtime.as_ref().unwrap().block_on(task)),
        }
    }

    /// Starts the future in the namespace.
    pub fn start<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.as_ref().unwrap().spawn(future);
    }

    /// Changes links, addresses and routes of the namespace.
    pub fn netlink<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<T, podwitness_tunnel::netlink::Error> + Send + 'static,
    ) -> T {
        self.run(async move { work(&mut Netlink::new()).unwrap() })
    }

    /// The index of the wire's interface.
    pub fn wire(&self) -> u32 {
        self.netlink(|netlink| netlink.link(WIRE)).unwrap().index
    }

    pub fn add_address(&self, address: impl Into<IpAddr>) {
        let (address, index) = (address.into(), self.wire());
        self.run(async move { change_address(index, address, true) });
    }

    pub fn remove_address(&self, address: impl Into<IpAddr>) {
        let (address, index) = (address.into(), self.wire());
        self.run(async move { change_address(index, address, false) });
    }

    /// The sum of the counters of that name in the namespace's statistics of IP.
    pub fn counter(&self, name: &'static str) -> u64 {
        self.run(async move {
            let text = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
            let lines = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
            lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim().parse::<u64>().unwrap()).sum()
        })
    }

    fn wire_to(&self, other: &Self) {
        let far = other.namespace.try_clone().unwrap();
        self.run(async move {
            let mut socket = NetlinkSocket::new();
            let mut made = rt_link::Request::new().set_create().op_newlink_do(&rt_link::Ifinfomsg::new());
            made.encode()
                .push_ifname_bytes(WIRE.as_bytes())
                .nested_linkinfo()
                .push_kind(c"veth")
                .end_nested();
            socket.request(&made).unwrap().recv_ack().unwrap();
            // The kernel makes and names the other end; it goes over under the name of the first.
            let mut moved = rt_link::Request::new().op_setlink_do(&rt_link::Ifinfomsg {
                ifi_index: Netlink::new().link("veth0").unwrap().unwrap().index.cast_signed(),
                ..rt_link::Ifinfomsg::new()
            });
            let descriptor = u32::try_from(far.as_raw_fd()).unwrap();
            moved.encode().push_ifname_bytes(WIRE.as_bytes()).push_net_ns_fd(descriptor);
            socket.request(&moved).unwrap().recv_ack().unwrap();
        });
    }

    fn come_up(&self, address: Ipv6Addr) {
        self.run(async move { come_up(&mut Netlink::new(), address) });
    }

    fn as_privileged(seam: &Arc<dyn Privileged>, work: impl FnOnce(&mut Netlink) + Send + 'static) {
        let (done, waited) = mpsc::channel();
        seam.submit(Box::new(move || {
            work(&mut Netlink::new());
            done.send(()).unwrap();
        }))
        .unwrap();
        waited.recv().unwrap();
    }
}

fn come_up(netlink: &mut Netlink, address: Ipv6Addr) {
    let loopback = netlink.link("lo").unwrap().unwrap();
    netlink.bring_up(loopback.index, u16::MAX).unwrap();
    let wire = netlink.link(WIRE).unwrap().unwrap();
    netlink.bring_up(wire.index, 1500).unwrap();
    change_address(wire.index, address.into(), true);
}

impl Drop for Node {
    fn drop(&mut self) {
        // Waiting here would wait for connections that nobody ends.
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// The one thread that may administer the network.
struct OneThread(mpsc::Sender<Job>);

impl OneThread {
    fn start() -> Self {
        let (jobs, given) = mpsc::channel::<Job>();
        thread::spawn(move || given.into_iter().for_each(|job| job()));
        Self(jobs)
    }
}

impl Privileged for OneThread {
    fn submit(&self, job: Job) -> Result<(), Stopped> {
        self.0.send(job).map_err(|_| Stopped)
    }
}

/// Adds or removes an address whose /64 or /24 is on the wire.
fn change_address(index: u32, address: IpAddr, add: bool) {
    let (family, length) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, 24),
        IpAddr::V6(_) => (AddressFamily::INET6, 64),
    };
    let header = rt_addr::Ifaddrmsg {
        ifa_family: u8::try_from(family.as_raw()).unwrap(),
        ifa_prefixlen: length,
        ifa_index: index,
        ..rt_addr::Ifaddrmsg::new()
    };
    let mut socket = NetlinkSocket::new();
    if add {
        let mut request = rt_addr::Request::new().set_create().op_newaddr_do(&header);
        request.encode().push_local(address).push_flags(rt_addr::IfaFlags::Nodad as u32);
        socket.request(&request).unwrap().recv_ack().unwrap();
    } else {
        let mut request = rt_addr::Request::new().op_deladdr_do(&header);
        request.encode().push_local(address);
        socket.request(&request).unwrap().recv_ack().unwrap();
    }
}

/// Asks again and again until the answer is there.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    match time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// A UDP endpoint on that address.
pub fn endpoint(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}
