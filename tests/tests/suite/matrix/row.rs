//! What holds for every failure: sessions under way, sessions that begin, and what is recorded in the end.
//!
//! Under fail open, and where there is another recorder, nobody notices and nothing is missing. Under fail closed what
//! was shown and is not on the recorder's disk is at most the lead, everything shown is recorded in the end, and a
//! command whose recording cannot be made never starts.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use podwitness_e2e::Recording;

use super::{
    lab::{LEAD, Lab, grant_name, without_returns},
    session::{BEGUN, BRIEF, Case, EXIT, FLOOD, Lane, Seen},
};

/// What becomes of a session under fail closed that has no other recorder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Nothing.
    Completes,
    /// It is ended.
    Ends {
        /// The reason that its user is given.
        why: &'static str,
        /// Nothing is acknowledged any more from the harm on.
        at_once: bool,
    },
    /// It is never started, for this reason.
    Refused(&'static str),
    /// It is never started, because nobody knows yet what is asked for.
    TooEarly,
}

/// A session and what was seen of it.
pub type Done = (Case, Seen);

/// Runs sessions of every kind that say little, does `harm`, and lets them say much. Checks what their users saw.
pub async fn midway(lab: &Lab<'_>, fate: Fate, harm: impl AsyncFnOnce() -> Result<()>) -> Result<Vec<Done>> {
    let cases = Case::all(&Lane::ALL, FLOOD);
    let harm = async {
        lab.all_run(&cases).await?;
        harm().await?;
        lab.plain.shell("target", "touch /tmp/go").await?.ok()
    };
    let (seen, _) = tokio::try_join!(run(lab, &cases), harm)?;
    checked(lab, cases, seen, fate).await
}

/// Runs sessions of every kind, and checks what their users saw.
pub async fn start(lab: &Lab<'_>, lanes: &[Lane], fate: Fate) -> Result<Vec<Done>> {
    let cases = Case::all(lanes, BRIEF);
    let seen = run(lab, &cases).await?;
    checked(lab, cases, seen, fate).await
}

/// Checks what was recorded of these sessions when all is well again.
pub async fn in_the_end(lab: &Lab<'_>, sessions: &[Done], fate: Fate) -> Result<()> {
    for (case, seen) in sessions {
        match of(case, fate) {
            Fate::Completes => completed(case, &lab.recorded(case).await?)?,
            Fate::Ends { .. } => ended(case, seen, &lab.recorded(case).await?)?,
            Fate::Refused(_) | Fate::TooEarly => lab.nothing_recorded(case).await?,
        }
    }
    Ok(())
}

async fn run(lab: &Lab<'_>, cases: &[Case]) -> Result<Vec<Seen>> {
    try_join_all(cases.iter().map(|case| case.run(lab))).await
}

async fn checked(lab: &Lab<'_>, cases: Vec<Case>, seen: Vec<Seen>, fate: Fate) -> Result<Vec<Done>> {
    let sessions: Vec<Done> = cases.into_iter().zip(seen).collect();
    let mut wrong = Vec::new();
    for (case, seen) in &sessions {
        wrong.extend(check(lab, case, seen, fate).await.err().map(|wrong| format!("{wrong:#}")));
    }
    ensure!(wrong.is_empty(), "{} sessions went wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(sessions)
}

/// Only sessions under fail closed without another recorder are harmed at all.
const fn of(case: &Case, fate: Fate) -> Fate {
    match case.lane {
        Lane::Closed => fate,
        Lane::Open | Lane::Next => Fate::Completes,
    }
}

async fn check(lab: &Lab<'_>, case: &Case, seen: &Seen, fate: Fate) -> Result<()> {
    let (id, grant, whole) = (case.id(), grant_name(lab.ns, case.lane), case.script.output().len());
    match of(case, fate) {
        Fate::Completes => {
            let said = format!("command terminated with exit code {EXIT}\n");
            ensure!(seen.code == EXIT && seen.shown == whole && seen.said == said, "{id}: {seen:?}");
        }
        Fate::Ends { why, at_once } => {
            let why = format!("podwitness: session ended, Grant \"{grant}\" asks for a recording and {why}");
            let said = format!("error: {why}\n");
            ensure!(seen.code == 1 && seen.shown < whole && seen.said == said, "{id}: {seen:?}");
            let durable = lab.durable(case).await?;
            ensure!(seen.shown <= durable + LEAD, "{id}: {seen:?}, but {durable} bytes are durable");
            ensure!(!at_once || seen.shown <= BEGUN.len() + LEAD, "{id}: {seen:?}");
        }
        Fate::Refused(why) => {
            let why =
                format!("podwitness: Grant \"{grant}\" asks for a recording, and {why}; nothing was run");
            not_started(lab, case, seen, &format!("Forbidden): {why}")).await?;
        }
        Fate::TooEarly => {
            let why =
                "podwitness: this pod is recorded, and its sidecar has not learned yet where to; try again";
            not_started(lab, case, seen, &format!("ServiceUnavailable): {why}")).await?;
        }
    }
    Ok(())
}

async fn not_started(lab: &Lab<'_>, case: &Case, seen: &Seen, why: &str) -> Result<()> {
    let said = format!("Error from server ({why}\n");
    ensure!(seen.code == 1 && seen.shown == 0 && seen.said == said, "{}: {seen:?}", case.id());
    ensure!(!lab.ran(case).await?, "{} was started", case.id());
    Ok(())
}

fn completed(case: &Case, recording: &Recording) -> Result<()> {
    let output = without_returns(&recording.output()?);
    ensure!(output == case.script.output().as_bytes(), "{}: {} bytes are recorded", case.id(), output.len());
    let (exit, end) = (recording.text("x-exit"), recording.text("x-end"));
    ensure!(exit == EXIT.to_string() && end == "completed", "{}: {exit}, {end}", case.id());
    ensure!(recording.text("x-gap").is_empty(), "{} has a gap", case.id());
    Ok(())
}

/// The recording of a session that was ended: all that was shown is in it.
fn ended(case: &Case, seen: &Seen, recording: &Recording) -> Result<()> {
    let output = without_returns(&recording.output()?);
    ensure!(case.script.output().as_bytes().starts_with(&output), "{}: it is not what was said", case.id());
    ensure!(output.len() >= seen.shown, "{}: {seen:?}, {} bytes are recorded", case.id(), output.len());
    let (end, close) = (recording.text("x-end"), recording.text("x-close"));
    ensure!(end == "policy" && close == "cut", "{}: {end}, {close}", case.id());
    ensure!(recording.text("x-gap").is_empty(), "{} has a gap", case.id());
    Ok(())
}
