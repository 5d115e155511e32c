//! A journal of API events: lines without a session around them, which last as long as events come.

use podwitness_core::failure::{Policy, Recorders};
use podwitness_wire::cast::Header;
use tokio::time::{Duration, Instant, timeout_at};

use super::{Budgets, Journal, Phase};

/// How long an event may wait for its acknowledgement under fail closed, and how long a journal may be without a
/// recorder until nobody waits any more: time for one recorder to fail and for the next to answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Journal {
    /// An empty journal of events.
    pub(crate) fn of_events(policy: Policy, budgets: &Budgets) -> Self {
        let journal = Self::new(policy, budgets);
        journal.state().events = true;
        // There is nothing to wait for before lines are uploaded. Uploads of events carry no header.
        journal.begin(Header::default());
        journal
    }

    /// Appends one event and gives the place behind it. `None` where it is not kept: the journal is over, or full.
    pub(crate) fn offer(&self, line: &[u8]) -> Option<u64> {
        let mut state = self.state();
        let full = match &state.policy {
            Policy::Open => false,
            Policy::Closed { lead, .. } => state.ahead() > *lead,
        };
        if state.phase != Phase::Open || full {
            return None;
        }
        if !state.append(Duration::ZERO, line) {
            let full = state.is_newly_full();
            drop(state);
            if full {
                self.0.incidents.full();
            }
            return None;
        }
        let (end, pressed) = (state.appended(), state.is_pressed(Instant::now()));
        drop(state);
        self.tell();
        if pressed {
            self.0.pressure.notify_one();
        }
        Some(end)
    }

    /// Waits until everything before `place` is acknowledged, or tells what stands against it.
    pub(crate) async fn acked_to(&self, place: u64) -> Recorders {
        let began = Instant::now();
        loop {
            let acked = self.0.acks.notified();
            tokio::pin!(acked);
            acked.as_mut().enable();
            let deadline = {
                let state = self.state();
                if state.phase.is_over() {
                    return Recorders::Unreachable;
                }
                if state.acked >= place {
                    return Recorders::Ready;
                }
                let alone = state.recorder.is_none().then_some(state.alone_since);
                alone.unwrap_or(began).min(began) + PATIENCE
            };
            if timeout_at(deadline, acked).await.is_err() {
                return Recorders::Unreachable;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Budget, Next};

    fn budgets() -> Budgets {
        Budgets { memory: Budget::new(1 << 21), ..Budgets::none() }
    }

    fn closed(lead: u64) -> Journal {
        Journal::of_events(Policy::Closed { grants: vec!["g".into()], lead }, &budgets())
    }

    fn recorder() -> std::net::SocketAddr {
        "[fd70::1]:80".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_waited_for_until_it_is_acknowledged() {
        let journal = closed(100);
        journal.taken_by(recorder(), None);
        let place = journal.offer(b"{}\n").unwrap();
        let Next::Lines(lines) = journal.next(0).await.unwrap() else { panic!() };
        assert_eq!((lines.as_ref(), place), (&b"{}\n"[..], 3));
        let waits = tokio::spawn({
            let journal = journal.clone();
            async move { journal.acked_to(place).await }
        });
        tokio::time::sleep(PATIENCE / 2).await;
        journal.ack(3);
        assert_eq!(waits.await.unwrap(), Recorders::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_nobody_waits_for_a_recorder_that_is_long_gone() {
        let journal = closed(100);
        let place = journal.offer(b"{}\n").unwrap();
        let asked = Instant::now();
        assert_eq!(journal.acked_to(place).await, Recorders::Unreachable);
        assert_eq!(asked.elapsed(), PATIENCE);
        let again = Instant::now();
        assert_eq!(journal.acked_to(place).await, Recorders::Unreachable);
        assert_eq!(again.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_bounded() {
        let journal = closed(4);
        assert_eq!(
            [journal.offer(b"{}\n"), journal.offer(b"{}\n"), journal.offer(b"{}\n")],
            [Some(3), Some(6), None]
        );
        let open = Journal::of_events(Policy::Open, &budgets());
        let line = vec![b' '; 1 << 19];
        assert_eq!(
            [open.offer(&line).is_some(), open.offer(&line).is_some(), open.offer(&line).is_some()],
            [true, true, false]
        );
        open.end();
        assert_eq!(open.offer(b"{}\n"), None);
    }
}
