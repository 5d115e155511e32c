//! A pod without a pod: clients that trust the in-pod CA, the proxy, and an API server of the test's making.

mod elsewhere;
mod server;

pub use elsewhere::{Elsewhere, echoing, silent};
pub use server::Server;

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1 as client1, http2 as client2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_core::{
    control::{Netmap, Notice},
    grant::Grant,
    inject::{Inject, UntilNetmap},
};
use podwitness_proxy::{
    ClusterCertificate, Dial, Intercepted, Owners, PodCa, PodIdentity, Proxy, ProxyConfig, ServerNames,
    Wiring, api_names,
};
use podwitness_runtime::{
    clock::{Clock, SystemClock},
    connection::{ConnectionHandle, ConnectionLimiter},
    drain,
};
use prometheus_client::registry::Registry;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    sign::SingleCertAndKey,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, DuplexStream, duplex},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use server::{Nowhere, ToServer};

pub type TestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
pub type Answering = BoxFuture<'static, Response<TestBody>>;
pub type Tls = TlsStream<DuplexStream>;

/// The Service's address, as every client of a pod knows it.
pub const SERVICE: &str = "10.96.0.1:443";

pub fn service() -> SocketAddr {
    SERVICE.parse().unwrap()
}

pub fn full(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty() -> TestBody {
    full("")
}

pub fn now() -> i64 {
    SystemClock.now_unix()
}

/// A wall clock that goes with tokio's, paused or not.
#[derive(Debug)]
pub struct VirtualClock(i64, tokio::time::Instant);

impl VirtualClock {
    pub fn start() -> Arc<Self> {
        Arc::new(Self(SystemClock.now_unix_millis(), tokio::time::Instant::now()))
    }
}

impl Clock for VirtualClock {
    fn now_unix_millis(&self) -> i64 {
        self.0 + i64::try_from(self.1.elapsed().as_millis()).unwrap()
    }
}

/// Connections from a port are those of the user with that number.
struct ByPort;

impl Owners for ByPort {
    fn uid(&self, client: SocketAddr, _: SocketAddr) -> Option<u32> {
        Some(client.port().into())
    }
}

// === The pod

pub struct Setup {
    pub server: Server,
    pub netmap: Option<Netmap>,
    pub until_netmap: UntilNetmap,
    pub elsewhere: Option<Elsewhere>,
    /// Other addresses of the API server, which are not listed.
    pub also: Vec<SocketAddr>,
    /// Other names in the API server's certificate.
    pub names: &'static [&'static str],
    /// The way to recorders.
    pub recorders: Arc<dyn Dial>,
    /// What an earlier process left in its spool.
    pub left: Option<std::path::PathBuf>,
    /// Trust a CA that did not sign the server.
    pub distrust: bool,
    /// Trust this, in place of the CA that signed the server.
    pub trusted: Option<RootCertStore>,
    pub inject: Inject,
    /// Bytes for connections and requests.
    pub connections_memory: u64,
    /// A certificate of the cluster's CA.
    pub certificate: Arc<ClusterCertificate>,
    pub clock: Arc<dyn Clock>,
}

impl Setup {
    pub fn new(server: Server) -> Self {
        Self {
            server,
            netmap: Some(Netmap::default()),
            until_netmap: UntilNetmap::Open,
            elsewhere: None,
            also: vec![],
            names: &[],
            recorders: Arc::new(Nowhere),
            left: None,
            distrust: false,
            trusted: None,
            inject: Inject::Required,
            connections_memory: 1 << 30,
            certificate: Arc::default(),
            clock: Arc::new(SystemClock),
        }
    }

    pub fn grants(mut self, grants: &[Grant]) -> Self {
        self.netmap = Some(Netmap { grants: grants.to_vec().into(), ..Netmap::default() });
        self
    }

    pub fn start(self) -> Pod {
        let dir = tempfile::tempdir().unwrap();
        let names = api_names("cluster.local");
        let ca = |name: &str| {
            let dir = dir.path().join(name);
            std::fs::create_dir_all(&dir).unwrap();
            PodCa::load_or_create(&dir, &names, now()).unwrap()
        };
        let (pod_ca, cluster_ca) = (ca("pod"), ca("cluster"));
        let signer = roots(if self.distrust { &pod_ca } else { &cluster_ca });
        let trusted = self.trusted.unwrap_or(signer);
        let client_roots = roots(&pod_ca);
        let upstream = Arc::new(ToServer {
            server: self.server.clone(),
            http2: server_config(&cluster_ca, self.names, &[b"h2", b"http/1.1"]),
            http1: server_config(&cluster_ca, self.names, &[b"http/1.1"]),
            elsewhere: self.elsewhere,
            also: self.also,
        });
        let (signal, watch) = drain::Drain::new();
        let netmap = watch::Sender::new(self.netmap.map(Arc::new));
        let (notices, noticed) = mpsc::channel(8);
        let wiring = Wiring {
            pod_ca,
            cluster_certificate: self.certificate,
            upstream_roots: trusted,
            netmap: netmap.subscribe(),
            assertion: watch::Sender::new(None).subscribe(),
            upstream,
            recorders: self.recorders,
            owners: Arc::new(ByPort),
            notices,
            drain: watch,
            clock: self.clock,
        };
        let mut registry = Registry::default();
        let config = config(self.inject, self.until_netmap, self.connections_memory, dir.path());
        if let Some(left) = &self.left {
            let name = left.file_name().unwrap();
            copy(left, &config.spool.as_ref().unwrap().dir.join(name));
        }
        let proxy = Proxy::new(config, wiring, &mut registry).unwrap();
        Pod {
            proxy,
            server: self.server,
            client_roots,
            registry,
            signal: Some(signal),
            netmap,
            noticed,
            user: 1000,
            limiter: None,
            dir,
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn config(
    inject: Inject,
    until_netmap: UntilNetmap,
    connections_memory: u64,
    dir: &std::path::Path,
) -> ProxyConfig {
    let spool = podwitness_proxy::Spool { dir: dir.join("spool"), limit: 1 << 24, seals: None };
    std::fs::create_dir_all(&spool.dir).unwrap();
    ProxyConfig {
        pod: PodIdentity { namespace: "shop".into(), name: "till".into(), ..PodIdentity::default() },
        inject,
        until_netmap,
        memory: 64 << 20,
        connections_memory,
        spool: Some(spool),
        api_server: service(),
        api_servers: vec![],
        listeners: vec!["127.0.0.1:15443".parse().unwrap()],
        cluster_domain: "cluster.local".into(),
    }
}

pub fn roots(ca: &PodCa) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap()).unwrap();
    roots
}

/// TLS of a server with a certificate of this CA, for the Service and these names.
pub fn server_config(ca: &PodCa, names: &[&str], alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut all: ServerNames = [service().ip()].into_iter().collect();
    names.iter().for_each(|name| all.add_name(name));
    let leaf = ca.mint(&all, now()).unwrap();
    let mut config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(leaf)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

pub struct Pod {
    pub proxy: Arc<Proxy>,
    pub server: Server,
    pub client_roots: RootCertStore,
    pub registry: Registry,
    pub signal: Option<drain::Signal>,
    pub netmap: watch::Sender<Option<Arc<Netmap>>>,
    /// What the control plane is told.
    pub noticed: mpsc::Receiver<Notice>,
    /// Who connects.
    pub user: u16,
    /// Counts connections, where a test wants that.
    pub limiter: Option<ConnectionLimiter>,
    dir: tempfile::TempDir,
}

impl Pod {
    pub fn start(server: Server) -> Self {
        Setup::new(server).start()
    }

    /// A connection on its way to `to`, intercepted.
    pub fn tcp(&self, to: &str) -> DuplexStream {
        let (near, far) = duplex(64 << 10);
        let (proxy, original) = (Arc::clone(&self.proxy), to.parse().unwrap());
        let client = SocketAddr::from(([127, 0, 0, 1], self.user));
        let connection = self.limiter.as_ref().map_or_else(ConnectionHandle::uncounted, |limiter| {
            limiter.open(client.ip()).expect("a place for the connection")
        });
        let place = connection.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = proxy.serve(Intercepted { stream: far, client, original, connection }) => {}
                () = place.revoked() => {}
            }
        });
        near
    }

    /// A TLS connection to the API server.
    pub async fn tls(&self, alpn: &[&[u8]]) -> Tls {
        self.tls_with(SERVICE, "kubernetes.default.svc", alpn).await.unwrap()
    }

    pub async fn tls_with(&self, to: &str, name: &str, alpn: &[&[u8]]) -> io::Result<Tls> {
        let mut config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.client_roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp(to)).await
    }

    /// An HTTP/1.1 client.
    pub async fn http1(&self) -> client1::SendRequest<TestBody> {
        let io = TokioIo::new(self.tls(&[]).await);
        let mut builder = client1::Builder::new();
        builder.max_headers(600).max_buf_size(2 << 20);
        let (sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    /// An HTTP/2 client.
    pub async fn http2(&self) -> client2::SendRequest<TestBody> {
        let io = TokioIo::new(self.tls(&[b"h2"]).await);
        let mut builder = client2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.max_header_list_size(2 << 20).handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Folders in the spool.
    pub fn spooled(&self) -> Vec<std::path::PathBuf> {
        let spool = self.dir.path().join("spool");
        std::fs::read_dir(spool).unwrap().map(|folder| folder.unwrap().path()).collect()
    }

    /// The value of a metric with all its labels, zero where there is none.
    pub fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find_map(|l| {
            l.strip_prefix("podwitness_proxy_").or_else(|| l.strip_prefix("podwitness_"))?.strip_prefix(line)
        });
        found.map_or(0, |value| value.trim().parse().unwrap())
    }
}

// === Requests

pub fn get(path: &str) -> Request<TestBody> {
    request("GET", path, "secret")
}

pub fn request(method: &str, path: &str, token: &str) -> Request<TestBody> {
    Request::builder()
        .method(method)
        .uri(format!("https://10.96.0.1{path}"))
        .header("authorization", format!("Bearer {token}"))
        .body(empty())
        .unwrap()
}

/// A ClientHello that asks for a name.
pub fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut bytes = Vec::new();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// The same in the form HTTP/1.1 wants.
pub fn get1(path: &str) -> Request<TestBody> {
    let mut request = get(path);
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert("host", "10.96.0.1".parse().unwrap());
    request
}

pub async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Reads to the end of a head (an empty line).
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A body fed piece by piece; it ends when the sender is dropped.
pub fn fed() -> (mpsc::Sender<&'static str>, TestBody) {
    let (feed, mut fed) = mpsc::channel::<&'static str>(1);
    let frames = futures_util::stream::poll_fn(move |cx| {
        fed.poll_recv(cx)
            .map(|piece| piece.map(|text| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())))))
    });
    (feed, http_body_util::StreamBody::new(frames).boxed_unsync())
}

/// A grant for everyone and every pod.
pub fn grant(enforce: bool) -> Grant {
    let rule = serde_json::json!({"recorder": ["tag:podwitness"], "enforceRecorder": enforce});
    let spec =
        serde_json::json!({"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": [rule]}});
    Grant { name: "all".into(), spec: serde_json::from_value(spec).unwrap() }
}

/// Waits until something holds; the test's own patience is a virtual minute.
pub async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("it never held");
}
