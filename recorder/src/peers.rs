//! What one peer may use of the recorder, so that no pod can take it from the others: sessions at a time, new sessions
//! per second, and events sent one by one at a time, which are no sessions and keep none out. An address at the plain
//! listener may be a proxy for many users, who all begin at once. Its connections and its memory are shares of quotas, see [`crate::ingest`].

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::time::Instant;

/// Caps on one peer and on all together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caps {
    /// Sessions of a peer at a time.
    pub sessions: u32,
    /// Sessions of all peers at a time.
    pub all_sessions: u32,
    /// Sessions that a peer may begin at once after a pause.
    pub burst: u32,
    /// The same of an address at the plain listener.
    pub shared_burst: u32,
    /// Pause after which it may begin another.
    pub refill: Duration,
    /// Events of a peer, each a request of its own, at a time.
    pub events: u32,
    /// The same of all peers.
    pub all_events: u32,
    /// Peers that are known at a time.
    pub peers: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            // What one sidecar can carry.
            sessions: 2048,
            all_sessions: 8192,
            burst: 256,
            shared_burst: 2048,
            refill: Duration::from_millis(20),
            events: 1024,
            all_events: 4096,
            peers: 16 << 10,
        }
    }
}

/// Why a peer gets no more.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Refused {
    /// Too many sessions of this peer.
    #[error("the peer has too many sessions open")]
    Sessions,
    /// Too many sessions of all peers.
    #[error("the recorder has too many sessions open")]
    AllSessions,
    /// Sessions began too fast.
    #[error("the peer begins sessions too fast")]
    Rate,
    /// Too many events of this peer.
    #[error("the peer sends too many events at a time")]
    Events,
    /// Too many events of all peers.
    #[error("the recorder is sent too many events at a time")]
    AllEvents,
    /// Too many peers.
    #[error("the recorder has too many peers")]
    Peers,
}

impl Refused {
    /// The reason as a metric's label.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::AllSessions => "all_sessions",
            Self::Rate => "rate",
            Self::Events => "events",
            Self::AllEvents => "all_events",
            Self::Peers => "peers",
        }
    }
}

/// What a peer begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// A recording, or a stream of events, of a pod of its own.
    Session,
    /// The same from an address at the plain listener.
    SharedSession,
    /// An event, a request of its own.
    Event,
}

/// Use by all peers. Clones count together.
#[derive(Clone, Debug)]
pub struct Peers {
    caps: Caps,
    uses: Arc<Mutex<Uses>>,
}

#[derive(Debug, Default)]
struct Uses {
    of: HashMap<IpAddr, Use>,
    sessions: u32,
    events: u32,
}

#[derive(Debug)]
struct Use {
    sessions: u32,
    events: u32,
    /// The moment at which the peer could begin a full burst of sessions at once; each session moves it on.
    full: Instant,
}

/// A session or an event that counts until it is dropped.
#[derive(Debug)]
#[must_use = "what is dropped does not count"]
pub struct Counted {
    uses: Arc<Mutex<Uses>>,
    peer: IpAddr,
    work: Work,
}

impl Peers {
    /// Nobody uses anything yet.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, uses: Arc::default() }
    }

    /// Counts what `peer` begins.
    ///
    /// # Errors
    /// Where it has too many, begins sessions too fast, or all have too many.
    pub fn begin(&self, peer: IpAddr, work: Work) -> Result<Counted, Refused> {
        match work {
            Work::Session => self.begin_session(peer, self.caps.burst)?,
            Work::SharedSession => self.begin_session(peer, self.caps.shared_burst)?,
            Work::Event => self.begin_event(peer)?,
        }
        Ok(Counted { uses: Arc::clone(&self.uses), peer, work })
    }

    fn begin_event(&self, peer: IpAddr) -> Result<(), Refused> {
        let mut uses = lock(&self.uses);
        if uses.events >= self.caps.all_events {
            return Err(Refused::AllEvents);
        }
        let one = uses.entry(peer, self.caps.peers)?;
        if one.events >= self.caps.events {
            return Err(Refused::Events);
        }
        one.events = one.events.saturating_add(1);
        uses.events = uses.events.saturating_add(1);
        Ok(())
    }

    fn begin_session(&self, peer: IpAddr, burst: u32) -> Result<(), Refused> {
        let now = Instant::now();
        let mut uses = lock(&self.uses);
        if uses.sessions >= self.caps.all_sessions {
            return Err(Refused::AllSessions);
        }
        let one = uses.entry(peer, self.caps.peers)?;
        if one.sessions >= self.caps.sessions {
            return Err(Refused::Sessions);
        }
        let full = one.full.max(now) + self.caps.refill;
        if full > now + self.caps.refill.saturating_mul(burst) {
            return Err(Refused::Rate);
        }
        one.full = full;
        one.sessions = one.sessions.saturating_add(1);
        uses.sessions = uses.sessions.saturating_add(1);
        Ok(())
    }
}

impl Uses {
    /// What `peer` uses. Whoever uses nothing and may begin a full burst is forgotten when room is needed.
    fn entry(&mut self, peer: IpAddr, most: usize) -> Result<&mut Use, Refused> {
        let now = Instant::now();
        if self.of.len() >= most && !self.of.contains_key(&peer) {
            self.of.retain(|_, one| one.sessions > 0 || one.events > 0 || one.full > now);
            if self.of.len() >= most {
                return Err(Refused::Peers);
            }
        }
        Ok(self.of.entry(peer).or_insert(Use { sessions: 0, events: 0, full: now }))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut uses = lock(&self.uses);
        let of_events = self.work == Work::Event;
        let all = if of_events { &mut uses.events } else { &mut uses.sessions };
        *all = all.saturating_sub(1);
        if let Some(one) = uses.of.get_mut(&self.peer) {
            let own = if of_events { &mut one.events } else { &mut one.sessions };
            *own = own.saturating_sub(1);
        }
    }
}

/// Counters are whole between any two statements, so that a panic elsewhere leaves them usable.
fn lock(uses: &Mutex<Uses>) -> MutexGuard<'_, Uses> {
    uses.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        sessions: 2,
        all_sessions: 3,
        burst: 4,
        shared_burst: 6,
        refill: Duration::from_secs(1),
        events: 5,
        all_events: 7,
        peers: 2,
    };

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_may_be_used_again() {
        let peers = Peers::new(CAPS);
        let first = peers.begin(peer(1), Work::Session).unwrap();
        let _second = peers.begin(peer(1), Work::Session).unwrap();
        assert_eq!(peers.begin(peer(1), Work::Session).unwrap_err(), Refused::Sessions);
        let _third = peers.begin(peer(2), Work::Session).unwrap();
        assert_eq!(peers.begin(peer(2), Work::Session).unwrap_err(), Refused::AllSessions);
        drop(first);
        assert!(peers.begin(peer(1), Work::Session).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_begin_no_faster_than_they_refill() {
        let peers = Peers::new(CAPS);
        for _ in 0..CAPS.burst {
            drop(peers.begin(peer(1), Work::Session).unwrap());
        }
        assert_eq!(peers.begin(peer(1), Work::Session).unwrap_err(), Refused::Rate);
        assert!(peers.begin(peer(2), Work::Session).is_ok());
        tokio::time::advance(CAPS.refill).await;
        drop(peers.begin(peer(1), Work::Session).unwrap());
        assert_eq!(peers.begin(peer(1), Work::Session).unwrap_err(), Refused::Rate);
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_use_nothing_make_room() {
        let peers = Peers::new(CAPS);
        let first = peers.begin(peer(1), Work::Session).unwrap();
        let _second = peers.begin(peer(2), Work::Session).unwrap();
        assert_eq!(peers.begin(peer(3), Work::Session).unwrap_err(), Refused::Peers);
        drop(first);
        tokio::time::advance(CAPS.refill).await;
        assert!(peers.begin(peer(3), Work::Session).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_many_share_begins_more_at_once() {
        let peers = Peers::new(CAPS);
        for _ in 0..CAPS.shared_burst {
            drop(peers.begin(peer(1), Work::SharedSession).unwrap());
        }
        assert_eq!(peers.begin(peer(1), Work::SharedSession).unwrap_err(), Refused::Rate);
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_no_sessions_and_have_caps_of_their_own() {
        let peers = Peers::new(CAPS);
        for _ in 0..600 {
            drop(peers.begin(peer(1), Work::Event).unwrap());
        }
        let events: Vec<_> = (0..CAPS.events).map(|_| peers.begin(peer(1), Work::Event).unwrap()).collect();
        assert_eq!(peers.begin(peer(1), Work::Event).unwrap_err(), Refused::Events);
        let _others =
            [peers.begin(peer(2), Work::Event).unwrap(), peers.begin(peer(2), Work::Event).unwrap()];
        assert_eq!(peers.begin(peer(2), Work::Event).unwrap_err(), Refused::AllEvents);
        let _sessions =
            [peers.begin(peer(1), Work::Session).unwrap(), peers.begin(peer(1), Work::Session).unwrap()];
        drop(events);
        assert!(peers.begin(peer(1), Work::Event).is_ok());
    }
}
