//! What all journals of a proxy share: bytes of memory and bytes of disk.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Incidents, Seals};

/// A number of bytes that are shared out.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// The budgets of one proxy.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Memory of journals and of what is read ahead.
    pub memory: Arc<Budget>,
    /// Disk of spools.
    pub disk: Arc<Budget>,
    /// Directory of spools; without one nothing is spooled.
    pub dir: Option<Arc<PathBuf>>,
    /// Seals what lies there; without it nothing is sealed.
    pub seals: Option<Arc<Seals>>,
    /// What goes wrong there.
    pub incidents: Incidents,
}

impl Budgets {
    /// No bytes of anything.
    #[must_use]
    pub fn none() -> Self {
        Self {
            memory: Budget::new(0),
            disk: Budget::new(0),
            dir: None,
            seals: None,
            incidents: Incidents::default(),
        }
    }
}

/// How many times as much as is free one holder may have: alone two thirds of all.
const FACTOR: u64 = 2;

/// What one holder has of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: Arc<Budget>,
    held: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Bytes in use. May exceed the limit by what was taken without asking.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether more than half is in use.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.used() > self.limit / 2
    }
}

impl BudgetShare {
    pub(crate) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), held: 0 }
    }

    /// Whether so many bytes more were to be had; they are held then. No holder takes more than [`FACTOR`] times what it
    /// leaves free for all others: whatever some take, there is room for one that holds little (Choudhury and Hahne,
    /// "Dynamic queue length thresholds for shared-memory packet switches").
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let Some(held) = self.held.checked_add(bytes) else { return false };
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let used = used.checked_add(bytes)?;
            let free = self.budget.limit.checked_sub(used)?;
            (held <= free.saturating_mul(FACTOR)).then_some(used)
        });
        self.held += if taken.is_ok() { bytes } else { 0 };
        taken.is_ok()
    }

    /// Whether [`grow`](Self::grow) would give so many bytes more; a quarter of all is enough of a small budget.
    #[must_use]
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let bytes = bytes.min(self.budget.limit / 4);
        let free = self.budget.limit.saturating_sub(self.budget.used().saturating_add(bytes));
        self.held.saturating_add(bytes) <= free.saturating_mul(FACTOR)
    }

    /// Holds so many bytes more, whatever the limit: the caller has one of its own.
    pub(crate) fn grow_anyway(&mut self, bytes: u64) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.held += bytes;
    }

    /// Gives bytes back.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_short(&self) -> bool {
        self.budget.is_short()
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.shrink(self.held);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (BudgetShare::of(&budget), BudgetShare::of(&budget));
        assert!(one.grow(6));
        assert!(!one.grow(1), "half as much has to be left for others");
        assert!(!two.grow(3));
        assert!(two.grow(2));
        two.grow_anyway(4);
        assert_eq!(budget.used(), 12);
        one.shrink(100);
        assert_eq!(budget.used(), 6);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    proptest! {
        #[test]
        fn whatever_floods_take_one_that_holds_little_finds_room(
            steps in prop::collection::vec((0..6_usize, 1..4096_u64, any::<bool>()), 0..400),
        ) {
            let budget = Budget::new(1 << 20);
            let mut floods: Vec<BudgetShare> = (0..6).map(|_| BudgetShare::of(&budget)).collect();
            for (who, bytes, gives_back) in steps {
                let flood = &mut floods[who];
                if gives_back {
                    flood.shrink(bytes);
                } else {
                    while flood.grow(bytes) {}
                }
                prop_assert!(budget.used() <= 1 << 20);
                prop_assert!(floods.iter().all(|flood| flood.held <= (2 << 20) / 3));
                // Six floods, each of which leaves a third of what it finds.
                let mut quiet = BudgetShare::of(&budget);
                prop_assert!(quiet.grow((1 << 20) >> 11), "{} are in use", budget.used());
            }
        }

        #[test]
        fn one_alone_has_two_thirds_and_two_that_grow_together_two_fifths_each(step in 1..2048_u64) {
            let budget = Budget::new(1 << 20);
            let (mut one, mut two) = (BudgetShare::of(&budget), BudgetShare::of(&budget));
            while one.grow(step) | two.grow(step) {}
            for held in [one.held, two.held] {
                prop_assert!(held.abs_diff((2 << 20) / 5) <= 2 * step, "{held}");
            }
            drop(two);
            while one.grow(step) {}
            prop_assert!(one.held.abs_diff((2 << 20) / 3) <= step);
        }
    }
}
