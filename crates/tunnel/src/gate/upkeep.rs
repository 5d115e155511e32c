//! Ending peers whose time is over.

use std::{sync::Weak, time::Duration};

use tokio::time::{self, Instant, MissedTickBehavior};

use super::{Gate, Inner};
use std::sync::Arc;

/// How often the peers are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks after the gate's peers for as long as the gate is used elsewhere.
pub(crate) fn keep(gate: &Gate) -> tokio::task::JoinHandle<()> {
    tokio::spawn(run(Arc::downgrade(&gate.0)))
}

async fn run(gate: Weak<Inner>) {
    let mut tick = time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(inner) = gate.upgrade() else {
            return;
        };
        let gate = Gate(inner);
        gate.reset_limiters();
        gate.expire(Instant::now()).await;
    }
}

impl Gate {
    async fn expire(&self, now: Instant) {
        let _edit = self.0.edit.lock().await;
        let gone = {
            let mut state = self.state();
            let gone = state.table.expire(now);
            state.counts.expired += gone.len() as u64;
            gone
        };
        if !gone.is_empty() {
            self.0.members.change(&gone, None).await;
        }
    }
}
