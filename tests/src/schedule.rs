//! Which tests of the suite run at the same time.
//!
//! The runner starts all tests at once, each on a thread of its own; each waits here before it first touches the
//! cluster. Most of them wait for the cluster most of the time, so that many run beside each other. A test says what is
//! special about it with [`enter`]; one that says nothing is [`Class::Usual`].

use std::{
    cell::RefCell,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::report;

/// How long tests are gathered before the first one begins, so that the order does not depend on which thread is first.
const GATHER: Duration = Duration::from_millis(500);
/// Tests of [`Class::Usual`] at a time for each processor.
const PER_PROCESSOR: usize = 7;
/// Says another number of slots than that.
const SLOTS: &str = "PODWITNESS_E2E_SLOTS";

/// What a test asks of the cluster. The order is the one in which tests are begun.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Takes away what all share, by [`crate::outage`]: runs beside others of its class only.
    Outage,
    /// Runs long.
    Long,
    /// Runs for a while, and has as many sessions at once as three others.
    Heavy,
    /// Any other.
    Usual,
}

impl Class {
    const fn slots(self) -> usize {
        match self {
            Self::Outage => 0,
            Self::Heavy => 3,
            Self::Long | Self::Usual => 1,
        }
    }
}

/// A test that waits until it may begin.
struct Waiting {
    class: Class,
    /// Counts arrivals.
    number: u64,
    begin: oneshot::Sender<()>,
}

/// Tests that wait and tests that run.
#[derive(Default)]
struct Schedule {
    /// Whether tests have been gathered.
    is_open: bool,
    waiting: Vec<Waiting>,
    arrived: u64,
    outages: usize,
    others: usize,
    taken: usize,
}

static SCHEDULE: Mutex<Schedule> =
    Mutex::new(Schedule { is_open: false, waiting: Vec::new(), arrived: 0, outages: 0, others: 0, taken: 0 });

thread_local! {
    /// That of the test that runs on this thread; given back when the thread ends.
    static SLOT: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// The place of one running test.
struct Slot {
    class: Class,
    since: Instant,
}

impl Drop for Slot {
    fn drop(&mut self) {
        report::took(self.since);
        schedule().leave(self.class);
    }
}

/// Waits until this test may begin, as one of this class. To be called first in a test.
pub async fn enter(class: Class) {
    SLOT.take();
    let begin = schedule().wait(class);
    sleep_until(*FIRST.get_or_init(Instant::now) + GATHER).await;
    schedule().open();
    // The other end is dropped only after it was used.
    let _ = begin.await;
    SLOT.set(Some(Slot { class, since: Instant::now() }));
}

static FIRST: OnceLock<Instant> = OnceLock::new();

/// The same for a test that has not said what it is; does nothing in one that has.
pub(crate) async fn enter_as_usual() {
    if SLOT.with_borrow(Option::is_none) {
        enter(Class::Usual).await;
    }
}

fn schedule() -> MutexGuard<'static, Schedule> {
    SCHEDULE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slots() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let set = std::env::var(SLOTS).ok().and_then(|text| text.parse().ok());
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        set.unwrap_or_else(|| PER_PROCESSOR * processors())
    })
}

impl Schedule {
    fn wait(&mut self, class: Class) -> oneshot::Receiver<()> {
        let (begin, begun) = oneshot::channel();
        self.waiting.push(Waiting { class, number: self.arrived, begin });
        self.waiting.sort_by_key(|one| (one.class, one.number));
        self.arrived += 1;
        self.begin();
        begun
    }

    fn open(&mut self) {
        self.is_open = true;
        self.begin();
    }

    fn leave(&mut self, class: Class) {
        self.count(class, false);
        self.begin();
    }

    /// Begins what may begin, in order. Where one needs more slots than there are, one behind it that needs less goes first.
    fn begin(&mut self) {
        while let Some(next) = self.waiting.iter().position(|one| self.is_open && self.has_room(one.class)) {
            let one = self.waiting.remove(next);
            // A test that was given up while it waited takes no slot.
            if one.begin.send(()).is_ok() {
                self.count(one.class, true);
            }
        }
    }

    fn has_room(&self, class: Class) -> bool {
        if class == Class::Outage {
            return self.others == 0;
        }
        // Outages come first, so that they cannot be held up for ever.
        let outage_waits = self.waiting.iter().any(|one| one.class == Class::Outage);
        self.outages == 0 && !outage_waits && (self.taken == 0 || self.taken + class.slots() <= slots())
    }

    const fn count(&mut self, class: Class, begins: bool) {
        let running = match class {
            Class::Outage => &mut self.outages,
            _ => &mut self.others,
        };
        if begins {
            *running += 1;
            self.taken += class.slots();
        } else {
            *running -= 1;
            self.taken -= class.slots();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(one: &mut oneshot::Receiver<()>) -> bool {
        one.try_recv().is_ok()
    }

    #[test]
    fn the_order_of_arrival_does_not_decide_which_class_is_first() {
        let mut schedule = Schedule::default();
        let (mut usual, mut outage) = (schedule.wait(Class::Usual), schedule.wait(Class::Outage));
        assert!(!begun(&mut usual) && !begun(&mut outage));
        schedule.open();
        assert!(!begun(&mut usual) && begun(&mut outage));
    }

    #[test]
    fn outages_run_together_and_before_all_others() {
        let mut schedule = Schedule { is_open: true, ..Schedule::default() };
        let (mut first, mut second) = (schedule.wait(Class::Outage), schedule.wait(Class::Outage));
        let mut usual = schedule.wait(Class::Usual);
        assert!(begun(&mut first) && begun(&mut second) && !begun(&mut usual));
        schedule.leave(Class::Outage);
        assert!(!begun(&mut usual));
        schedule.leave(Class::Outage);
        assert!(begun(&mut usual));
    }

    #[test]
    fn an_outage_waits_for_those_that_run_and_holds_up_those_that_wait() {
        let mut schedule = Schedule { is_open: true, ..Schedule::default() };
        let mut usual = schedule.wait(Class::Usual);
        let (mut outage, mut late) = (schedule.wait(Class::Outage), schedule.wait(Class::Usual));
        assert!(begun(&mut usual) && !begun(&mut outage) && !begun(&mut late));
        schedule.leave(Class::Usual);
        assert!(begun(&mut outage) && !begun(&mut late));
        schedule.leave(Class::Outage);
        assert!(begun(&mut late));
    }

    #[test]
    fn no_more_slots_are_taken_than_there_are() {
        let mut schedule = Schedule { is_open: true, ..Schedule::default() };
        let mut all: Vec<_> = (0..2 * slots()).map(|_| schedule.wait(Class::Heavy)).collect();
        let running = all.iter_mut().filter_map(|one| one.try_recv().ok()).count();
        assert!(running == (slots() / Class::Heavy.slots()).max(1));
    }

    #[test]
    fn a_small_test_goes_before_a_large_one_that_does_not_fit() {
        let mut schedule = Schedule { is_open: true, ..Schedule::default() };
        let mut all: Vec<_> =
            (0..=slots() / Class::Heavy.slots()).map(|_| schedule.wait(Class::Heavy)).collect();
        let mut usual = schedule.wait(Class::Usual);
        let fits = !slots().is_multiple_of(Class::Heavy.slots());
        assert!(begun(&mut usual) == fits && !begun(all.last_mut().unwrap()));
        schedule.leave(Class::Heavy);
        assert!(begun(all.last_mut().unwrap()));
    }

    #[test]
    fn a_test_that_was_given_up_takes_no_slot() {
        let mut schedule = Schedule { is_open: true, ..Schedule::default() };
        let _running = schedule.wait(Class::Outage);
        drop(schedule.wait(Class::Usual));
        let mut usual = schedule.wait(Class::Usual);
        schedule.leave(Class::Outage);
        assert!(begun(&mut usual) && schedule.others == 1);
    }
}
