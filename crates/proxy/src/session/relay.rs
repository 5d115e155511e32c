//! The relay of a recorded session: two directions until one of them, the policy or the process ends it.

use std::time::Duration;

use podwitness_core::{outcome::End, status::Status};
use podwitness_runtime::drain;
use podwitness_wire::{
    channel::Source,
    session::{Language, directions},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Open, Recording,
    ahead::{self, LEAST},
    pongs::Pongs,
    pump::{Live, Pump, Stop},
    tap::{Summary, Tap},
};
use crate::Stream;

/// When the header goes out, if neither a size nor output has come.
const HEADER: Duration = Duration::from_secs(1);
/// How long a session goes on after its client has said its last.
const LINGER: Duration = Duration::from_secs(60);
/// How long a server that takes no more input may say nothing. What it has said before is passed on, up to [`UNREAD`]: the
/// client may read slowly, and the policy may hold it back.
const DEAF: Duration = Duration::from_secs(5);
/// How long what a server has left behind waits for a client that takes none of it: as long as a kubelet lets a stream be
/// silent by default (`streamingConnectionIdleTimeout`).
const UNREAD: Duration = Duration::from_secs(4 * 3600);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a client may say nothing before its connection is closed, when the session is over: three pings of kubectl.
const SILENCE: Duration = Duration::from_secs(15);

/// Relays a session until both sides are done, closes its recording, and waits until it is known what became of that.
/// The server has chosen its `language`.
pub async fn relay<C: Stream, S: Stream>(client: C, server: S, language: Language, recording: Recording) {
    let open = &recording.0;
    let _guard = open.drain.guard();
    open.ledger.started();
    let summary = session(client, server, language, open).await;
    open.settle(Some(language), &summary).await;
}

/// A session from its first byte to the end of its recording.
async fn session<C: Stream, S: Stream>(client: C, server: S, language: Language, open: &Open) -> Summary {
    let (meta, origin, journal) = (open.meta.clone(), open.origin.clone(), open.journal.clone());
    let mut tap = Tap::new(meta, origin, Some(language), journal.clone());
    if language == Language::Undecoded {
        tap.stop_decoding("the protocol is not known");
    }
    let live = Live { tap: tap.into(), journal, pongs: Pongs::default(), server_left: Notify::new() };
    let (client_read, client_write) = split(client);
    let (server_read, server_write) = split(server);
    let memory = &open.budgets.memory;
    let (said, answered) = directions(language);
    let mut up = Pump::new((Source::Client, said), client_read, server_write, LEAST, memory);
    let mut down =
        Pump::new((Source::Server, answered), server_read, client_write, ahead::limit(language), memory);
    let (end, message) = both(&mut up, &mut down, &live, &open.drain).await;
    if let Some(status) = &message {
        // A client that does not read learns nothing.
        let _ = timeout(LAST_WORDS, down.say(status)).await;
    }
    // Where the other side is gone already, there is nothing to end.
    let _ = timeout(LAST_WORDS, down.hang_up()).await;
    up.finish(&live);
    down.finish(&live);
    let summary = live.into_tap().close(end);
    // Bytes that are left unread, or that come when the connection is closed, a ping among them, would make the client's
    // system and ours throw away what it has not read.
    tokio::select! {
        () = up.drain(SILENCE) => {}
        () = sleep(UNREAD) => {}
        () = open.drain.over() => {}
    }
    summary
}

/// Relays both directions, and tells how it ended and what the client is to be told.
async fn both<R, W, S, T>(
    up: &mut Pump<R, T>,
    down: &mut Pump<S, W>,
    live: &Live,
    drain: &drain::Watch,
) -> (End, Option<Status>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    S: AsyncRead + Unpin,
    T: AsyncWrite + Unpin,
{
    let now = Instant::now();
    let (progress, mut seen, mut moved) = (down.progress(), 0, now);
    let (upward, downward) = (up.run(live), down.run(live));
    tokio::pin!(upward, downward);
    // Whether the client has said its last, who left first, and for how long the other is waited for.
    let (mut heard, mut left, mut until) = (false, None, now);
    let mut begun = false;
    loop {
        tokio::select! {
            stop = &mut downward => return match stop {
                Stop::Ended => (finished(live, left.unwrap_or(End::ServerLeft)), None),
                Stop::Unwanted => (finished(live, End::ClientLeft), None),
                Stop::Policy(status) => (End::Policy, Some(*status)),
                Stop::Unreadable(status) => (End::Unreadable, Some(*status)),
            },
            stop = &mut upward, if !heard => match stop {
                Stop::Ended => (heard, left, until) = (true, Some(End::ClientLeft), Instant::now() + LINGER),
                // Said before, by `server_left`.
                Stop::Unwanted => heard = true,
                Stop::Policy(status) => return (End::Policy, Some(*status)),
                Stop::Unreadable(status) => return (End::Unreadable, Some(*status)),
            },
            () = live.server_left.notified() => {
                moved = Instant::now();
                (left, until, seen) = (Some(End::ServerLeft), moved + DEAF, progress.passed());
            }
            () = sleep_until(now + HEADER), if !begun => {
                begun = true;
                live.with_tap(Tap::begin);
            }
            () = sleep_until(until), if left.is_some() => {
                if progress.passed() > std::mem::replace(&mut seen, progress.passed()) {
                    moved = Instant::now();
                }
                let waits = moved + DEAF > Instant::now() || progress.waits() || live.journal.holds_back();
                if left == Some(End::ServerLeft) && waits && moved.elapsed() < UNREAD {
                    until = Instant::now() + DEAF;
                    continue;
                }
                return (finished(live, left.unwrap_or(End::ClientLeft)), None);
            }
            () = drain.over() => {
                return (End::Drained, Some(Status::internal("podwitness: session ended, its pod is going away")));
            }
        }
    }
}

/// A session whose command has reported its end is complete, whoever leaves first.
fn finished(live: &Live, otherwise: End) -> End {
    if live.with_tap(|tap| tap.has_status()) { End::Completed } else { otherwise }
}
