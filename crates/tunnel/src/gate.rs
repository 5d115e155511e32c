//! Who may speak to a recorder: any key, provisionally, until an assertion for it arrives in the tunnel.
//!
//! A recorder keeps no list of sidecars. A handshake initiation from an unknown key makes its sender a *provisional*
//! peer; the recorder's HTTP layer serves such a peer nothing but the acceptance of its assertion, after which
//! [`Gate::admit`] lets it stay for as long as the assertion holds.
//!
//! Invariants, each of which an attacker may try to break:
//! * the key in an initiation is only claimed: whoever knows the recorder's public key can name any. Nothing is kept
//!   before a whole handshake has been computed with it, which fails for who does not hold it. A replayed initiation
//!   passes; it buys one provisional place, whose time runs out;
//! * there are at most [`ProvisionalLimits::max`] provisional peers. Each ends after [`ProvisionalLimits::ttl`] unless
//!   admitted. Where no place is free, a peer that has sent no data yet, or none for long, gives way; else the new one
//!   is refused, and its WireGuard tries again after 5 s;
//! * unknown keys are taken at a bounded rate, in all and by source. When that runs short, initiations have to prove
//!   their source address first, by WireGuard's own cookies;
//! * there are at most [`ProvisionalLimits::max_admitted`] admitted peers. Where that is full, [`Gate::admit`] fails,
//!   and the recorder says so to the peer;
//! * no packet reaches the recorder's host but TCP from the peer's own address to the tunnel's, on a port that the
//!   tunnel listens on.
//!
//! Every step costs the same however many peers there are.
//!
//! Sources: WireGuard paper §5.3 (cookies), §5.4.2 (initiation).

mod limits;
mod peers;
mod rate;
mod table;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gotatun::noise::index_table::IndexTable;
use tokio::time::Instant;

pub use limits::{ProvisionalLimits, Rate};
pub use table::{Admission, AdmitError};

pub(crate) use peers::Peer;

use crate::PublicKey;
use peers::Peers;
use rate::Rates;
use table::{Full, Table};

/// A recorder's list of peers. Clones are handles of the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<State>>);

struct State {
    table: Table,
    peers: Peers,
    rates: Rates,
    ports: Vec<u16>,
    counts: GateCounts,
}

/// What has happened at a gate since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GateCounts {
    /// Provisional peers that were added.
    pub added: u64,
    /// Initiations refused because too many unknown keys came from their source, or in all.
    pub limited: u64,
    /// Initiations forgotten unread because they came faster than they could be judged.
    pub overrun: u64,
    /// Initiations refused because no provisional place was free.
    pub full: u64,
    /// Initiations that were malformed or whose sender does not hold the key.
    pub forged: u64,
    /// Initiations that were answered by a cookie.
    pub challenged: u64,
    /// Peers that were removed because their time was over.
    pub expired: u64,
    /// Packets of peers that were not for a port the tunnel listens on, or not from their own address.
    pub dropped: u64,
}

/// How many peers a gate has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GateSizes {
    /// Provisional ones.
    pub provisional: usize,
    /// Admitted ones.
    pub admitted: usize,
}

// === impl Gate ===

impl Gate {
    pub(crate) fn new(limits: ProvisionalLimits, numbers: IndexTable) -> Self {
        Self(Arc::new(Mutex::new(State {
            rates: Rates::new(&limits, Instant::now()),
            table: Table::new(limits),
            peers: Peers::new(numbers),
            ports: Vec::new(),
            counts: GateCounts::default(),
        })))
    }

    /// Lets the peer stay until `until`; for the holder of a valid assertion for `key` that came in through the tunnel.
    /// For a peer that is admitted already this only sets the time anew.
    ///
    /// # Errors
    /// Where the peer is not there (any more), or there are too many.
    pub fn admit(&self, key: &PublicKey, until: Instant) -> Result<(), AdmitError> {
        self.state().table.admit(key, until, Instant::now())
    }

    /// Whose address that is.
    #[must_use]
    pub fn key_of(&self, address: Ipv6Addr) -> Option<(PublicKey, Admission)> {
        self.state().table.find(address)
    }

    /// How many peers there are.
    #[must_use]
    pub fn sizes(&self) -> GateSizes {
        self.state().table.sizes()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> GateCounts {
        self.state().counts
    }

    /// Lets packets to this port of the tunnel's address in.
    pub(crate) fn open_port(&self, port: u16) {
        self.state().ports.push(port);
    }

    pub(crate) fn count(&self, what: impl FnOnce(&mut GateCounts)) {
        what(&mut self.state().counts);
    }

    pub(crate) fn by_key(&self, key: &PublicKey) -> Option<Arc<Peer>> {
        self.state().peers.by_key(key)
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<Arc<Peer>> {
        self.state().peers.by_number(number)
    }

    pub(crate) fn by_address(&self, address: Ipv6Addr) -> Option<Arc<Peer>> {
        let state = self.state();
        let (key, _) = state.table.find(address)?;
        state.peers.by_key(&key)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        self.state().peers.all()
    }

    /// Notes a session number under which the peer's next packets may come.
    pub(crate) fn number(&self, peer: &Peer, number: u32) {
        self.state().peers.number(&peer.key, number);
    }

    /// Whether senders of initiations have to prove their address now.
    pub(crate) fn is_short(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.table.is_crowded() || state.rates.are_short(now)
    }

    /// Whether one more initiation may come from that source.
    pub(crate) fn may_try(&self, source: IpAddr, now: Instant) -> bool {
        let mut state = self.state();
        let may = state.rates.take(source, now);
        state.counts.limited += u64::from(!may);
        may
    }

    /// Adds an unknown peer provisionally, if there is a place.
    pub(crate) fn enter(&self, peer: Arc<Peer>, now: Instant) -> bool {
        let mut state = self.state();
        match state.table.add(peer.key, now) {
            Ok(gone) => {
                if let Some(gone) = gone {
                    state.peers.remove(&gone);
                }
                state.peers.insert(peer);
                state.counts.added += 1;
                true
            }
            Err(Full) => {
                state.counts.full += 1;
                false
            }
        }
    }

    /// Notes that the peer holds its key, for something came in its session.
    pub(crate) fn heard(&self, peer: &Peer, now: Instant) {
        self.state().table.heard(&peer.key, now);
    }

    /// Notes that data came; whether it may go on to this port of the host.
    pub(crate) fn hears(&self, peer: &Peer, port: Option<u16>, now: Instant) -> bool {
        let mut state = self.state();
        state.table.heard(&peer.key, now);
        let passes = port.is_some_and(|port| state.ports.contains(&port));
        state.counts.dropped += u64::from(!passes);
        passes
    }

    /// Removes the peers whose time is over.
    pub(crate) fn expire(&self, now: Instant) {
        let mut state = self.state();
        for key in state.table.expire(now) {
            state.peers.remove(&key);
            state.counts.expired += 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
