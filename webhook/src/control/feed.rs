//! The netmap stream of one pod: a snapshot, then one line per change, an assertion before the old one runs out, and
//! a sign of life.
//!
//! It ends when the token expires, when the pod is gone or has another key, when the pod opens another stream, and
//! when the server drains. It is pulled by the reader: whoever does not read makes nothing grow.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use axum::body::Bytes;
use futures_util::{Stream, stream};
use podwitness_core::control::{MAX_LINE, Netmap, ServingNames, Update};
use podwitness_runtime::drain;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    access::Caller, assertions::Assertions, enrolments::Enrolments, pods::Pods, streams::Place,
    world::Published,
};

/// Silence after which a sign of life is sent and the pod is looked at.
pub const ALIVE: Duration = Duration::from_secs(10);

/// Worlds as they are published; `None` before the first.
pub type Worlds = watch::Receiver<Option<Arc<Published>>>;

/// What streams are made of.
#[derive(Clone)]
pub struct Feeds {
    /// Worlds.
    pub worlds: Worlds,
    /// Keys of pods.
    pub enrolments: Enrolments,
    /// Signs assertions.
    pub assertions: Assertions,
    /// Live pods.
    pub pods: Pods,
    /// Ends streams.
    pub drain: drain::Watch,
}

/// One stream.
pub struct Feed {
    feeds: Feeds,
    caller: Caller,
    key: String,
    place: Place,
    ends_at: Instant,
    alive_at: Instant,
    renew_at: Instant,
    /// Hash of the netmap sent last, without its generation.
    sent: Option<u64>,
}

/// What happens next.
enum Turn {
    World,
    Renew,
    Alive,
    End,
}

impl Feeds {
    /// For which names a caller may have a certificate of the cluster's CA: what its netmap says.
    #[must_use]
    pub fn serving(&self, caller: &Caller) -> Option<ServingNames> {
        let published = self.worlds.borrow().clone()?;
        published.world.serving(caller.pod.namespace(), caller.mode).cloned()
    }

    /// A stream for the caller, whose key is `key` and whose token lives for another `life`.
    #[must_use]
    pub fn open(&self, caller: Caller, key: String, place: Place, life: Duration) -> Feed {
        let now = Instant::now();
        let mut feeds = self.clone();
        // The first turn is then the world as it is.
        feeds.worlds.mark_changed();
        Feed {
            feeds,
            caller,
            key,
            place,
            ends_at: now + life,
            alive_at: now + ALIVE,
            renew_at: now,
            sent: None,
        }
    }
}

impl Feed {
    /// The stream as NDJSON.
    pub fn lines(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        stream::unfold(self, |mut feed| async {
            let line = feed.next_line().await?;
            Some((Ok(line), feed))
        })
    }

    async fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let update = self.next().await?;
            if let Some(line) = line(&update) {
                self.alive_at = Instant::now() + ALIVE;
                return Some(line);
            }
        }
    }

    /// The next update; `None` at the end.
    async fn next(&mut self) -> Option<Update> {
        loop {
            let update = match self.turn().await {
                Turn::World => self.netmap(),
                Turn::Renew => Some(self.renew()?),
                Turn::Alive if self.gone().await => None?,
                Turn::Alive => {
                    self.alive_at = Instant::now() + ALIVE;
                    Some(Update::Alive {})
                }
                Turn::End => None?,
            };
            if update.is_some() {
                return update;
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        tokio::select! {
            biased;
            () = self.feeds.drain.draining() => Turn::End,
            () = self.place.superseded() => Turn::End,
            () = sleep_until(self.ends_at) => Turn::End,
            changed = self.feeds.worlds.changed() => if changed.is_ok() { Turn::World } else { Turn::End },
            () = sleep_until(self.renew_at) => Turn::Renew,
            () = sleep_until(self.alive_at) => Turn::Alive,
        }
    }

    /// The netmap, where it is another than the one sent last.
    fn netmap(&mut self) -> Option<Update> {
        let published = self.feeds.worlds.borrow_and_update().clone()?;
        let pod = &self.caller.pod;
        let mut netmap =
            published.netmap(&self.caller.role, pod.namespace(), pod.name(), &pod.spec.node_name);
        netmap.serving = published.world.serving(pod.namespace(), self.caller.mode).cloned();
        let hash = hash(&netmap);
        if self.sent.replace(hash) == Some(hash) {
            return None;
        }
        Some(Update::Netmap(Box::new(netmap)))
    }

    /// A new assertion; `None` where the key is no longer the pod's.
    fn renew(&mut self) -> Option<Update> {
        self.renew_at = Instant::now() + Assertions::renewal();
        let current = self.feeds.enrolments.key_of(self.caller.pod.uid())?;
        if current != self.key {
            return None;
        }
        let Caller { pod, mode, .. } = &self.caller;
        self.feeds.assertions.assert(pod, &self.key, *mode).ok().map(Update::Assertion)
    }

    async fn gone(&self) -> bool {
        let pod = &self.caller.pod;
        self.feeds.pods.gone(pod.namespace(), pod.name(), pod.uid()).await
    }
}

/// One line of the stream; `None` where it would be longer than readers accept, so that the netmap before stays.
fn line(update: &Update) -> Option<Bytes> {
    let mut line = serde_json::to_vec(update).ok()?;
    line.push(b'\n');
    if line.len() > MAX_LINE {
        tracing::error!(
            bytes = line.len(),
            "a netmap is longer than {MAX_LINE} bytes; pods keep the one before"
        );
        return None;
    }
    Some(line.into())
}

fn hash(netmap: &Netmap) -> u64 {
    let content = Netmap { generation: 0, ..netmap.clone() };
    let mut hasher = DefaultHasher::new();
    // A netmap always has a JSON form; were there none, every one would count as new.
    serde_json::to_vec(&content).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
