//! Who may speak to a recorder: any key, provisionally, until an assertion for it arrives in the tunnel.
//!
//! A recorder keeps no list of sidecars. A handshake initiation from an unknown key is held, checked, and its sender
//! added as a *provisional* peer; the recorder's HTTP layer serves such a peer nothing but the acceptance of its
//! assertion, after which [`Gate::admit`] lets it stay for as long as the assertion holds.
//!
//! Invariants, each of which an attacker may try to break:
//! * the key in an initiation is only claimed: whoever knows the recorder's public key can name any. A scratch handshake
//!   checks that the sender holds it before anything is kept. A replayed initiation passes that check; it buys one
//!   provisional entry, which ends unproven;
//! * there are at most [`ProvisionalLimits::max`] provisional peers. Each ends after [`ProvisionalLimits::ttl`] unless
//!   admitted. Where the table is full, one that has sent no data yet, or none for long, gives way; else the new one is
//!   refused, and its WireGuard tries again after 5 s;
//! * unknown keys are taken at a bounded rate, in all and by source. When that runs short, initiations have to prove
//!   their source address first, by WireGuard's own cookies;
//! * there are at most [`ProvisionalLimits::max_admitted`] admitted peers. Where that is full, [`Gate::admit`] fails,
//!   and the recorder says so to the peer;
//! * no packet reaches the recorder's host but TCP to the tunnel's address on a port that the tunnel listens on.
//!
//! Sources: WireGuard paper §5.3 (cookies), §5.4.2 (initiation).

mod device;
mod initiation;
mod limits;
mod packet;
mod rate;
mod table;
mod upkeep;

use std::{
    net::Ipv6Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

pub use limits::{ProvisionalLimits, Rate};
pub use table::{Admission, AdmitError};

pub(crate) use device::Members;
pub(crate) use initiation::Verdict;
pub(crate) use upkeep::keep;

use crate::{PrivateKey, PublicKey, key::address};
use initiation::Checks;
use rate::Rates;
use table::Table;

/// The recorder's list of peers. Clones are handles of the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    checks: Checks,
    address: Ipv6Addr,
    members: Members,
    state: Mutex<State>,
    /// Held while table and device change together, so that they cannot come apart.
    edit: tokio::sync::Mutex<()>,
}

struct State {
    table: Table,
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
    /// Initiations refused because no provisional place was free.
    pub full: u64,
    /// Initiations that were malformed or whose sender does not hold the key.
    pub forged: u64,
    /// Initiations that were answered by a cookie.
    pub challenged: u64,
    /// Peers that were removed because their time was over.
    pub expired: u64,
    /// Packets of peers that were not for a port the tunnel listens on.
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
    pub(crate) fn new(key: &PrivateKey, limits: ProvisionalLimits) -> Self {
        let state = State {
            rates: Rates::new(&limits, Instant::now()),
            table: Table::new(limits),
            ports: Vec::new(),
            counts: GateCounts::default(),
        };
        Self(Arc::new(Inner {
            checks: Checks::new(key),
            address: address(&key.public()),
            members: Members::default(),
            state: Mutex::new(state),
            edit: tokio::sync::Mutex::default(),
        }))
    }

    /// Lets the peer stay until `until`; for the holder of a valid assertion for `key` that came in through the tunnel.
    /// Says nothing new where it is admitted already, except for the time.
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

    pub(crate) fn members(&self) -> &Members {
        &self.0.members
    }

    /// Lets packets to this port of the tunnel's address in.
    pub(crate) fn open_port(&self, port: u16) {
        self.state().ports.push(port);
    }

    /// Whether a decrypted packet may go on to the host; it also shows that its sender holds its key.
    pub(crate) fn passes(&self, packet: &gotatun::packet::Ip) -> bool {
        let mut state = self.state();
        let passes = packet::TcpTarget::of(packet).is_some_and(|target| {
            target.to == self.0.address
                && state.ports.contains(&target.port)
                && state.table.heard(target.from, Instant::now())
        });
        state.counts.dropped += u64::from(!passes);
        passes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
