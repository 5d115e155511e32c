use std::time::Duration;

use super::*;

const LIMITS: QuotaLimits = QuotaLimits { total: 4, per_key: 3 };

fn quota() -> Quota {
    Quota::new(LIMITS, QuotaMetrics::default())
}

fn key(name: &str) -> QuotaKey {
    QuotaKey::Name(name.into())
}

/// A lease with one unit, and what tells that it was revoked.
fn one(quota: &Quota, name: &str) -> Result<(QuotaLease, CancellationToken), QuotaExceeded> {
    let revoked = CancellationToken::new();
    let lease = quota.open(key(name), revoked.clone());
    lease.take(1).map(|()| (lease, revoked))
}

async fn later() {
    tokio::time::advance(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_above_its_share_takes_it_from_what_it_has_left_idle_for_the_longest_time() {
    let quota = quota();
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(one(&quota, "a").unwrap());
        later().await;
    }
    leases[0].0.set_busy(true);
    later().await;
    leases[0].0.set_busy(false);
    let _fourth = one(&quota, "a").unwrap();
    let revoked: Vec<bool> = leases.iter().map(|(_, revoked)| revoked.is_cancelled()).collect();
    assert_eq!(revoked, [false, true, false], "the first was used since");
    assert_eq!(quota.used(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_of_a_cap_that_was_reached() {
    let quota = quota();
    let told = async || tokio::time::timeout(Duration::from_secs(1), quota.exhausted()).await.is_ok();
    let leases: Vec<_> = (0..3).map(|_| one(&quota, "a").unwrap().0).collect();
    assert!(!told().await, "there was room");
    let fourth = one(&quota, "a").unwrap();
    assert!(told().await, "one was revoked");
    assert!(!told().await, "once");
    leases.iter().chain([&fourth.0]).for_each(|lease| lease.set_busy(true));
    assert_eq!(one(&quota, "a").unwrap_err(), QuotaExceeded::PerKey);
    assert_eq!(one(&quota, "a").unwrap_err(), QuotaExceeded::PerKey);
    assert!(told().await, "one was refused");
    assert!(!told().await, "both times together");
    assert_eq!(leases[0].take(1), Err(QuotaExceeded::Revoked));
    assert!(!told().await, "its unit was given away before");
}

#[tokio::test(start_paused = true)]
async fn where_all_is_in_use_who_has_most_gives_way() {
    let quota = quota();
    let other = one(&quota, "b").unwrap();
    later().await;
    let greedy: Vec<_> = (0..3).map(|_| one(&quota, "a").unwrap()).collect();
    let _third = one(&quota, "c").unwrap();
    assert!(!other.1.is_cancelled(), "it is idle for the longest time, but has little");
    assert_eq!(greedy.iter().filter(|(_, revoked)| revoked.is_cancelled()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_of_use_goes_last() {
    let quota = quota();
    let useful: Vec<_> = (0..3).map(|_| one(&quota, "a").unwrap()).collect();
    useful.iter().for_each(|(lease, _)| lease.protect());
    later().await;
    let fresh = one(&quota, "b").unwrap();
    let _next = one(&quota, "c").unwrap();
    assert!(fresh.1.is_cancelled());
    assert!(useful.iter().all(|(_, revoked)| !revoked.is_cancelled()));
}

#[tokio::test(start_paused = true)]
async fn what_is_busy_is_not_revoked_and_the_newcomer_is_refused() {
    let metrics = QuotaMetrics::default();
    let quota = Quota::new(LIMITS, metrics.clone());
    let busy: Vec<_> = (0..3).map(|_| one(&quota, "a").unwrap()).collect();
    busy.iter().for_each(|(lease, _)| lease.set_busy(true));
    assert_eq!(one(&quota, "a").unwrap_err(), QuotaExceeded::PerKey);
    let last = one(&quota, "b").unwrap();
    last.0.set_busy(true);
    assert_eq!(one(&quota, "c").unwrap_err(), QuotaExceeded::Total);
    assert!(busy.iter().all(|(_, revoked)| !revoked.is_cancelled()));
    assert_eq!((metrics.refused_per_key.get(), metrics.refused_total.get()), (1, 1));
    drop(busy);
    assert!(one(&quota, "c").is_ok());
    assert_eq!((metrics.revoked.get(), metrics.used.get()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_met_revokes_nothing() {
    let quota = quota();
    let (idle, revoked) = one(&quota, "a").unwrap();
    let busy = quota.open(key("a"), CancellationToken::new());
    busy.take(2).unwrap();
    busy.set_busy(true);
    let more = quota.open(key("a"), CancellationToken::new());
    assert_eq!(more.take(2), Err(QuotaExceeded::PerKey));
    assert_eq!(idle.take(5), Err(QuotaExceeded::PerKey), "not even from itself");
    assert!(!revoked.is_cancelled());
    assert_eq!((idle.held(), busy.held(), more.held()), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_lease_takes_no_more() {
    let quota = quota();
    let (first, revoked) = one(&quota, "a").unwrap();
    assert!(quota.shed());
    assert!(revoked.is_cancelled() && !quota.shed());
    assert_eq!(first.take(1), Err(QuotaExceeded::Revoked));
    first.give(1);
    assert_eq!(quota.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_grows_and_shrinks() {
    let quota = quota();
    let lease = quota.open(key("a"), CancellationToken::new());
    for units in [2, 3, 3, 1, 0, 1] {
        lease.resize(units).unwrap();
        assert_eq!((lease.held(), quota.used()), (units, units));
    }
    assert_eq!(lease.resize(4), Err(QuotaExceeded::PerKey));
    assert_eq!((quota.free(&key("a")), quota.free(&key("b"))), (2, 3));
    drop(lease);
    assert_eq!(quota.free(&key("a")), 3);
}

#[test]
fn sources_are_told_apart_as_far_as_they_are_different() {
    let source = |text: &str| QuotaKey::source(text.parse().unwrap());
    assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    assert_eq!(source("127.0.0.1"), source("127.9.8.7"));
    assert_eq!(source("::1"), source("127.0.0.1"));
    assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    assert_ne!(source("fd00::1"), source("fd00::2"));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Open(u8),
        Take(usize, usize),
        Give(usize, usize),
        BusyGuard(usize, bool),
        Prove(usize),
        Close(usize),
        Shed,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..4_u8).prop_map(Act::Open),
            (0..16_usize, 0..6_usize).prop_map(|(at, units)| Act::Take(at, units)),
            (0..16_usize, 0..6_usize).prop_map(|(at, units)| Act::Give(at, units)),
            (0..16_usize, any::<bool>()).prop_map(|(at, busy)| Act::BusyGuard(at, busy)),
            (0..16_usize).prop_map(Act::Prove),
            (0..16_usize).prop_map(Act::Close),
            Just(Act::Shed),
        ]
    }

    proptest! {
        #[test]
        fn no_cap_is_ever_exceeded_and_busy_leases_keep_what_they_hold(acts in prop::collection::vec(act(), 0..200)) {
            let quota = Quota::new(QuotaLimits { total: 12, per_key: 7 }, QuotaMetrics::default());
            let mut leases: Vec<(QuotaLease, CancellationToken, bool)> = Vec::new();
            for act in acts {
                let before: Vec<(u64, usize)> = leases.iter().filter(|(.., busy)| *busy).map(|(lease, ..)| (lease.id, lease.held())).collect();
                let mut touched = None;
                match act {
                    Act::Open(name) => {
                        let revoked = CancellationToken::new();
                        leases.push((quota.open(key(&name.to_string()), revoked.clone()), revoked, false));
                    }
                    Act::Take(at, units) => if let Some((lease, revoked, _)) = leases.get(at) {
                        let (held, gone) = (lease.held(), revoked.is_cancelled());
                        let taken = lease.take(units);
                        prop_assert_eq!(lease.held(), if taken.is_ok() { held + units } else { held });
                        prop_assert_eq!(taken == Err(QuotaExceeded::Revoked), gone);
                        touched = Some(lease.id);
                    },
                    Act::Give(at, units) => if let Some((lease, ..)) = leases.get(at) {
                        lease.give(units);
                        touched = Some(lease.id);
                    },
                    Act::BusyGuard(at, busy) => if let Some(one) = leases.get_mut(at) {
                        one.0.set_busy(busy);
                        one.2 = busy;
                    },
                    Act::Prove(at) => if let Some((lease, ..)) = leases.get(at) { lease.protect() },
                    Act::Close(at) => if at < leases.len() {
                        touched = Some(leases[at].0.id);
                        drop(leases.remove(at));
                    },
                    Act::Shed => drop(quota.shed()),
                }
                for (id, held) in before.iter().filter(|(id, _)| Some(*id) != touched) {
                    let lease = leases.iter().find(|(lease, ..)| lease.id == *id).unwrap();
                    prop_assert_eq!(lease.0.held(), *held);
                    prop_assert!(!lease.1.is_cancelled() || *held == 0);
                }
                let table = quota.lock();
                table.check();
                prop_assert!(table.used() <= 12);
                for name in 0..4_u8 {
                    prop_assert!(table.used_by(&key(&name.to_string())) <= 7);
                }
            }
            drop(leases);
            prop_assert_eq!(quota.used(), 0);
        }
    }
}
