//! Grants under an index of their `src`, so that a request looks only at those that may mean its caller.
//!
//! The index is made at the first question and kept as long as the grants; a netmap is never changed, only replaced.
//! Invariant: it leaves out only grants whose `src` does not fit, which the tests prove against a plain loop.

use std::{
    collections::HashMap,
    ops::{Deref, Range},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};

use super::{Grant, select::Src};
use crate::identity::{Caller, User};

/// Grants, in any order. On the wire and in comparisons it is the list.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(from = "Vec<Grant>", into = "Vec<Grant>")]
pub struct Grants {
    list: Vec<Grant>,
    index: OnceLock<Index>,
}

/// A grant is known by its rank: its place in the order in which grants apply, default grants behind all others.
#[derive(Clone, Debug, Default)]
struct Index {
    /// From rank to place in the list.
    places: Vec<usize>,
    /// Rank of the first default grant.
    defaults: usize,
    everyone: Vec<usize>,
    users: HashMap<String, Vec<usize>>,
    groups: HashMap<String, Vec<usize>>,
    /// Service accounts by namespace: a glob of the name.
    accounts: HashMap<String, Vec<(String, usize)>>,
    /// The same where the namespace is a glob too.
    globs: Vec<(String, String, usize)>,
}

// === impl Grants ===

impl Grants {
    /// Grants that may mean `caller`, in order: those that are no default, then those that are.
    pub(super) fn meant(&self, caller: &Caller) -> [Vec<&Grant>; 2] {
        let index = self.index();
        let ranks = if caller.verified { index.meant(caller) } else { (0..index.places.len()).collect() };
        let (others, defaults) = ranks.split_at(ranks.partition_point(|rank| *rank < index.defaults));
        [others, defaults].map(|ranks| ranks.iter().filter_map(|rank| self.ranked(*rank)).collect())
    }

    /// All grants in order: those that are no default, then those that are.
    pub(super) fn in_order(&self) -> [Vec<&Grant>; 2] {
        let index = self.index();
        let of = |ranks: Range<usize>| ranks.filter_map(|rank| self.ranked(rank)).collect();
        [of(0..index.defaults), of(index.defaults..index.places.len())]
    }

    fn ranked(&self, rank: usize) -> Option<&Grant> {
        self.list.get(*self.index().places.get(rank)?)
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::of(&self.list))
    }
}

impl From<Vec<Grant>> for Grants {
    fn from(list: Vec<Grant>) -> Self {
        Self { list, index: OnceLock::new() }
    }
}

impl From<Grants> for Vec<Grant> {
    fn from(grants: Grants) -> Self {
        grants.list
    }
}

impl FromIterator<Grant> for Grants {
    fn from_iter<I: IntoIterator<Item = Grant>>(grants: I) -> Self {
        Vec::from_iter(grants).into()
    }
}

impl Deref for Grants {
    type Target = [Grant];

    fn deref(&self) -> &[Grant] {
        &self.list
    }
}

impl PartialEq for Grants {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for Grants {}

// === impl Index ===

impl Index {
    fn of(list: &[Grant]) -> Self {
        let mut order: Vec<(usize, &Grant)> = list.iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| {
            let key = |grant: &Grant| (grant.spec.default, -i64::from(grant.spec.priority));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        let mut index = Self {
            defaults: order.iter().filter(|(_, grant)| !grant.spec.default).count(),
            ..Self::default()
        };
        for (rank, (place, grant)) in order.into_iter().enumerate() {
            index.places.push(place);
            for src in &grant.spec.src {
                index.add(Src::read(src), rank);
            }
        }
        index
    }

    fn add(&mut self, src: Src<'_>, rank: usize) {
        match src {
            Src::Everyone => self.everyone.push(rank),
            Src::User(name) => self.users.entry(name.to_owned()).or_default().push(rank),
            Src::Group(name) => self.groups.entry(name.to_owned()).or_default().push(rank),
            Src::Account(namespace, name) if namespace.contains('*') => {
                self.globs.push((namespace.to_owned(), name.to_owned(), rank));
            }
            Src::Account(namespace, name) => {
                self.accounts.entry(namespace.to_owned()).or_default().push((name.to_owned(), rank));
            }
        }
    }

    /// Ranks of the grants that mean a caller, upwards and without repeats.
    fn meant(&self, caller: &Caller) -> Vec<usize> {
        let mut ranks = self.everyone.clone();
        self.find(&caller.authenticated, &mut ranks);
        if caller.effective != caller.authenticated {
            self.find(&caller.effective, &mut ranks);
        }
        ranks.sort_unstable();
        ranks.dedup();
        ranks
    }

    fn find(&self, user: &User, ranks: &mut Vec<usize>) {
        ranks.extend(self.users.get(&user.name).into_iter().flatten());
        ranks.extend(user.groups.iter().filter_map(|group| self.groups.get(group)).flatten());
        let Some((namespace, name)) = user.service_account() else { return };
        let here = self.accounts.get(namespace).into_iter().flatten();
        ranks.extend(here.filter(|(glob, _)| super::glob(glob, name)).map(|(_, rank)| rank));
        let anywhere = self.globs.iter().filter(|(in_namespace, glob, _)| {
            super::glob(in_namespace, namespace) && super::glob(glob, name)
        });
        ranks.extend(anywhere.map(|(_, _, rank)| rank));
    }
}

#[cfg(test)]
mod tests;
