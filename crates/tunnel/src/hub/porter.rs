//! Handshake initiations (WireGuard paper §5.4.2): who claims to send one, and whether that is true.
//!
//! In order of cost: form and first MAC; the cookie, where one is asked for; the claimed key (one Diffie-Hellman); the
//! rates; the handshake itself (four more). What is refused has left nothing behind. Peers that are there pay by the
//! rates too while places, rates or time run short, as in the kernel.
//!
//! Initiations wait in a queue of [`WAITING`], so that a flood of them costs the sessions of others nothing but their
//! share of the processor. One that finds it full is forgotten, and its sender tries again after 5 s.

use std::{net::SocketAddr, sync::Arc};

use gotatun::{
    noise::{Tunn, TunnResult, handshake, index_table::IndexTable, rate_limiter::RateLimiter},
    packet::{Packet, WgHandshakeInit, WgKind},
    udp::UdpSend,
    x25519,
};
use tokio::{sync::mpsc::Receiver, time::Instant};

use super::Wires;
use crate::{PrivateKey, PublicKey, gate::Peer};

/// Initiations that wait to be judged.
pub(super) const WAITING: usize = 1024;

/// Judges initiations.
pub(super) struct Porter {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    /// Checks form and first MAC.
    plain: Arc<RateLimiter>,
    /// Asks for a cookie besides.
    strict: RateLimiter,
    numbers: IndexTable,
}

// === impl Porter ===

impl Porter {
    pub(super) fn new(key: &PrivateKey, numbers: IndexTable) -> Self {
        let secret = key.secret().clone();
        let public = x25519::PublicKey::from(&secret);
        Self {
            plain: Arc::new(RateLimiter::new(&public, u64::MAX)),
            strict: RateLimiter::new(&public, 0),
            secret,
            public,
            numbers,
        }
    }

    pub(super) async fn run(self, wires: Arc<Wires>, mut asked: Receiver<(Packet, SocketAddr)>) {
        while let Some((datagram, from)) = asked.recv().await {
            let short = asked.len() > WAITING / 2 || wires.gate.is_short(Instant::now());
            if let Some(initiation) = self.checked(&wires, datagram, from, short).await
                && (!short || wires.gate.may_try(from.ip(), Instant::now()))
            {
                self.judge(&wires, initiation, from, short).await;
            }
            // What they count is by the second; they look at the time themselves.
            self.plain.try_reset_count();
            self.strict.try_reset_count();
        }
    }

    async fn checked(
        &self,
        wires: &Wires,
        datagram: Packet,
        from: SocketAddr,
        short: bool,
    ) -> Option<Packet<WgHandshakeInit>> {
        let limiter = if short { &self.strict } else { self.plain.as_ref() };
        match limiter.verify_packet(from, datagram) {
            Ok(WgKind::HandshakeInit(initiation)) => return Some(initiation),
            Err(TunnResult::WriteToNetwork(cookie)) => {
                wires.gate.count(|counts| counts.challenged += 1);
                // A lost cookie is asked for again.
                let _ = wires.udp.send_to(cookie.into(), from).await;
            }
            _ => wires.gate.count(|counts| counts.forged += 1),
        }
        None
    }

    async fn judge(&self, wires: &Wires, initiation: Packet<WgHandshakeInit>, from: SocketAddr, paid: bool) {
        let Ok(claim) = handshake::parse_handshake_anon(&self.secret, &self.public, &initiation) else {
            wires.gate.count(|counts| counts.forged += 1);
            return;
        };
        let key = PublicKey::from_bytes(claim.peer_static_public);
        match wires.gate.by_key(&key) {
            Some(peer) => again(wires, &peer, initiation, from).await,
            None if paid || wires.gate.may_try(from.ip(), Instant::now()) => {
                self.first(wires, key, initiation, from).await;
            }
            None => {}
        }
    }

    /// An unknown key: a peer if the handshake works out and there is a place.
    async fn first(
        &self,
        wires: &Wires,
        key: PublicKey,
        initiation: Packet<WgHandshakeInit>,
        from: SocketAddr,
    ) {
        let mut noise = self.noise(key);
        let TunnResult::WriteToNetwork(response) =
            noise.handle_incoming_packet(WgKind::HandshakeInit(initiation))
        else {
            wires.gate.count(|counts| counts.forged += 1);
            return;
        };
        let peer = Arc::new(Peer::new(key, noise, from));
        if wires.gate.enter(Arc::clone(&peer), Instant::now()) {
            wires.send(&peer, response, from).await;
        }
    }

    fn noise(&self, key: PublicKey) -> Tunn {
        let (secret, limiter) = (self.secret.clone(), Arc::clone(&self.plain));
        Tunn::new(secret, key.to_x25519(), None, None, self.numbers.clone(), limiter)
    }
}

/// A peer that is there begins a new session; one that is older than its last is a replay and gets no answer.
async fn again(wires: &Wires, peer: &Peer, initiation: Packet<WgHandshakeInit>, from: SocketAddr) {
    let answer = {
        let mut session = peer.session();
        let answer = session.noise.handle_incoming_packet(WgKind::HandshakeInit(initiation));
        if matches!(answer, TunnResult::WriteToNetwork(_)) {
            session.endpoint = from;
        }
        answer
    };
    if let TunnResult::WriteToNetwork(response) = answer {
        wires.send(peer, response, from).await;
    }
}
