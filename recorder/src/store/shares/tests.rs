use proptest::prelude::*;

use super::*;
use crate::store::meta::Pod;

fn key(namespace: u8, pod: u8) -> ShareKey {
    ShareKey::of(&Owner::Pod(Pod {
        cluster: "c".into(),
        namespace: format!("n{namespace}"),
        pod: format!("p{pod}"),
        ..Pod::default()
    }))
}

/// A volume of so many bytes, and whatever is let onto it.
struct Volume {
    shares: Shares,
    free: u64,
}

impl Volume {
    fn of(bytes: u64) -> Self {
        Self { shares: Shares::default(), free: bytes }
    }

    fn write(&mut self, key: &ShareKey, bytes: u64) -> bool {
        let fits = self.shares.check(key, bytes, self.free).is_ok();
        if fits {
            self.shares.add(key, bytes);
            self.free -= bytes;
        }
        fits
    }

    /// As much as it gets, in pieces of so many bytes.
    fn flood(&mut self, key: &ShareKey, piece: u64) {
        while self.write(key, piece) {}
    }
}

#[test]
fn a_flood_ends_where_its_share_does_and_others_go_on() {
    let mut volume = Volume::of(900);
    volume.flood(&key(1, 1), 1);
    assert_eq!(volume.free, 300, "a pod has two thirds at most");
    assert!(volume.write(&key(1, 2), 10), "another pod of the namespace");
    volume.flood(&key(1, 2), 1);
    assert_eq!(volume.free, 180, "a namespace has four fifths at most");
    assert!(!volume.write(&key(1, 3), 1));
    assert!(volume.write(&key(2, 1), 100), "another namespace");
}

#[test]
fn an_owner_that_was_refused_comes_back_only_clearly_below_its_share() {
    let mut shares = Shares::default();
    shares.add(&key(1, 1), 600);
    let refused = shares.check(&key(1, 1), 1, 300).unwrap_err();
    assert_eq!(refused, Exceeded { owner: "pod n1/p1".into(), used: 600, is_news: true });
    assert!(!shares.check(&key(1, 1), 0, 310).unwrap_err().is_news);
    assert_eq!(shares.above(340), 1, "seven eighths of two times that are less");
    assert_eq!(shares.above(344), 0);
    assert!(shares.check(&key(1, 1), 1, 344).is_ok());
}

#[test]
fn what_is_measured_replaces_what_was_reckoned_but_not_what_came_meanwhile() {
    let mut shares = Shares::default();
    shares.add(&key(1, 1), 100);
    shares.measuring();
    shares.add(&key(1, 1), 7);
    let mut usage = Usage::default();
    usage.add(&key(1, 1), 80);
    usage.add(&key(2, 1), 5);
    shares.measured(&usage);
    assert_eq!((shares.used(&key(1, 1)), shares.used(&key(2, 1))), ((87, 87), (5, 5)));
    // It was removed.
    shares.measuring();
    shares.measured(&Usage::default());
    assert_eq!((shares.used(&key(1, 1)), shares.pods.of.len()), ((0, 0), 0));
}

#[test]
fn shared_files_that_leave_the_volume_are_given_back_in_proportion() {
    let mut shares = Shares::default();
    shares.add_events(&key(1, 1), 300);
    shares.add_events(&key(2, 1), 100);
    shares.measuring();
    shares.measured(&Usage { events: 200, ..Usage::default() });
    assert_eq!((shares.used(&key(1, 1)), shares.used(&key(2, 1))), ((150, 150), (50, 50)));
}

#[test]
fn an_address_is_a_pod_and_all_addresses_are_a_namespace() {
    let of = |address: &str| ShareKey::of(&Owner::Unverified { address: address.parse().unwrap() });
    let (one, other) = (of("10.0.0.1"), of("fd00::1"));
    assert_eq!(one.namespace(), other.namespace());
    assert_ne!(one.pod(), other.pod());
}

#[test]
fn of_more_owners_than_are_known_those_with_the_least_are_forgotten() {
    let mut shares = Shares::with(16);
    for pod in 0..200 {
        shares.add(&key(1, pod), 1 + u64::from(pod == 3) * 1000);
        assert!(shares.pods.of.len() <= 16);
    }
    assert_eq!(shares.used(&key(1, 3)).1, 1001);
    assert_eq!(shares.used(&key(1, 3)).0, 1200);
}

proptest! {
    #[test]
    fn of_two_owners_the_one_that_has_more_is_refused_first(
        (less, more) in (0..1_000_u64, 0..1_000_u64),
        piece in 0..500_u64,
        free in 0..2_000_u64,
        weight in 1..8_u64,
    ) {
        let (less, more) = (less.min(more), less.max(more));
        prop_assert!(!fits(more, piece, free, weight, false) || fits(less, piece, free, weight, false));
        prop_assert!(!fits(more, piece, free, weight, true) || fits(more, piece, free, weight, false));
    }

    #[test]
    fn whatever_one_namespace_writes_another_finds_a_fifth(
        size in 1_000..1_000_000_u64,
        writes in prop::collection::vec((0..20_u8, 1..5_000_u64), 1..400),
    ) {
        let mut volume = Volume::of(size);
        for (pod, piece) in writes {
            volume.write(&key(1, pod), piece);
        }
        prop_assert!(volume.free >= size / 5, "{} of {size}", volume.free);
        // It gets four fifths of what was left.
        prop_assert!(volume.write(&key(2, 1), volume.free / 2));
    }

    #[test]
    fn several_that_send_without_end_have_the_same(
        namespaces in 1..8_u8,
        piece in 1..50_u64,
    ) {
        let size = 100_000;
        let mut volume = Volume::of(size);
        let mut wrote = true;
        while wrote {
            wrote = false;
            for namespace in 0..namespaces {
                wrote |= volume.write(&key(namespace, 0), piece);
            }
        }
        let had: Vec<_> = (0..namespaces).map(|one| volume.shares.used(&key(one, 0)).0).collect();
        let (least, most) = (had.iter().min().unwrap(), had.iter().max().unwrap());
        prop_assert!(most - least <= piece * 2, "{had:?}");
        // A pod's part of what all others and the free rest have.
        let fair = size / (u64::from(namespaces) + 1);
        prop_assert!(*least + piece * 4 >= fair, "{had:?} of {fair}");
    }

    #[test]
    fn nothing_is_written_that_is_not_there(
        writes in prop::collection::vec((0..4_u8, 0..4_u8, 0..700_u64), 0..200),
    ) {
        let mut volume = Volume::of(1_000);
        for (namespace, pod, piece) in writes {
            volume.write(&key(namespace, pod), piece);
        }
        prop_assert!(volume.free <= 1_000);
    }
}
