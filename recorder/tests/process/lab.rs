//! A recorder as a child process, and a client of it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use aws_lc_rs::digest::{Digest, SHA256, digest};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_wire::ack::{Ack, Reader};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::volume::Volume;

const PROGRAM: &str = env!("CARGO_BIN_EXE_podwitness-recorder");
const PATIENCE: Duration = Duration::from_secs(60);

pub const HEADER: &str = "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1700000000,\"env\":null}\n";

pub struct Recorder {
    pub plain: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
    dir: Arc<Volume>,
    settings: Vec<(String, String)>,
}

impl Recorder {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with further settings.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::with_volume(&Arc::new(Volume::new()), settings)
    }

    /// The same on a volume that is there.
    pub fn with_volume(volume: &Arc<Volume>, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::on(Arc::clone(volume), settings.collect())
    }

    /// Another one on the same volume.
    pub fn again(&self) -> Self {
        Self::on(Arc::clone(&self.dir), self.settings.clone())
    }

    /// Another one with the same settings, whose volume is gone.
    pub fn elsewhere(&self) -> Self {
        Self::on(Arc::new(Volume::new()), self.settings.clone())
    }

    fn on(dir: Arc<Volume>, settings: Vec<(String, String)>) -> Self {
        let base = [("PODWITNESS_ADMIN", "127.0.0.1:0"), ("PODWITNESS_DRAIN", "4s")];
        let all: Vec<_> = base.into_iter().chain(pairs(&settings)).collect();
        let (child, listening) = start(&["ingest", "--listen-plain", "127.0.0.1:0"], dir.path(), &all);
        let (plain, admin) = (address(&listening, "plain"), address(&listening, "admin"));
        Self { plain, admin, child: Some(child), dir, settings }
    }

    /// A viewer of what this recorder stores.
    pub fn viewer(&self) -> Viewer {
        let all: Vec<_> =
            [("PODWITNESS_LISTEN", "127.0.0.1:0")].into_iter().chain(pairs(&self.settings)).collect();
        let (child, listening) = start(&["view"], self.dir.path(), &all);
        Viewer { address: address(&listening, "address"), child }
    }

    /// Where it stores.
    pub fn volume(&self) -> &Path {
        self.dir.path()
    }

    /// The sum of all series of a metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let response = get(self.admin, "/metrics").await;
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&text).unwrap();
        let lines = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// Metadata of every recording, by its session.
    pub fn metas(&self) -> Vec<(String, PathBuf, Value)> {
        let read = |cast: PathBuf| {
            let meta = std::fs::read(cast.with_extension("json")).ok()?;
            let session = cast.file_name()?.to_str()?.split('.').next()?.to_owned();
            Some((session, cast, serde_json::from_slice(&meta).ok()?))
        };
        self.casts().into_iter().filter_map(read).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        timeout(PATIENCE, spawn_blocking(move || child.wait())).await.unwrap().unwrap().unwrap()
    }

    /// The one recording and its metadata.
    pub fn only(&self) -> (Vec<u8>, Value) {
        let [cast] = self.casts().try_into().unwrap();
        let meta = std::fs::read(cast.with_extension("json")).unwrap();
        (std::fs::read(cast).unwrap(), serde_json::from_slice(&meta).unwrap())
    }

    /// SHA-256 of every recording in hexadecimal digits, sorted.
    pub fn sums(&self) -> Vec<String> {
        let sum = |cast: PathBuf| digest(&SHA256, &std::fs::read(cast).unwrap());
        let hex = |sum: Digest| sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sums: Vec<String> = self.casts().into_iter().map(|cast| hex(sum(cast))).collect();
        sums.sort();
        sums
    }

    /// What is on the volume, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find(self.dir.path(), &mut found);
        found.sort();
        found
    }

    fn casts(&self) -> Vec<PathBuf> {
        let is_cast = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "cast");
        self.files().into_iter().filter(is_cast).collect()
    }

    pub async fn admin_status(&self, path: &str) -> u16 {
        get(self.admin, path).await.status().as_u16()
    }
}

/// A viewer as a child process.
pub struct Viewer {
    address: SocketAddr,
    child: Child,
}

impl Viewer {
    pub async fn get(&self, path: &str) -> Bytes {
        let response = get(self.address, path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.into_body().collect().await.unwrap().to_bytes()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}

fn pairs(settings: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// Waits until there is something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE * 2, waited).await.unwrap_or_else(|_| panic!("{what} never happened"))
}

/// Starts a role and waits until it listens: the line of its log that says where.
fn start(arguments: &[&str], store: &Path, settings: &[(&str, &str)]) -> (Child, Value) {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env("PODWITNESS_STORE", store)
        .env("PODWITNESS_LOG_FORMAT", "json")
        .envs(settings.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let lines = log.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let listening = lines.into_iter().find(|line| line["message"] == "listening").expect("it starts");
    // So that the program never waits for somebody to read its log.
    thread::spawn(move || log.for_each(drop));
    (child, listening)
}

fn address(listening: &Value, key: &str) -> SocketAddr {
    listening[key].as_str().unwrap().parse().unwrap()
}

async fn get(from: SocketAddr, path: &str) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(from).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
    sender.send_request(request).await.unwrap()
}

/// A request body that is written step by step.
pub struct Writer(mpsc::Sender<Bytes>);

impl Writer {
    /// False where nobody reads any more.
    pub async fn send(&self, text: &str) -> bool {
        self.0.send(Bytes::from(text.to_owned())).await.is_ok()
    }
}

/// Begins an upload over h2c with prior knowledge.
pub async fn upload(to: SocketAddr) -> (Writer, Incoming) {
    let (writer, response) = begin(to).await;
    assert_eq!(response.status(), 200);
    (writer, response.into_body())
}

/// The same, whatever comes of it.
pub async fn begin(to: SocketAddr) -> (Writer, Response<Incoming>) {
    begin_on(&mut connect(to).await, to).await
}

/// A client over h2c, whose connection lasts as long as it.
pub type Client = http2::SendRequest<RequestBody>;

/// The body of a request.
pub type RequestBody = BoxBody<Bytes, std::convert::Infallible>;

/// A connection over h2c with prior knowledge.
pub async fn connect(to: SocketAddr) -> Client {
    let io = TokioIo::new(TcpStream::connect(to).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins an upload on a connection.
pub async fn begin_on(client: &mut Client, to: SocketAddr) -> (Writer, Response<Incoming>) {
    let (writer, lines) = mpsc::channel(4);
    let frames = stream::unfold(lines, |mut lines| async {
        let line: Bytes = lines.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Frame::data(line)), lines))
    });
    let request = Request::post(format!("http://{to}/v2/record"));
    let request = request.body(StreamBody::new(frames).boxed()).unwrap();
    (Writer(writer), client.send_request(request).await.unwrap())
}

/// The frames of a response.
pub struct Acks {
    body: Incoming,
    reader: Reader,
    seen: std::collections::VecDeque<Ack>,
}

pub fn acks(body: Incoming) -> Acks {
    Acks { body, reader: Reader::new(), seen: std::collections::VecDeque::new() }
}

impl Acks {
    /// The next frame; `None` where the response has ended, or broke off.
    pub async fn next(&mut self) -> Option<Ack> {
        while self.seen.is_empty() {
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("a frame in time")?.ok()?;
            self.reader.feed(&frame.into_data().unwrap(), |ack| self.seen.push_back(ack)).unwrap();
        }
        self.seen.pop_front()
    }
}

/// A header of ours, which names its session.
pub fn header(session: &str) -> String {
    let ours = format!("\"podwitness\":{{\"session\":\"{session}\"}}");
    format!("{{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1700000000,{ours}}}\n")
}

/// What a client sent, and how much of it was acknowledged, by its own log.
pub struct Sent {
    pub session: String,
    pub content: String,
    pub safe: u64,
}

/// Uploads without end, until the recorder is gone; acknowledged bytes are counted in `progress`.
pub async fn client(to: SocketAddr, session: String, progress: Arc<AtomicU64>) -> JoinHandle<Sent> {
    let (writer, answer) = upload(to).await;
    tokio::spawn(async move {
        let mut content = header(&session);
        let sending = async {
            let mut open = writer.send(&content).await;
            for number in 0.. {
                if !open {
                    break;
                }
                let line = line(number, &"x".repeat(700));
                content.push_str(&line);
                open = writer.send(&line).await;
            }
        };
        let receiving = async {
            let (mut acks, mut safe) = (acks(answer), 0);
            while let Some(Ack::Received(bytes)) = acks.next().await {
                progress.fetch_add(bytes - safe, Ordering::Relaxed);
                safe = bytes;
            }
            safe
        };
        let ((), safe) = tokio::join!(sending, receiving);
        Sent { session, content, safe }
    })
}

pub fn line(at: u32, text: &str) -> String {
    format!("[{at},\"o\",\"{text}\"]\n")
}

/// Runs the program to its end: its exit code, and what it said.
pub fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(PROGRAM).args(arguments).envs(settings.iter().copied()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn find(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            find(&path, found);
        } else {
            found.push(path);
        }
    }
}
