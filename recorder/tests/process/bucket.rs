//! An S3 server as a child process, and something between it and the recorder that goes wrong when it is told to.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{lab::eventually, volume::Volume};

pub const KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMIexample";

/// A server with an empty bucket `audit`.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    dir: Volume,
}

impl Server {
    /// Where `PODWITNESS_VERSITYGW` names the program.
    pub async fn start() -> Self {
        Self::on(Volume::new()).await
    }

    /// One whose objects lie on a volume.
    pub async fn on(dir: Volume) -> Self {
        let program = std::env::var("PODWITNESS_VERSITYGW").expect("PODWITNESS_VERSITYGW names an S3 server");
        std::fs::create_dir(dir.path().join("audit")).unwrap();
        // Free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .args(["--access", KEY, "--secret", SECRET, "--port", &address.to_string(), "--quiet", "posix"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { address, child, dir };
        eventually("the S3 server", async || TcpStream::connect(address).await.ok()).await;
        server
    }

    /// Files of the bucket: what a request would get.
    pub fn files(&self) -> &Path {
        self.dir.path()
    }

    /// The volume on which they lie.
    pub const fn volume(&self) -> &Volume {
        &self.dir
    }

    /// One request with a signature, by curl: 2xx or nothing.
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &str) {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "-X", method, "--aws-sigv4", "aws:amz:us-east-1:s3"]);
        curl.args(["--user", &format!("{KEY}:{SECRET}"), "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
        for header in headers {
            curl.args(["-H", header]);
        }
        curl.args(["--data-binary", "@-", &format!("http://{}{path}", self.address)]);
        let mut child = curl.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{method} {path}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// What becomes of requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    Pass,
    /// Connections are closed at once.
    Refuse,
    /// Requests are answered 503.
    SlowDown,
    /// Requests are answered 403, because there is a quota.
    Quota,
    /// Requests are passed on, answers are not.
    Deaf,
}

/// A way to the server, whose connections end when its mode changes.
pub struct Way {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Way {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Pass);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut modes = modes.clone();
                tokio::spawn(async move {
                    let mode = *modes.borrow_and_update();
                    tokio::select! {
                        () = pass(stream, server, mode) => {}
                        _ = modes.changed() => {}
                    }
                });
            }
        });
        Self { address, mode, task }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut stream: TcpStream, server: SocketAddr, mode: Mode) {
    match mode {
        Mode::Refuse => {}
        Mode::SlowDown => answer(&mut stream, "503 Slow Down", "SlowDown").await,
        Mode::Quota => answer(&mut stream, "403 Forbidden", "QuotaExceeded").await,
        Mode::Pass => {
            if let Ok(mut upstream) = TcpStream::connect(server).await {
                // Either end may go away.
                let _ = copy_bidirectional(&mut stream, &mut upstream).await;
            }
        }
        Mode::Deaf => {
            let Ok(mut upstream) = TcpStream::connect(server).await else { return };
            let Some(request) = request(&mut stream).await else { return };
            if upstream.write_all(&request).await.is_ok() {
                // Served, but nobody hears of it.
                let _ = upstream.read(&mut [0; 512]).await;
            }
        }
    }
}

/// Every request alike.
async fn answer(stream: &mut TcpStream, status: &str, code: &str) {
    let body = format!("<Error><Code>{code}</Code><Message/></Error>");
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    while request(stream).await.is_some() {
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One request, whole.
async fn request(stream: &mut TcpStream) -> Option<Arc<[u8]>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        while bytes.len() < end + 4 + length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        return Some(bytes.into());
    }
}
