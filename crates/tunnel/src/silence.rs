//! Peers from which nothing comes although they are dialled.
//!
//! A recorder that was restarted under its key, at its address, knows nothing of WireGuard's session with the process
//! before. WireGuard sees that by 15 s of silence; whoever dials sees it earlier. A session that begins anew costs a
//! round trip and breaks no connection, but one that is in use is left alone.
//!
//! Source: WireGuard paper §6 (timers).

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::PublicKey;

/// How long a dial goes on before its peer is watched: most are over by then.
pub(crate) const GRACE: Duration = Duration::from_millis(500);
/// How long nothing at all may come from the peer then. With [`GRACE`] it leaves half of the 5 s that a sidecar gives a
/// dial to the next attempt.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// How long a session that has begun anew is left alone: as long as WireGuard itself waits for the answer to a handshake.
const REST: Duration = Duration::from_secs(5);

/// Peers whose sessions have begun anew lately: as many as there were peers in [`REST`].
#[derive(Debug, Default)]
pub(crate) struct Renewed(BTreeMap<PublicKey, Instant>);

impl Renewed {
    /// Whether the session of that peer may begin anew; it is taken to do so.
    pub(crate) fn may(&mut self, key: PublicKey) -> bool {
        let now = Instant::now();
        self.0.retain(|_, at| now.duration_since(*at) < REST);
        let may = !self.0.contains_key(&key);
        self.0.entry(key).or_insert(now);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_begins_anew_at_most_once_in_a_while() {
        let (mut renewed, one, two) =
            (Renewed::default(), PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        assert!(renewed.may(one));
        tokio::time::advance(REST / 2).await;
        assert!(renewed.may(two) && !renewed.may(one));
        // To ask does not make the rest longer.
        tokio::time::advance(REST / 2).await;
        assert!(renewed.may(one) && !renewed.may(two));
        assert_eq!(renewed.0.len(), 2);
    }
}
