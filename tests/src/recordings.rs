//! Recordings as the viewer serves them, through `kubectl port-forward`.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::Child,
};

use crate::{Kubectl, SYSTEM, eventually};

/// Port of the viewer on the pod's loopback.
const VIEW_PORT: u16 = 8081;

/// A way to the viewer of the in-cluster recorder, open as long as this value lives.
#[derive(Debug)]
pub struct Viewer {
    port: u16,
    _forward: Child,
}

/// One recording: its header and its lines.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Header object.
    pub header: Value,
    /// Lines as `[time, code, text]`.
    pub lines: Vec<(f64, String, String)>,
}

impl Viewer {
    /// Opens the way.
    ///
    /// # Errors
    /// Where there is no recorder, or it cannot be reached.
    pub async fn open() -> Result<Self> {
        let port = format!(":{VIEW_PORT}");
        let args = ["-n", SYSTEM, "port-forward", "deployment/podwitness-recorder", &port];
        let mut forward = Kubectl::default().start(&args)?;
        let mut lines = BufReader::new(forward.stdout.take().context("no output")?).lines();
        let line = lines.next_line().await?.context("kubectl port-forward ended at once")?;
        // "Forwarding from 127.0.0.1:40123 -> 8081"
        let port = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let port = port.with_context(|| format!("no port in {line:?}"))?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { port, _forward: forward })
    }

    /// Every session whose recorded pod is in `namespace`.
    ///
    /// # Errors
    /// Where the viewer does not answer.
    pub async fn sessions(&self, namespace: &str) -> Result<Vec<Value>> {
        let body = self.get(&format!("/api/v1/sessions?namespace={namespace}&limit=500")).await?;
        let mut list: Value = serde_json::from_slice(&body)?;
        let sessions = list.get_mut("sessions").map(Value::take).context("no list of sessions")?;
        sessions.as_array().cloned().context("the sessions are no list")
    }

    /// The one complete session in `namespace` whose command contains `needle`, once it is there.
    ///
    /// # Errors
    /// Where none comes, or more than one.
    pub async fn recording(&self, namespace: &str, needle: &str) -> Result<Recording> {
        let has_needle = |session: &Value| {
            session.get("command").and_then(Value::as_str).unwrap_or_default().contains(needle)
        };
        self.recording_where(namespace, has_needle)
            .await
            .with_context(|| format!("no recording of {needle:?}"))
    }

    /// The one complete session in `namespace` whose entry in the list is the wanted one, once it is there.
    ///
    /// # Errors
    /// Where none comes, or more than one.
    pub async fn recording_where(
        &self,
        namespace: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Recording> {
        let id = eventually("a complete recording", async || {
            let sessions = self.sessions(namespace).await?;
            let found: Vec<_> = sessions.iter().filter(|session| wanted(session)).collect();
            let [session] = found.as_slice() else { bail!("{} sessions match in {sessions:?}", found.len()) };
            ensure!(session.get("complete") == Some(&Value::Bool(true)), "it is not complete: {session}");
            Ok(session.get("id").and_then(Value::as_str).context("no id")?.to_owned())
        })
        .await?;
        Recording::parse(&self.get(&format!("/api/v1/sessions/{id}/cast")).await?)
    }

    async fn get(&self, path: &str) -> Result<Bytes> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "GET {path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

impl Recording {
    /// Parses an asciicast v2 file.
    ///
    /// # Errors
    /// Where a line is not what asciicast says.
    pub fn parse(cast: &[u8]) -> Result<Self> {
        let mut lines = cast.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let header: Value = serde_json::from_slice(lines.next().context("the recording is empty")?)?;
        ensure!(header.get("version") == Some(&Value::from(2)), "not asciicast v2: {header}");
        let lines = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
        Ok(Self { header, lines })
    }

    /// The text of every line of this code, joined.
    #[must_use]
    pub fn text(&self, code: &str) -> String {
        self.lines.iter().filter(|(_, c, _)| c == code).map(|(_, _, text)| text.as_str()).collect()
    }

    /// The exact bytes of the output: an `x-raw` line stands before the lossy `o` line that it makes exact.
    ///
    /// # Errors
    /// Where an `x-raw` line is not base64.
    pub fn output(&self) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        let mut raw = None;
        for (_, code, text) in &self.lines {
            match code.as_str() {
                "x-raw" => raw = Some(STANDARD.decode(text).context("x-raw is not base64")?),
                "o" => output.extend(raw.take().unwrap_or_else(|| text.clone().into_bytes())),
                _ => {}
            }
        }
        Ok(output)
    }
}
