//! A pod's sessions, and both far ends of a session that is relayed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podwitness_core::{
    control::{Netmap, Notice, RecorderPeer},
    grant::{AckLevel, App, Grant, GrantSpec, Obligation, Opaque, RecorderChoice, Rule},
    identity::{Caller, User},
    inject::{Inject, UntilNetmap},
    request_info::RequestInfo,
};
use podwitness_proxy::{
    PodIdentity, ProxyConfig, Seals, Spool,
    session::{Recording, SessionMeta, SessionWiring, Sessions, relay},
};
use podwitness_runtime::{
    clock::ManualClock,
    drain::{self, Drain},
};
use podwitness_wire::{
    cast::{Event, Header, Line, Stream, Transcript},
    channel::Protocol,
    session::{Language, Transport},
    ws::{Opcode, encode},
};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use ulid::Ulid;

use crate::recorder::{Network, Recorder};

pub const ONE: &str = "[fd70::1]:80";
pub const TWO: &str = "[fd70::2]:80";

pub struct Pod {
    pub sessions: Sessions,
    pub network: Network,
    pub netmap: watch::Sender<Option<Arc<Netmap>>>,
    pub signal: drain::Signal,
    pub registry: Registry,
    pub noticed: mpsc::Receiver<Notice>,
    _assertion: watch::Sender<Option<Arc<str>>>,
}

impl Pod {
    pub fn new() -> Self {
        Self::with_spool(None)
    }

    pub fn with_spool(spool: Option<(PathBuf, u64)>) -> Self {
        Self::with(spool.map(|(dir, limit)| Spool { dir, limit, seals: None }))
    }

    /// One whose spool is sealed.
    pub fn with_sealed_spool(dir: &Path, state: &Path) -> Self {
        let seals = Some(Arc::new(Seals::load_or_create(state).unwrap()));
        Self::with(Some(Spool { dir: dir.into(), limit: 64 << 20, seals }))
    }

    fn with(spool: Option<Spool>) -> Self {
        let (netmap, netmaps) = watch::channel(None);
        let (assertion, assertions) = watch::channel(Some(Arc::from("who.we.are")));
        let (signal, drain) = Drain::new();
        let (notices, noticed) = mpsc::channel(8);
        let network = Network::default();
        let mut registry = Registry::default();
        let sessions = Sessions::new(
            Arc::new(config(spool)),
            SessionWiring {
                netmap: netmaps,
                assertion: assertions,
                recorders: Arc::new(network.clone()),
                notices,
                drain,
                clock: Arc::new(ManualClock::at(1_700_000_000)),
            },
            &mut registry,
        );
        Self { sessions, network, netmap, signal, registry, noticed, _assertion: assertion }
    }

    /// A recorder of ours, and a netmap that names every recorder at one of these addresses.
    pub fn recorder(&self, address: &str) -> Arc<Recorder> {
        let recorder = self.network.add(address, Some("volume"));
        self.name(&[address]);
        recorder
    }

    /// Two of ours.
    pub fn recorders(&self) -> (Arc<Recorder>, Arc<Recorder>) {
        let two = (self.recorder(ONE), self.recorder(TWO));
        self.name(&[ONE, TWO]);
        two
    }

    /// Publishes a netmap with these recorders.
    pub fn name(&self, addresses: &[&str]) {
        self.publish(addresses.iter().map(|address| peer(address)).collect());
    }

    /// Publishes a netmap with these recorders as they are.
    pub fn publish(&self, recorders: Vec<RecorderPeer>) {
        self.publish_tag("tag:podwitness", recorders);
    }

    /// Publishes a netmap with these recorders, and a grant that names that tag.
    pub fn publish_tag(&self, tag: &str, recorders: Vec<RecorderPeer>) {
        let rule = Rule { recorder: vec![tag.into()], ..Rule::default() };
        let spec = GrantSpec {
            src: vec!["*".into()],
            dst: vec!["*".into()],
            app: App { kubernetes: vec![rule] },
            ..GrantSpec::default()
        };
        let grants = vec![Grant { name: "everybody".into(), spec }].into();
        let netmap = Netmap { cluster: "c1".into(), recorders, grants, ..Netmap::default() };
        self.netmap.send_replace(Some(Arc::new(netmap)));
    }

    /// A session that is being relayed.
    pub async fn session(&self, meta: SessionMeta, obligation: Obligation) -> Session {
        Session::start(self.recording(meta, obligation).await)
    }

    /// A session under fail open in which that is spoken.
    pub async fn speaking(&self, language: Language, meta: SessionMeta) -> Session {
        Session::speaking(language, self.recording(meta, open()).await)
    }

    async fn recording(&self, meta: SessionMeta, obligation: Obligation) -> Recording {
        self.sessions.open(meta, obligation).await.map_err(|status| status.message).unwrap()
    }

    /// The value of a counter, 0 where it was never touched.
    pub fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

fn config(spool: Option<Spool>) -> ProxyConfig {
    ProxyConfig {
        pod: PodIdentity {
            namespace: "shop".into(),
            name: "till".into(),
            uid: "u1".into(),
            node: "n1".into(),
            service_account: "default".into(),
        },
        inject: Inject::Required,
        until_netmap: UntilNetmap::Open,
        memory: 64 << 20,
        connections_memory: 1 << 30,
        spool,
        api_server: "10.96.0.1:443".parse().unwrap(),
        api_servers: vec![],
        listeners: vec![],
        cluster_domain: "cluster.local".into(),
    }
}

pub fn peer(address: &str) -> RecorderPeer {
    let address: std::net::SocketAddrV6 = address.parse().unwrap();
    RecorderPeer {
        // One recorder each, so that they are tried in the order of their addresses.
        name: address.to_string(),
        replica: address.to_string(),
        tags: vec!["tag:podwitness".into()],
        public_key: "k".into(),
        address: *address.ip(),
        port: address.port(),
        endpoint: "10.0.0.9:51820".parse().unwrap(),
        ack: None,
        plaintext: None,
        zone: None,
    }
}

pub fn meta() -> SessionMeta {
    let user = User { name: "ana".into(), groups: vec!["sre".into()] };
    SessionMeta {
        id: Ulid::new(),
        request: RequestInfo {
            is_resource_request: true,
            verb: "get".into(),
            namespace: "shop".into(),
            resource: "pods".into(),
            subresource: "exec".into(),
            name: "db-0".into(),
            ..RequestInfo::default()
        },
        caller: Caller { authenticated: user.clone(), effective: user, verified: true },
        kind: "exec",
        namespace: "shop".into(),
        pod: "db-0".into(),
        container: "db".into(),
        command: vec!["sh".into(), "-c".into(), "a && b".into()],
        image: String::new(),
        via: "",
        tty: false,
        stdin: true,
        user_agent: "kubectl/v1.34".into(),
    }
}

pub fn with_tty() -> SessionMeta {
    SessionMeta { tty: true, ..meta() }
}

pub fn open() -> Obligation {
    Obligation {
        grants: vec!["everybody".into()],
        recorders: vec![RecorderChoice { tag: "tag:podwitness".into(), enforced: false }],
        enforce: false,
        events: false,
        require_ack: None,
        lead: 1 << 20,
        mask_flags: vec![],
        opaque: Opaque::Refuse,
    }
}

pub fn closed() -> Obligation {
    let recorders = vec![RecorderChoice { tag: "tag:podwitness".into(), enforced: true }];
    Obligation { grants: vec!["pci".into()], recorders, enforce: true, ..open() }
}

pub fn closed_with(require_ack: AckLevel) -> Obligation {
    Obligation { require_ack: Some(require_ack), ..closed() }
}

/// The far ends of a relayed session.
pub struct Session {
    /// Where kubectl is.
    pub client: DuplexStream,
    /// Where the API server is.
    pub server: DuplexStream,
    relay: JoinHandle<()>,
}

impl Session {
    pub fn start(recording: Recording) -> Self {
        Self::speaking(Language::Command(Transport::WebSocket, Protocol::V5), recording)
    }

    pub fn speaking(language: Language, recording: Recording) -> Self {
        let (client, near_client) = duplex(64 << 10);
        let (server, near_server) = duplex(64 << 10);
        let relay = tokio::spawn(relay(near_client, near_server, language, recording));
        Self { client, server, relay }
    }

    /// The API server says something, and the client hears exactly that.
    pub async fn says(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        let both = tokio::join!(self.server.write_all(bytes), self.client.read_exact(&mut heard));
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
        assert!(heard == bytes, "{heard:?}");
    }

    pub async fn hears(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        self.client.read_exact(&mut heard).await.unwrap();
        assert!(heard == bytes, "{heard:?}");
    }

    /// Whether the client hears nothing for so long.
    pub async fn silent(&mut self, seconds: u64) -> bool {
        let mut byte = [0];
        tokio::time::timeout(Duration::from_secs(seconds), self.client.read(&mut byte)).await.is_err()
    }

    /// The client says something, and the API server hears exactly that.
    pub async fn types(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
        let mut heard = vec![0; bytes.len()];
        self.server.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, bytes);
    }

    /// The command ends: status, close frame, end of both streams.
    pub async fn ends(mut self, status: &str) {
        let last = [frame(3, status.as_bytes()), vec![0x88, 2, 3, 232]].concat();
        self.says(&last).await;
        self.leaves().await;
    }

    /// The API server leaves, and the client hears nothing more.
    pub async fn leaves(mut self) {
        drop(self.server);
        let mut rest = vec![];
        self.client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{rest:?}");
        drop(self.client);
        self.relay.await.unwrap();
    }

    /// The API server leaves, and the client's next frame, a pong, which asks for no answer, finds it gone.
    pub async fn is_left_by_the_server(&mut self) {
        self.server = duplex(1).0;
        self.client.write_all(&[0x8a, 0x80, 1, 2, 3, 4]).await.unwrap();
    }

    /// Everything that the client still hears, until the relay ends.
    pub async fn last_words(mut self) -> Vec<u8> {
        let mut heard = vec![];
        self.client.read_to_end(&mut heard).await.unwrap();
        drop(self.client);
        self.relay.await.unwrap();
        heard
    }
}

pub const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// A message of the API server.
pub fn frame(channel: u8, payload: &[u8]) -> Vec<u8> {
    encode(Opcode::Binary, &[&[channel], payload].concat(), None)
}

/// A message of the client.
pub fn masked(channel: u8, payload: &[u8]) -> Vec<u8> {
    encode(Opcode::Binary, &[&[channel], payload].concat(), Some([9, 8, 7, 6]))
}

/// Waits until something holds; on a paused clock that costs no time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// A cast taken apart.
pub struct Cast {
    pub header: Header,
    pub events: Vec<Event>,
}

impl Cast {
    pub fn parse(bytes: &[u8]) -> Self {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let header = Header::parse(lines.next().unwrap()).unwrap();
        Self { header, events: lines.map(|line| Line::parse(line).unwrap().event).collect() }
    }

    /// The parts of one session joined: part *k* is cut where part *k+1* begins.
    pub fn join(mut parts: Vec<Vec<u8>>) -> Self {
        let ours = |part: &Vec<u8>| Self::parse_header(part).podwitness.unwrap();
        parts.sort_by_key(|part| ours(part).part);
        let offsets: Vec<u64> = parts.iter().map(|part| ours(part).offset).collect();
        let mut joined = vec![];
        for (n, part) in parts.iter().enumerate() {
            let (header, lines) = part.split_at(part.iter().position(|byte| *byte == b'\n').unwrap() + 1);
            if n == 0 {
                joined.extend_from_slice(header);
            }
            let len = offsets.get(n + 1).map_or(lines.len(), |next| (next - offsets[n]) as usize);
            joined.extend_from_slice(&lines[..len]);
        }
        Self::parse(&joined)
    }

    fn parse_header(part: &[u8]) -> Header {
        Header::parse(part.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
    }

    pub fn output(&self) -> Vec<u8> {
        let mut transcript = Transcript::new();
        let shown = self.events.iter().filter_map(|event| transcript.output(event.clone()));
        shown.filter(|(stream, _)| *stream == Stream::Stdout).flat_map(|(_, bytes)| bytes).collect()
    }

    pub fn gaps(&self) -> u64 {
        self.events.iter().map(|event| if let Event::Gap(bytes) = event { *bytes } else { 0 }).sum()
    }

    /// How the session ended, and what became of its recording.
    pub fn ending(&self) -> Option<(&str, &str)> {
        match self.events.as_slice() {
            [.., Event::End(end), Event::Close(outcome)] => Some((end, outcome)),
            _ => None,
        }
    }
}
