//! The relay of a recorded session: two directions until one of them, the policy or the process ends it.

use std::time::Duration;

use podwitness_core::status::Status;
use podwitness_runtime::drain;
use podwitness_wire::{
    channel::Source,
    session::{Language, directions},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Open, Outcome, Recording,
    ahead::{LEAST, READ_AHEAD},
    pump::{Live, Pump, Stop},
    tap::{Summary, Tap},
};
use crate::Stream;

/// When the header goes out, if neither a size nor output has come.
const HEADER: Duration = Duration::from_secs(1);
/// How long a session goes on after its client has said its last.
const LINGER: Duration = Duration::from_secs(60);
/// How long a server that takes no more input may go on.
const DEAF: Duration = Duration::from_secs(5);
/// How long the last words may take, and how long the client's are read after them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Relays a session until both sides are done, and closes its recording. The server has chosen its `language`.
pub async fn relay<C: Stream, S: Stream>(client: C, server: S, language: Language, recording: Recording) {
    let open = &recording.0;
    let _guard = open.drain.guard();
    open.ledger.started();
    let (meta, origin, journal) = (open.meta.clone(), open.origin.clone(), open.journal.clone());
    let live = Live { tap: Tap::new(meta, origin, Some(language), journal.clone()).into(), journal };
    let (client_read, client_write) = split(client);
    let (server_read, server_write) = split(server);
    let memory = &open.budgets.memory;
    let (said, answered) = directions(language);
    let mut up = Pump::new((Source::Client, said), client_read, server_write, LEAST, memory);
    let mut down = Pump::new((Source::Server, answered), server_read, client_write, READ_AHEAD, memory);
    let (outcome, message) = both(&mut up, &mut down, &live, &open.drain).await;
    if let Some(status) = &message {
        // A client that does not read learns nothing.
        let _ = timeout(LAST_WORDS, down.say(status)).await;
    }
    // Bytes left unread would make the client's system throw away what it has not read either.
    let _ = timeout(LAST_WORDS, up.drain()).await;
    up.finish(&live);
    down.finish(&live);
    close(open, live.into_tap(), outcome);
}

/// Relays both directions, and tells how it ended and what the client is to be told.
async fn both<R, W, S, T>(
    up: &mut Pump<R, T>,
    down: &mut Pump<S, W>,
    live: &Live,
    drain: &drain::Watch,
) -> (Outcome, Option<Status>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    S: AsyncRead + Unpin,
    T: AsyncWrite + Unpin,
{
    let now = Instant::now();
    let (upward, downward) = (up.run(live), down.run(live));
    tokio::pin!(upward, downward);
    let (mut begun, mut left, mut until) = (false, None, now);
    loop {
        tokio::select! {
            stop = &mut downward => return match stop {
                Stop::Ended => (finished(live, left.unwrap_or(Outcome::ServerLeft)), None),
                Stop::Unwanted => (finished(live, Outcome::ClientLeft), None),
                Stop::Policy(status) => (Outcome::PolicyEnded, Some(*status)),
                Stop::Unreadable(status) => (Outcome::Unreadable, Some(*status)),
            },
            stop = &mut upward, if left.is_none() => match stop {
                Stop::Ended => (left, until) = (Some(Outcome::ClientLeft), Instant::now() + LINGER),
                Stop::Unwanted => (left, until) = (Some(Outcome::ServerLeft), Instant::now() + DEAF),
                Stop::Policy(status) => return (Outcome::PolicyEnded, Some(*status)),
                Stop::Unreadable(status) => return (Outcome::Unreadable, Some(*status)),
            },
            () = sleep_until(now + HEADER), if !begun => {
                begun = true;
                live.with_tap(Tap::begin);
            }
            () = sleep_until(until), if left.is_some() => {
                return (finished(live, left.unwrap_or(Outcome::ClientLeft)), None);
            }
            () = drain.over() => {
                return (Outcome::Drained, Some(Status::internal("podwitness: session ended, its pod is going away")));
            }
        }
    }
}

/// A session whose command has reported its end is complete, whoever leaves first.
fn finished(live: &Live, otherwise: Outcome) -> Outcome {
    if live.with_tap(|tap| tap.has_status()) { Outcome::Completed } else { otherwise }
}

/// Closes the recording, counts the session and writes its line of the access log.
pub(super) fn close(recording: &Open, tap: Tap, outcome: Outcome) {
    let Summary { output, lost, lasted, exit } = tap.close(outcome);
    recording.ledger.ended(outcome, output, lost);
    let meta = &recording.meta;
    tracing::event!(
        target: "access",
        tracing::Level::INFO,
        session.id = %meta.id,
        session.kind = meta.kind,
        session.outcome = outcome.as_str(),
        session.exit = exit.as_deref().unwrap_or_default(),
        session.millis = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        session.tty = meta.tty,
        user.name = meta.caller.effective.name,
        user.verified = meta.caller.verified,
        pod.namespace = meta.namespace,
        pod.name = meta.pod,
        pod.container = meta.container,
        grants = ?recording.obligation.grants,
        bytes.output = output,
        bytes.lost = lost,
        "session"
    );
}
