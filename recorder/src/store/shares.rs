//! Who has how much of the volume, and who gets no more of it.
//!
//! A share is measured by what is still free, not by the whole (the dynamic thresholds of Choudhury and Hahne, IEEE/ACM
//! Transactions on Networking 6(2), 1998): a pod may have [`POD`] times as much as is free then, a namespace
//! [`NAMESPACE`] times. So a pod that sends without end has two thirds of the volume at most, and a namespace four fifths,
//! whatever the others do; of several that send without end each has as much as the next; and of two owners the one that
//! has more is refused first.
//!
//! Invariant: a table has a bounded number of owners. Where there are more, those with the least are forgotten and count
//! from zero when they write again, which errs by less than what the smallest that is known has.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{layout, meta::Owner, usage::Usage};

/// A pod may have so many times what is free.
const POD: u64 = 2;
/// The same of all pods of a namespace.
const NAMESPACE: u64 = 4;
/// How often is said that an owner is refused.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Owners that are known at a time, of each kind.
pub(super) const KNOWN: usize = 16 << 10;

/// Whose share something is: a pod, by its cluster, namespace and name, and its namespace. On the plain listener an
/// address is taken for a pod, and all addresses together for a namespace.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ShareKey {
    namespace: Arc<str>,
    pod: Arc<str>,
}

/// Who is above its share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Exceeded {
    /// In words: `pod shop/till-0`, `namespace shop`.
    pub(super) owner: String,
    /// Bytes that it has.
    pub(super) used: u64,
    /// Whether people are to be told: it was not said for a while.
    pub(super) is_news: bool,
}

/// What all owners have.
#[derive(Debug)]
pub(super) struct Shares {
    namespaces: Table,
    pods: Table,
}

#[derive(Debug)]
struct Table {
    weight: u64,
    most: usize,
    of: HashMap<Arc<str>, Stored>,
}

/// What one owner has, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Stored {
    /// By the last measurement.
    measured: u64,
    /// Written since that began.
    since: u64,
    /// Written since the one began that is under way.
    during: u64,
    /// Written into files that owners share.
    events: u64,
    /// Whether it is refused, until it has clearly less than its share.
    above: bool,
    /// When that was last said.
    told: Option<Instant>,
}

impl ShareKey {
    /// The key of an owner.
    #[must_use]
    pub fn of(owner: &Owner) -> Self {
        Self::below(&layout::owner(owner)).unwrap_or_else(|| Self { namespace: "".into(), pod: "".into() })
    }

    /// The key of what lies in these directories below a day.
    pub(super) fn below(directories: &[String]) -> Option<Self> {
        let (_, namespace) = directories.split_last().filter(|(_, namespace)| !namespace.is_empty())?;
        Some(Self { namespace: namespace.join("/").into(), pod: directories.join("/").into() })
    }

    pub(super) const fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    pub(super) const fn pod(&self) -> &Arc<str> {
        &self.pod
    }
}

/// Whether an owner that has `used` may have `more` of what is `free`, where it may have `weight` times what is free then.
/// One that was refused has to come down to seven eighths of that.
const fn fits(used: u64, more: u64, free: u64, weight: u64, above: bool) -> bool {
    let Some(left) = free.checked_sub(more) else { return false };
    let most = left.saturating_mul(weight);
    used.saturating_add(more) <= if above { most / 8 * 7 } else { most }
}

impl Default for Shares {
    fn default() -> Self {
        Self::with(KNOWN)
    }
}

impl Shares {
    fn with(most: usize) -> Self {
        let table = |weight| Table { weight, most, of: HashMap::new() };
        Self { namespaces: table(NAMESPACE), pods: table(POD) }
    }

    /// Whether the owner may have so many bytes more of what is `free`.
    pub(super) fn check(&mut self, key: &ShareKey, more: u64, free: u64) -> Result<(), Exceeded> {
        let namespace = self.namespaces.check(&key.namespace, more, free);
        namespace.map_err(|(used, is_news)| exceeded("namespace", &key.namespace, used, is_news))?;
        let pod = self.pods.check(&key.pod, more, free);
        pod.map_err(|(used, is_news)| exceeded("pod", &key.pod, used, is_news))
    }

    /// The owner has written so many bytes.
    pub(super) fn add(&mut self, key: &ShareKey, bytes: u64) {
        self.each(key, |stored| {
            stored.since = stored.since.saturating_add(bytes);
            stored.during = stored.during.saturating_add(bytes);
        });
    }

    /// The same into a file that owners share.
    pub(super) fn add_events(&mut self, key: &ShareKey, bytes: u64) {
        self.each(key, |stored| stored.events = stored.events.saturating_add(bytes));
    }

    /// It has not, after all.
    pub(super) fn take_back(&mut self, key: &ShareKey, bytes: u64) {
        self.each(key, |stored| {
            stored.since = stored.since.saturating_sub(bytes);
            stored.during = stored.during.saturating_sub(bytes);
        });
    }

    fn each(&mut self, key: &ShareKey, change: impl Fn(&mut Stored)) {
        change(self.namespaces.entry(&key.namespace));
        change(self.pods.entry(&key.pod));
    }

    /// A measurement begins: what is written from now on may be in it or not.
    pub(super) fn measuring(&mut self) {
        self.tables().into_iter().flat_map(|table| table.of.values_mut()).for_each(|one| one.during = 0);
    }

    /// This was found.
    pub(super) fn measured(&mut self, usage: &Usage) {
        self.namespaces.measured(&usage.namespaces, usage.events);
        self.pods.measured(&usage.pods, usage.events);
    }

    /// How many owners are refused, now that so much is free.
    pub(super) fn above(&mut self, free: u64) -> usize {
        self.tables().into_iter().map(|table| table.settle(free)).fold(0, usize::saturating_add)
    }

    fn tables(&mut self) -> [&mut Table; 2] {
        [&mut self.namespaces, &mut self.pods]
    }

    #[cfg(test)]
    pub(super) fn used(&self, key: &ShareKey) -> (u64, u64) {
        let of = |table: &Table, name| table.of.get(name).map_or(0, Stored::used);
        (of(&self.namespaces, &*key.namespace), of(&self.pods, &*key.pod))
    }
}

fn exceeded(kind: &str, key: &str, used: u64, is_news: bool) -> Exceeded {
    // The cluster's id, which says nothing to people, stands first.
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    Exceeded { owner: format!("{kind} {name}"), used, is_news }
}

impl Table {
    fn check(&mut self, name: &Arc<str>, more: u64, free: u64) -> Result<(), (u64, bool)> {
        let Some(stored) = self.of.get_mut(name) else {
            return if fits(0, more, free, self.weight, false) { Ok(()) } else { Err((0, false)) };
        };
        stored.above = !fits(stored.used(), more, free, self.weight, stored.above);
        if !stored.above {
            return Ok(());
        }
        let is_news = stored.told.is_none_or(|at| at.elapsed() >= TELL_AGAIN);
        if is_news {
            stored.told = Some(Instant::now());
        }
        Err((stored.used(), is_news))
    }

    fn entry(&mut self, name: &Arc<str>) -> &mut Stored {
        if self.of.len() >= self.most && !self.of.contains_key(name) {
            forget_least(&mut self.of, self.most / 8 * 7, |stored| stored.used());
        }
        self.of.entry(Arc::clone(name)).or_default()
    }

    fn measured(&mut self, found: &HashMap<Arc<str>, u64>, events: u64) {
        let written: u64 = self.of.values().map(|stored| stored.events).fold(0, u64::saturating_add);
        for stored in self.of.values_mut() {
            stored.measured = 0;
            stored.since = stored.during;
            // Of files that owners share, and that are there no more, each had its part.
            if events < written {
                stored.events = proportion(stored.events, events, written);
            }
        }
        for (name, bytes) in found {
            self.entry(name).measured = *bytes;
        }
        self.of.retain(|_, stored| stored.used() > 0);
    }

    fn settle(&mut self, free: u64) -> usize {
        let weight = self.weight;
        let above = self.of.values_mut().filter(|stored| stored.above);
        above
            .map(|stored| {
                stored.above = !fits(stored.used(), 0, free, weight, true);
                usize::from(stored.above)
            })
            .fold(0, usize::saturating_add)
    }
}

impl Stored {
    const fn used(&self) -> u64 {
        self.measured.saturating_add(self.since).saturating_add(self.events)
    }
}

/// `number` × `part` / `whole`, rounded down; zero where the whole is nothing.
#[must_use]
pub fn proportion(number: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(number).saturating_mul(u128::from(part)).checked_div(u128::from(whole));
    scaled.and_then(|scaled| u64::try_from(scaled).ok()).unwrap_or_default()
}

/// Leaves at most `keep` entries: those with the most.
pub(super) fn forget_least<V>(of: &mut HashMap<Arc<str>, V>, keep: usize, size: impl Fn(&V) -> u64) {
    let Some(over) = of.len().checked_sub(keep).filter(|over| *over > 0) else { return };
    let mut sizes: Vec<u64> = of.values().map(&size).collect();
    let (_, limit, _) = sizes.select_nth_unstable(over.saturating_sub(1));
    let limit = *limit;
    let mut left = over;
    of.retain(|_, value| {
        let goes = left > 0 && size(value) <= limit;
        left = left.saturating_sub(usize::from(goes));
        !goes
    });
}

#[cfg(test)]
mod tests;
