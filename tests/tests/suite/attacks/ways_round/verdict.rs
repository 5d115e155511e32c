//! What came of an attempt, by the target, the recordings and the client.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{Recording, Viewer, eventually, recordings::is_uploaded};
use serde_json::Value;

use super::run::Tried;

/// How everything begins that the sidecar tells a user.
const SIDECAR: &str = "podwitness: ";

/// One cell of the table.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The command ran where there is no sidecar.
    Ran,
    /// The command ran, and its recording has what the client was shown.
    Recorded,
    /// The command did not run, and this is who said so.
    Refused(&'static str),
    /// The command ran, and its recording is missing or has less than was shown.
    Unrecorded(String),
    /// The command did not run, and nothing says why.
    Unclear(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran => f.write_str("runs"),
            Self::Recorded => f.write_str("recorded"),
            Self::Refused(by) => f.write_str(by),
            Self::Unrecorded(_) => f.write_str("UNRECORDED"),
            Self::Unclear(_) => f.write_str("UNCLEAR"),
        }
    }
}

impl Verdict {
    /// Of an attempt from where no sidecar is.
    pub(super) fn without_sidecar(ran: bool, tried: &Tried) -> Self {
        if ran { Self::Ran } else { Self::did_not_run(tried, "the server refuses") }
    }

    /// Of an attempt whose command did not run. Without TLS it was `by` that there was none.
    fn did_not_run(tried: &Tried, by: &'static str) -> Self {
        match tried.answer() {
            _ if tried.stderr.contains(SIDECAR) => Self::Refused("refused"),
            _ if tried.stderr.contains("the connection was ended while it was held") => {
                Self::Refused("refused, ended")
            }
            _ if tried.code == 4 => Self::Refused(by),
            Some(line) if !line.contains(" 101 ") => Self::Refused("the server refuses"),
            _ => Self::Unclear(format!("the command did not run: {tried:?}")),
        }
    }
}

/// Of attempts in a witnessed pod, with the marks of their commands, once the recordings of those that ran are there.
pub(super) async fn after_recordings(
    viewer: &Viewer,
    ns: &str,
    target: &str,
    attempts: &[(String, Tried)],
    ran: &BTreeSet<String>,
) -> Result<Vec<Verdict>> {
    let sessions =
        uploaded(viewer, ns, attempts.iter().map(|(mark, _)| mark).filter(|mark| ran.contains(*mark)))
            .await?;
    let mut verdicts = Vec::new();
    for (mark, tried) in attempts {
        verdicts.push(if !ran.contains(mark) {
            Verdict::did_not_run(tried, "refused, no TLS")
        } else {
            match recorded(viewer, &sessions, target, mark, tried).await {
                Ok(()) => Verdict::Recorded,
                Err(error) => Verdict::Unrecorded(format!("{error:#}: {tried:?}")),
            }
        });
    }
    Ok(verdicts)
}

/// The sessions of a namespace, as soon as that of each of these commands was uploaded; as they are, where one has none in
/// the end.
async fn uploaded<'a>(
    viewer: &Viewer,
    ns: &str,
    marks: impl Iterator<Item = &'a String>,
) -> Result<Vec<Value>> {
    let marks: Vec<&String> = marks.collect();
    let all = eventually("everything that ran is recorded", async || {
        let sessions = viewer.sessions(ns).await?;
        for mark in &marks {
            ensure!(of(&sessions, mark).is_some_and(is_uploaded), "{mark} is not");
        }
        Ok(sessions)
    })
    .await;
    match all {
        Ok(sessions) => Ok(sessions),
        Err(_) => viewer.sessions(ns).await,
    }
}

fn of<'a>(sessions: &'a [Value], mark: &str) -> Option<&'a Value> {
    let needle = format!("{mark};");
    sessions.iter().find(|session| text(session, "command").contains(&needle))
}

fn text<'a>(session: &'a Value, key: &str) -> &'a str {
    session.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a command is recorded under its pod, with everything that its client was shown.
async fn recorded(
    viewer: &Viewer,
    sessions: &[Value],
    target: &str,
    mark: &str,
    tried: &Tried,
) -> Result<()> {
    let session = of(sessions, mark).context("no recording")?;
    ensure!(is_uploaded(session), "its recording was not uploaded to its end: {session}");
    let at = (text(session, "namespace"), text(session, "pod"));
    ensure!(at == (target, "target"), "it is recorded elsewhere: {session}");
    let path = format!("/api/v1/sessions/{}/cast?raw", text(session, "id"));
    let recording = Recording::parse(&viewer.get(&path).await?)?;
    ensure!(recording.text("x-gap").is_empty(), "there is a gap: {:?}", recording.lines);
    let output = String::from_utf8_lossy(&recording.output()?).into_owned();
    for line in [format!("out of {mark}"), format!("err of {mark}"), mark.to_owned()] {
        ensure!(!tried.says(&line) || output.contains(&line), "{line:?} is not in {:?}", recording.lines);
    }
    Ok(())
}
