//! A recorder in one namespace; a pod, and the control plane, in the other.

use std::{
    net::{SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_core::{
    assertion,
    control::Netmap,
    inject::{RECORD_PORT, TUNNEL_PORT},
};
use podwitness_lab::{Control, Netns, control::NAME, random};
use podwitness_tunnel::{Backend, Inline, Options, Peer, PrivateKey, PublicKey, Tunnel, address};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// WireGuard's own timers (5, 10, 15 s) cannot be paused.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const RECORDER: &str = "10.77.0.1";
pub const RECORDER_V6: &str = "fd00:77::1";
const POD: &str = "10.77.0.2";

pub struct Lab {
    pub pod: Netns,
    pub recorder: Netns,
    pub control: Arc<Control>,
    pub dir: tempfile::TempDir,
    child: Option<Child>,
}

pub type Sender = http2::SendRequest<BoxBody<Bytes, std::convert::Infallible>>;

impl Lab {
    pub fn new() -> Self {
        let (pod, recorder) = (Netns::new("pod"), Netns::new("rec"));
        pod.ip(&format!("link add eth0 type veth peer name eth0 netns {}", recorder.name));
        for (netns, v4, v6) in [(&pod, POD, "fd00:77::2"), (&recorder, RECORDER, RECORDER_V6)] {
            netns.ip(&format!("addr add {v4}/24 dev eth0"));
            netns.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
            netns.ip("link set eth0 up");
        }
        recorder.ip(&format!("route add default via {POD}"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "token").unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let mut lab = Self { pod, recorder, control: Control::new(Netmap::default()), dir, child: None };
        lab.start();
        lab
    }

    /// Starts the recorder.
    pub fn start(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let child = Command::new("ip")
            .args(["netns", "exec", &self.recorder.name, env!("CARGO_BIN_EXE_podwitness-recorder"), "ingest"])
            .env("PODWITNESS_CONTROL", format!("{NAME}:8444={POD}"))
            .env("PODWITNESS_CONTROL_CA", self.control.root())
            .env("PODWITNESS_TOKEN", path("token"))
            .env("PODWITNESS_STATE", path("state"))
            .env("PODWITNESS_STORE", path("recordings"))
            .env("PODWITNESS_DRAIN", "1s")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Stops the recorder in order and says how it ended.
    pub fn stop(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap().success()
    }

    /// Serves the control plane and waits until the recorder has enrolled and says that it is ready: its key. To be
    /// called in the pod.
    pub async fn ready(&self) -> PublicKey {
        let listener = TcpListener::bind((POD, 8444)).await.unwrap();
        tokio::spawn(Arc::clone(&self.control).serve(listener));
        let mut enrolled = self.control.enrolled.subscribe();
        let key = {
            let all = timeout(PATIENCE, enrolled.wait_for(|all| !all.is_empty())).await.unwrap().unwrap();
            all[0].key.parse().unwrap()
        };
        let ready = async {
            while status(format!("{RECORDER}:8080").parse().unwrap(), "/readyz").await != Some(200) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, ready).await.expect("the recorder becomes ready");
        key
    }

    /// An assertion that pod `shop/till` holds this key.
    pub fn assertion(&self, key: &PublicKey) -> String {
        self.control.assertion(&key.to_string())
    }

    pub fn casts(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find(&self.dir.path().join("recordings"), &mut found);
        found
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}

/// A pod's end of the tunnel.
pub struct Sidecar {
    pub tunnel: Tunnel,
    pub key: PublicKey,
    to: SocketAddrV6,
}

impl Sidecar {
    /// Opens a tunnel to the recorder of that key, as its only peer.
    pub async fn open(recorder: PublicKey) -> Self {
        Self::open_at(recorder, &format!("{RECORDER}:{TUNNEL_PORT}")).await
    }

    /// The same to a recorder elsewhere.
    pub async fn open_at(recorder: PublicKey, endpoint: &str) -> Self {
        let private = PrivateKey::generate().unwrap();
        let key = private.public();
        let options =
            Options { backends: vec![Backend::Tun], ..Options::new(format!("pw{:08x}", random()), private) };
        let tunnel = Tunnel::open(&options, Arc::new(Inline)).await.unwrap();
        let endpoint = endpoint.parse().unwrap();
        tunnel.set_peers(vec![Peer { key: recorder, endpoint, keepalive: None }]).await.unwrap();
        Self { tunnel, key, to: SocketAddrV6::new(address(&recorder), RECORD_PORT, 0, 0) }
    }

    /// HTTP/2 to the recorder.
    pub async fn connect(&self) -> Sender {
        let stream = timeout(PATIENCE, self.tunnel.dial(self.to)).await.unwrap().unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// Asks with an assertion, or without.
pub async fn ask(
    sender: &mut Sender,
    method: &str,
    assertion: Option<&str>,
    body: &str,
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri("http://recorder/v2/record");
    if let Some(assertion) = assertion {
        request = request.header(assertion::HEADER, assertion);
    }
    let request = request.body(BoxBody::new(Full::from(body.to_owned()))).unwrap();
    timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap()
}

/// Status of a GET over HTTP/1.1; `None` where nobody answers.
pub async fn status(to: SocketAddr, path: &str) -> Option<u16> {
    get(to, path).await.map(|(status, _)| status)
}

/// Status and body of a GET over HTTP/1.1; `None` where nobody answers.
pub async fn get(to: SocketAddr, path: &str) -> Option<(u16, String)> {
    let io = TokioIo::new(TcpStream::connect(to).await.ok()?);
    let (mut sender, connection) = http1::handshake(io).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "x").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8(body.to_vec()).ok()?))
}

pub fn find(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "cast") {
            found.push(path);
        }
    }
}
