//! Sessions that print numbered lines until they are told to end, made by kubectl in a witnessed pod. What kubectl
//! printed lies in files of that pod, so that it is known to the byte, whatever becomes of the way there.

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};

use crate::{Namespace, Recording, eventually};

/// Bytes of a line.
const LINE: usize = 8;
/// Lines that are shown before a session counts as under way.
const SOME: usize = 40;
/// Says how many lines it printed, and outlives them a little: a runtime keeps nothing of a command that has ended.
const SCRIPT: &str = "n=0; until test -e /tmp/$0.end; do i=0; \
     while [ $i -lt 20 ]; do i=$((i+1)); n=$((n+1)); printf \"%07d\\n\" $n; done; sleep 0.1; done; \
     echo $n >/tmp/$0.lines; sleep 2";

/// A session from pod `witness` of one namespace to pod `target` of another.
#[derive(Clone, Debug)]
pub struct Counting<'a> {
    ns: &'a Namespace,
    plain: &'a Namespace,
    id: String,
}

/// What the user of a session that is over saw of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Exit code of kubectl.
    pub code: i32,
    /// Bytes of its standard output, which are those of the first lines.
    pub shown: usize,
    /// Its standard error.
    pub said: String,
}

impl<'a> Counting<'a> {
    /// Begins one over WebSocket and one over SPDY, whose names begin with `what`, and waits until both print.
    ///
    /// # Errors
    /// Where one does not.
    pub async fn both(ns: &'a Namespace, plain: &'a Namespace, what: &str) -> Result<Vec<Self>> {
        let mut sessions = Vec::new();
        for (transport, websockets) in [("websocket", true), ("spdy", false)] {
            let session = Self { ns, plain, id: format!("{what}-{transport}") };
            session.start(websockets).await?;
            sessions.push(session);
        }
        for session in &sessions {
            session.goes_on().await?;
        }
        Ok(sessions)
    }

    async fn start(&self, websockets: bool) -> Result<()> {
        let Self { plain, id, .. } = self;
        let script = format!(
            "(KUBECTL_REMOTE_COMMAND_WEBSOCKETS={websockets} kubectl -n {} exec target -- sh -c '{SCRIPT}' {id} \
             >/tmp/{id}.out 2>/tmp/{id}.err; echo $? >/tmp/{id}.code) >/dev/null 2>&1 </dev/null &",
            plain.name
        );
        self.ns.shell("witness", &script).await?.ok().map(drop)
    }

    /// What no other session of the test has in its command.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until it has shown more than now.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn goes_on(&self) -> Result<()> {
        let before = self.shown().await?;
        eventually(&format!("{} shows more", self.id), async || {
            let (shown, said) = (self.shown().await?, self.said().await?);
            ensure!(shown >= before + SOME * LINE, "{shown} bytes after {before}; it said {said:?}");
            Ok(())
        })
        .await
    }

    async fn shown(&self) -> Result<usize> {
        let count = format!("cat /tmp/{}.out 2>/dev/null | wc -c", self.id);
        Ok(self.ns.shell("witness", &count).await?.ok()?.text().trim().parse()?)
    }

    async fn said(&self) -> Result<String> {
        Ok(self.ns.shell("witness", &format!("cat /tmp/{}.err 2>&1; true", self.id)).await?.ok()?.text())
    }

    /// Lets it end.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub async fn end(&self) -> Result<()> {
        self.plain.shell("target", &format!("touch /tmp/{}.end", self.id)).await?.ok().map(drop)
    }

    /// What its user saw, once it is over.
    ///
    /// # Errors
    /// Where it does not end, or a line was missing, came twice, or in another order.
    pub async fn over(&self) -> Result<Seen> {
        let id = &self.id;
        let script =
            format!("cd /tmp && cat {id}.code && wc -c <{id}.out && sha256sum <{id}.out && cat {id}.err");
        let (seen, sum) = eventually(&format!("{id} is over"), async || {
            let text = self.ns.shell("witness", &script).await?.ok()?.text();
            let mut parts = text.splitn(4, '\n');
            let mut next = || parts.next().context("too little is said");
            let (code, shown) = (next()?.parse()?, next()?.trim().parse()?);
            let sum = next()?.split(' ').next().unwrap_or_default().to_owned();
            Ok((Seen { code, shown, said: next()?.to_owned() }, sum))
        })
        .await?;
        ensure!(sum == hex(&lines(seen.shown)), "{id}: {seen:?} are not the first lines");
        Ok(seen)
    }

    /// Fails where the user saw what is not recorded, the recording is not what was printed, or the session ended for
    /// another reason than its own or the policy's.
    ///
    /// # Errors
    /// As said.
    pub async fn check(&self, seen: &Seen, recording: &Recording) -> Result<()> {
        let (id, output) = (&self.id, recording.output()?);
        ensure!(output == lines(output.len()), "{id}: {} bytes are recorded, not as printed", output.len());
        ensure!(output.len() >= seen.shown, "{id}: {seen:?}, but {} bytes are recorded", output.len());
        ensure!(recording.text("x-gap").is_empty(), "{id} has a gap");
        let (exit, end) = (recording.text("x-exit"), recording.text("x-end"));
        if seen.code == 0 {
            let run = self.plain.shell("target", &format!("cat /tmp/{id}.lines")).await?.ok()?;
            let printed = run.text().trim().parse::<usize>()? * LINE;
            ensure!(
                seen.shown == printed && output.len() == printed,
                "{id}: {seen:?}, {printed} bytes printed"
            );
            // A line of kubectl's own log, such as of a stream that has ended, is no word of the session.
            ensure!(seen.said.lines().all(|line| line.contains(".go:")), "{id}: {seen:?}");
            ensure!(exit == "0" && end == "completed", "{id}: {exit}, {end}");
        } else {
            let why = format!("podwitness: session ended, Grant \"{}\" asks for a recording", self.ns.name);
            ensure!(seen.said.contains(&why), "{id}: {seen:?}");
            ensure!(end == "policy", "{id}: {exit}, {end}");
        }
        Ok(())
    }
}

/// The first bytes of what a session prints.
fn lines(bytes: usize) -> Vec<u8> {
    let lines = (1..=bytes.div_ceil(LINE)).flat_map(|number| format!("{number:07}\n").into_bytes());
    lines.take(bytes).collect()
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn hex(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
