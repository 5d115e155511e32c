//! Handshake initiations (WireGuard paper §5.4.2): who claims to send one, and whether that is true.
//!
//! In order of cost: form and first MAC; the cookie, where one is asked for; the claimed key (one Diffie-Hellman);
//! the rates; the proof by a scratch handshake (three more). What is refused has left nothing behind.

use std::{net::SocketAddr, sync::Arc};

use gotatun::{
    noise::{Tunn, TunnResult, handshake, index_table::IndexTable, rate_limiter::RateLimiter},
    packet::{Packet, WgHandshakeInit, WgKind},
    x25519,
};
use tokio::time::Instant;

use super::{Gate, State};
use crate::{PrivateKey, PublicKey};

/// First byte of an initiation.
const TYPE: u8 = 1;

/// The means to judge an initiation.
pub(super) struct Checks {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    /// Checks form and first MAC.
    plain: Arc<RateLimiter>,
    /// Asks for a cookie besides.
    strict: RateLimiter,
    /// Session numbers of scratch handshakes.
    scratch: IndexTable,
}

/// What is to be done with a datagram.
pub(crate) enum Verdict {
    /// Give it to the device.
    Pass(Packet),
    /// Send this back to where it came from.
    Reply(Packet),
    /// Forget it.
    Drop,
}

// === impl Gate ===

impl Gate {
    /// Judges a datagram. The sender of an initiation is a peer of the device when this returns [`Verdict::Pass`].
    pub(crate) async fn judge(&self, datagram: Packet, from: SocketAddr) -> Verdict {
        if !is_initiation(&datagram) {
            return Verdict::Pass(datagram);
        }
        let initiation = match self.with_mac(datagram, from) {
            Ok(initiation) => initiation,
            Err(verdict) => return verdict,
        };
        if self.welcomes(&initiation, from).await { Verdict::Pass(initiation.into()) } else { Verdict::Drop }
    }

    fn with_mac(&self, datagram: Packet, from: SocketAddr) -> Result<Packet<WgHandshakeInit>, Verdict> {
        let checks = &self.0.checks;
        let strict = self.state().is_short(Instant::now());
        let limiter = if strict { &checks.strict } else { checks.plain.as_ref() };
        match limiter.verify_packet(from, datagram) {
            Ok(WgKind::HandshakeInit(initiation)) => Ok(initiation),
            Err(TunnResult::WriteToNetwork(cookie)) => {
                self.state().counts.challenged += 1;
                Err(Verdict::Reply(cookie.into()))
            }
            _ => {
                self.state().counts.forged += 1;
                Err(Verdict::Drop)
            }
        }
    }

    async fn welcomes(&self, initiation: &Packet<WgHandshakeInit>, from: SocketAddr) -> bool {
        let checks = &self.0.checks;
        let Ok(claim) = handshake::parse_handshake_anon(&checks.secret, &checks.public, initiation) else {
            self.state().counts.forged += 1;
            return false;
        };
        let key = PublicKey::from_bytes(claim.peer_static_public);
        if self.state().table.knows(&key) {
            return true;
        }
        if !self.state().take(from, Instant::now()) {
            return false;
        }
        if !checks.prove(key, initiation) {
            self.state().counts.forged += 1;
            return false;
        }
        self.enter(key).await
    }

    async fn enter(&self, key: PublicKey) -> bool {
        let _edit = self.0.edit.lock().await;
        let Some(gone) = self.state().enter(key, Instant::now()) else {
            return false;
        };
        self.0.members.change(gone.as_slice(), Some(key)).await;
        true
    }

    /// To be called every second: what the limiters count is by the second.
    pub(super) fn reset_limiters(&self) {
        self.0.checks.plain.try_reset_count();
        self.0.checks.strict.try_reset_count();
    }
}

// === impl State ===

impl State {
    /// Whether senders have to prove their address now.
    fn is_short(&mut self, now: Instant) -> bool {
        self.table.is_crowded() || self.rates.are_short(now)
    }

    fn take(&mut self, from: SocketAddr, now: Instant) -> bool {
        let within = self.rates.take(from.ip(), now);
        self.counts.limited += u64::from(!within);
        within
    }

    /// Adds the key to the table; the peer that gives way, or `None` where the table is full.
    fn enter(&mut self, key: PublicKey, now: Instant) -> Option<Vec<PublicKey>> {
        // While the lock was awaited, another initiation may have brought the key in.
        if self.table.knows(&key) {
            return Some(Vec::new());
        }
        match self.table.add(key, now) {
            Ok(gone) => {
                self.counts.added += 1;
                Some(gone.into_iter().collect())
            }
            Err(super::table::Full) => {
                self.counts.full += 1;
                None
            }
        }
    }
}

// === impl Checks ===

impl Checks {
    pub(super) fn new(key: &PrivateKey) -> Self {
        let secret = key.secret().clone();
        let public = x25519::PublicKey::from(&secret);
        Self {
            plain: Arc::new(RateLimiter::new(&public, u64::MAX)),
            strict: RateLimiter::new(&public, 0),
            scratch: IndexTable::from_os_rng(),
            secret,
            public,
        }
    }

    /// Whether the initiation was made with the private key of `key`, now or at some time: answering it in a handshake
    /// that is then thrown away tells.
    fn prove(&self, key: PublicKey, initiation: &Packet<WgHandshakeInit>) -> bool {
        let mut scratch = Tunn::new(
            self.secret.clone(),
            key.to_x25519(),
            None,
            None,
            self.scratch.clone(),
            Arc::clone(&self.plain),
        );
        let answer = scratch.handle_incoming_packet(WgKind::HandshakeInit(Packet::copy_from(&**initiation)));
        matches!(answer, TunnResult::WriteToNetwork(_))
    }
}

fn is_initiation(datagram: &Packet) -> bool {
    datagram.first() == Some(&TYPE)
}
