//! A pod with one interface, and the world behind it: an API server at a Service address, at an endpoint and at a
//! gateway address, and other servers.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use netlink_socket2::NetlinkSocket;
use podwitness_lab::Netns;
use podwitness_sidecar::kernel::rules::{Rules, Targets};
use socket2::{Domain, Socket, Type};

/// The port of our listener in these tests.
pub const LISTENER: u16 = 15443;
/// Mark of the sidecar in these tests.
pub const MARK: u32 = 0x0077_1234;
/// Service address of the API server in either family.
pub const SERVICE: &str = "10.96.0.1:443";
pub const SERVICE_V6: &str = "[fd00:10:96::1]:443";
/// The API server itself, on its own port.
pub const ENDPOINT: &str = "172.18.0.2:6443";
/// The same API server behind an address that nobody told us.
pub const GATEWAY: &str = "172.18.0.9:6443";
/// The control plane.
pub const CONTROL: &str = "10.96.3.4:8444";
/// Something else.
pub const OTHER: &str = "172.18.0.9:443";

/// Where a connection ended.
#[derive(Debug, Eq, PartialEq)]
pub enum Landed {
    /// At the address that was dialled.
    World,
    /// At our listener, which learned this destination.
    Sidecar(SocketAddr),
}

/// Held by a test while it may have the sidecar's tunnel open. A userspace device is configured by a socket in a folder of
/// the machine, named like its interface, whatever its network namespace (wireguard.com/xplatform): of two at a time, the
/// second would be given the peers of the first.
pub fn tunnel_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that fails leaves nothing behind that the next one minds.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Lab {
    pub pod: Netns,
    pub world: Netns,
}

impl Lab {
    /// With servers in the world that say so, and a listener in the pod that says whom the client wanted.
    pub fn new() -> Self {
        let lab = Self::wired();
        for server in [SERVICE, SERVICE_V6, ENDPOINT, GATEWAY, OTHER] {
            serve(lab.world.run(|| TcpListener::bind(server)).unwrap(), |_| "world".into());
        }
        lab.listen(LISTENER, MARK);
        lab
    }

    /// Listens in the pod like a sidecar of this mark, and says whom a client wanted.
    pub fn listen(&self, port: u16, mark: u32) {
        for loopback in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(loopback.parse().unwrap(), port);
            serve(self.pod.run(|| listen(address, mark)), |stream| original(stream).to_string());
        }
    }

    /// Without any server.
    pub fn wired() -> Self {
        let (pod, world) = (Netns::new("pod"), Netns::new("world"));
        pod.ip(&format!("link add eth0 type veth peer name eth0 netns {}", world.name));
        for (netns, v4, v6) in
            [(&pod, "10.244.0.5/24", "fd00:10:244::5/64"), (&world, "10.244.0.1/24", "fd00:10:244::1/64")]
        {
            netns.ip(&format!("addr add {v4} dev eth0"));
            netns.ip(&format!("addr add {v6} dev eth0 nodad"));
            netns.ip("link set eth0 up");
        }
        pod.ip("route add default via 10.244.0.1");
        pod.ip("-6 route add default via fd00:10:244::1");
        for address in ["10.96.0.1/32", "10.96.3.4/32", "172.18.0.2/32", "172.18.0.9/32"] {
            world.ip(&format!("addr add {address} dev lo"));
        }
        world.ip("addr add fd00:10:96::1/128 dev lo nodad");
        Self { pod, world }
    }

    /// Runs `work` with a netlink socket of the pod.
    pub fn rules<T: Send>(&self, work: impl FnOnce(&mut NetlinkSocket) -> T + Send) -> T {
        self.pod.run(|| work(&mut NetlinkSocket::new()))
    }

    pub fn install(&self, rules: &Rules, addresses: &[&str]) {
        self.rules(|socket| rules.install(socket, &targets(addresses)).unwrap());
    }

    /// Connects from the pod and asks where that ended.
    pub fn connect(&self, to: &str, mark: Option<u32>) -> io::Result<Landed> {
        self.pod.run(|| connect(to.parse().unwrap(), mark))
    }

    pub fn lands(&self, to: &str, mark: Option<u32>) -> Landed {
        self.connect(to, mark).unwrap()
    }
}

pub fn rules() -> Rules {
    let uid = rustix::process::geteuid().as_raw();
    Rules { mark: MARK, uid, listener: LISTENER, dead_man: None, moved: vec![] }
}

pub fn targets(addresses: &[&str]) -> Targets {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Targets::new(addresses.clone(), addresses.iter().map(SocketAddr::port))
}

pub fn at_sidecar(original: &str) -> Landed {
    Landed::Sidecar(original.parse().unwrap())
}

/// Polls until `holds`; the kernel's own timers cannot be paused.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    for _ in 0..600 {
        if holds() {
            drop(sender);
            return;
        }
        let _ = receiver.recv_timeout(Duration::from_millis(50));
    }
    panic!("never came true: {what}");
}

/// A socket as the sidecar listens with, or as it does not.
pub fn listen(address: SocketAddr, mark: u32) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_mark(mark).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(128).unwrap();
    socket.into()
}

fn serve(listener: TcpListener, greet: impl Fn(&TcpStream) -> String + Send + 'static) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.write_all(greet(&stream).as_bytes()));
        }
    });
}

fn connect(to: SocketAddr, mark: Option<u32>) -> io::Result<Landed> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
    let mut greeting = String::new();
    TcpStream::from(socket).read_to_string(&mut greeting)?;
    Ok(greeting.parse().map_or(Landed::World, Landed::Sidecar))
}

fn original(stream: &TcpStream) -> SocketAddr {
    let socket = socket2::SockRef::from(stream);
    let address = match stream.local_addr().unwrap().ip() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    address.unwrap().as_socket().unwrap()
}
