//! What happens by the clock: retries, keepalives and ends of sessions, and ends of peers.

use std::{sync::Arc, time::Duration};

use gotatun::noise::errors::WireGuardError;
use tokio::time::{self, Instant, MissedTickBehavior};

use super::Wires;
use crate::gate::Peer;

/// How often WireGuard's timers are looked at; the shortest are of several seconds.
const PERIOD: Duration = Duration::from_millis(250);

pub(super) async fn run(wires: Arc<Wires>) {
    let mut tick = time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        wires.gate.expire(Instant::now());
        for peer in wires.gate.all() {
            wires.look_after(&peer).await;
        }
    }
}

impl Wires {
    async fn look_after(&self, peer: &Peer) {
        let due = {
            let mut session = peer.session();
            session.noise.update_timers().map(|packet| packet.map(|packet| (packet, session.endpoint)))
        };
        match due {
            Ok(Some((packet, endpoint))) => self.send(peer, packet, endpoint).await,
            Ok(None) | Err(WireGuardError::ConnectionExpired) => {}
            Err(error) => tracing::debug!(?error, peer = %peer.key, "the timers of a session fail"),
        }
    }
}
