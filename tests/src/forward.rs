//! A port of a pod's loopback, through `kubectl port-forward`, or of this machine's.

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::Child,
};

use crate::{Kubectl, SYSTEM, schedule};

/// A way to an HTTP server, as a rule in a pod of the system namespace, open as long as this value lives.
#[derive(Debug)]
pub struct Forward {
    port: u16,
    _forward: Option<Child>,
}

impl Forward {
    /// Opens the way to a port of an object that has pods, such as `statefulset/NAME`.
    ///
    /// # Errors
    /// Where there is no such pod, or it cannot be reached.
    pub async fn open(object: &str, port: u16) -> Result<Self> {
        schedule::enter_as_usual().await;
        let args = ["-n", SYSTEM, "port-forward", object, &format!(":{port}")];
        let mut forward = Kubectl::default().start(&args)?;
        let mut lines = BufReader::new(forward.stdout.take().context("no output")?).lines();
        let line = lines.next_line().await?.context("kubectl port-forward ended at once")?;
        // "Forwarding from 127.0.0.1:40123 -> 8081"
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let port = port.with_context(|| format!("no port in {line:?}"))?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { port, _forward: Some(forward) })
    }

    /// The way to a server of this machine.
    #[must_use]
    pub const fn here(port: u16) -> Self {
        Self { port, _forward: None }
    }

    /// The body of the answer to a request.
    ///
    /// # Errors
    /// Where there is none, or it is no success.
    pub async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Bytes> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}
