//! Events from before the first netmap: nobody knows yet who is to have them.

use std::sync::{Mutex, PoisonError};

use podwitness_core::event::Event;

use super::{Addressee, Events};

/// Cap on events that are held; those above it are lost, and counted.
const MAX_HELD: usize = 1024;

/// Events that wait, in order.
#[derive(Default)]
pub(super) struct Held(Mutex<Vec<(Addressee, Event)>>);

impl Held {
    /// Whether there was room.
    pub(super) fn push(&self, addressee: Addressee, event: Event) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = held.len() < MAX_HELD;
        if room {
            held.push((addressee, event));
        }
        room
    }

    fn take(&self) -> Vec<(Addressee, Event)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes what was held as soon as there is a netmap.
pub(super) fn judge_at_first_netmap(events: &Events) {
    let (events, mut netmap) = (events.clone(), events.0.netmap.clone());
    tokio::spawn(async move {
        // Whoever sends netmaps may be gone for good; then nobody will ever know.
        while netmap.wait_for(Option::is_some).await.is_ok() {
            for (addressee, event) in events.0.held.take() {
                events.write(&addressee, event);
            }
            if netmap.changed().await.is_err() {
                return;
            }
        }
    });
}
