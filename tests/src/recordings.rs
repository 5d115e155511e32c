//! Recordings as the viewer serves them, through `kubectl port-forward`.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Method, body::Bytes};
use serde_json::Value;

use crate::{Forward, eventually};

/// Port of the viewer on the pod's loopback.
const VIEW_PORT: u16 = 8081;

/// A way to the viewer of a recorder, open as long as this value lives.
#[derive(Debug)]
pub struct Viewer(Forward);

/// One recording: its header and its lines.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Header object.
    pub header: Value,
    /// Lines as `[time, code, text]`.
    pub lines: Vec<(f64, String, String)>,
}

impl Viewer {
    /// Opens the way to that of the recorder that the shipped grant names.
    ///
    /// # Errors
    /// Where there is no recorder, or it cannot be reached.
    pub async fn open() -> Result<Self> {
        Self::of("podwitness").await
    }

    /// Opens the way to that of another Recorder.
    ///
    /// # Errors
    /// As [`Viewer::open`].
    pub async fn of(recorder: &str) -> Result<Self> {
        Ok(Self(Forward::open(&format!("statefulset/{recorder}"), VIEW_PORT).await?))
    }

    /// The way to one on this machine.
    #[must_use]
    pub const fn here(port: u16) -> Self {
        Self(Forward::here(port))
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

    /// The one session in `namespace` that was uploaded to its end and whose command contains `needle`, once it is there.
    ///
    /// # Errors
    /// Where none comes, or more than one.
    pub async fn recording(&self, namespace: &str, needle: &str) -> Result<Recording> {
        self.recording_where(namespace, |session| has_command(session, needle))
            .await
            .with_context(|| format!("no recording of {needle:?}"))
    }

    /// The one session in `namespace` that was uploaded to its end and whose entry in the list is the wanted one, once it is there.
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
            ensure!(is_uploaded(session), "it was not uploaded to its end: {session}");
            Ok(session.get("id").and_then(Value::as_str).context("no id")?.to_owned())
        })
        .await?;
        Recording::parse(&self.get(&format!("/api/v1/sessions/{id}/cast?raw")).await?)
    }

    /// What is stored of the one session in `namespace` whose command contains `needle`, as it is now; `None` where
    /// nothing is.
    ///
    /// # Errors
    /// Where there is more than one, or the viewer does not answer.
    pub async fn stored(&self, namespace: &str, needle: &str) -> Result<Option<Bytes>> {
        let sessions = self.sessions(namespace).await?;
        let mut found = sessions.iter().filter(|session| has_command(session, needle));
        let Some(session) = found.next() else { return Ok(None) };
        ensure!(found.next().is_none(), "more than one session has {needle:?}: {sessions:?}");
        let id = session.get("id").and_then(Value::as_str).context("no id")?;
        self.get(&format!("/api/v1/sessions/{id}/cast?raw")).await.map(Some)
    }

    /// What it answers to GET.
    ///
    /// # Errors
    /// Where that is no success.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        self.0.ask(Method::GET, path, Bytes::new()).await
    }
}

/// Whether everything that the sender of a listed session had to say has arrived. A session that was cut, or of which the
/// sender left something out, is never `complete`, and may be uploaded.
#[must_use]
pub fn is_uploaded(session: &Value) -> bool {
    session.get("outcome").and_then(Value::as_str) == Some("complete")
        && session.get("missing").and_then(Value::as_u64) == Some(0)
}

fn has_command(session: &Value, needle: &str) -> bool {
    session.get("command").and_then(Value::as_str).unwrap_or_default().contains(needle)
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

    /// One recording of what several recorders have stored of it: each ends where the next begins.
    ///
    /// # Errors
    /// Where something is missing in between, or one is no recording of ours.
    pub fn join(stored: &[Bytes]) -> Result<Self> {
        let mut parts = stored.iter().map(|cast| Part::parse(cast)).collect::<Result<Vec<_>>>()?;
        parts.sort_by_key(|part| part.offset);
        let mut joined = parts.first().context("nothing is stored")?.header.to_vec();
        let ends = parts.iter().skip(1).map(|part| Some(part.offset)).chain([None]);
        for (part, end) in parts.iter().zip(ends) {
            let len = end.map_or(part.lines.len(), |end| end - part.offset);
            joined.extend_from_slice(part.lines.get(..len).context("lines between two parts are missing")?);
        }
        Self::parse(&joined)
    }

    /// The text of every line of this code, joined.
    #[must_use]
    pub fn text(&self, code: &str) -> String {
        self.lines.iter().filter(|(_, c, _)| c == code).map(|(_, _, text)| text.as_str()).collect()
    }

    /// Whether nothing of what was shown is missing. Where the machine is busy, a session may have ended 10 s before a
    /// recorder has acknowledged all of it, which is said to be late.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        ["recorded", "recorded-late"].contains(&&*self.text("x-close")) && self.text("x-gap").is_empty()
    }

    /// The exact bytes of the output, standard output and standard error as they came.
    ///
    /// # Errors
    /// As [`Recording::said`].
    pub fn output(&self) -> Result<Vec<u8>> {
        Ok(self.said()?.into_iter().flat_map(|(_, said)| said).collect())
    }

    /// The exact bytes that came on this stream.
    ///
    /// # Errors
    /// As [`Recording::said`].
    pub fn stream(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.said()?.into_iter().filter(|(stream, _)| stream == name).flat_map(|(_, said)| said).collect())
    }

    /// What was said, in order, on which stream; what came on one without another between is joined. An `x-raw` line
    /// stands before the lossy `o` line that it makes exact.
    ///
    /// # Errors
    /// Where an `x-raw` line is not base64.
    pub fn said(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut said = vec![("stdout".to_owned(), Vec::new())];
        let mut raw = None;
        for (_, code, text) in &self.lines {
            match code.as_str() {
                "x-stream" => said.push((text.clone(), Vec::new())),
                "x-raw" => raw = Some(STANDARD.decode(text).context("x-raw is not base64")?),
                "o" => {
                    let bytes = raw.take().unwrap_or_else(|| text.clone().into_bytes());
                    said.last_mut().context("no stream")?.1.extend(bytes);
                }
                _ => {}
            }
        }
        said.retain(|(_, bytes)| !bytes.is_empty());
        Ok(said)
    }
}

/// What one recorder has stored of a session.
struct Part<'a> {
    header: &'a [u8],
    lines: &'a [u8],
    /// Where in the session its lines begin.
    offset: usize,
}

impl<'a> Part<'a> {
    fn parse(cast: &'a [u8]) -> Result<Self> {
        let end = cast.iter().position(|byte| *byte == b'\n').context("there is no header")?;
        let (header, lines) = cast.split_at(end + 1);
        let parsed: Value = serde_json::from_slice(header)?;
        let offset = parsed.pointer("/podwitness/offset").and_then(Value::as_u64).context("no offset")?;
        Ok(Self { header, lines, offset: usize::try_from(offset)? })
    }
}
