use proptest::prelude::*;

use super::*;
use crate::store::meta::{Owner, Pod};

const MIB: u64 = 1 << 20;

fn owner(namespace: &str, pod: &str) -> ShareKey {
    let (cluster, namespace, pod) = ("c".into(), namespace.into(), pod.into());
    ShareKey::of(&Owner::Pod(Pod { cluster, namespace, pod, ..Pod::default() }))
}

fn space(dir: &tempfile::TempDir, limits: SpaceLimits) -> Space {
    let space = Space::new(dir.path(), limits);
    space.found(u64::MAX / 2);
    space
}

fn limited(limit: u64) -> SpaceLimits {
    SpaceLimits { size_limit: Some(limit), ..SpaceLimits::floor(128 * MIB) }
}

#[tokio::test(start_paused = true)]
async fn a_size_limit_refuses_before_the_kubelet_evicts() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpaceLimits { shares: false, ..limited(24 * MIB) };
    let space = space(&dir, limits);
    assert_eq!(space.state(), Taking::Accepting);
    let mut written = 0;
    while space.charge(&owner("shop", "till"), MIB).is_ok() {
        written += MIB;
    }
    assert_eq!(space.state(), Taking::Refusing);
    assert_eq!(written, 22 * MIB, "an eighth stays free, but for the last write");
    assert!(matches!(space.check(), Err(StoreError::Full { floor }) if floor == 3 * MIB));
}

#[tokio::test(start_paused = true)]
async fn what_lies_there_counts_against_the_limit_and_what_goes_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("quarantine")).unwrap();
    std::fs::write(dir.path().join("quarantine/x"), vec![1; 22 << 20]).unwrap();
    let space = space(&dir, limited(24 * MIB));
    space.measure_when_due();
    assert_eq!(space.state(), Taking::Refusing);
    assert!(space.report().stored >= 22 * MIB);
    std::fs::remove_file(dir.path().join("quarantine/x")).unwrap();
    space.measure_when_due();
    assert_eq!(space.state(), Taking::Refusing, "it is not due yet");
    space.freed();
    space.measure_when_due();
    assert_eq!(space.state(), Taking::Accepting);
}

#[tokio::test(start_paused = true)]
async fn what_the_kubelet_wants_free_is_none_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SpaceLimits { eviction_percent: 10, ..SpaceLimits::floor(MIB) };
    let space = space(&dir, limits);
    let at = |free: u64| {
        space.found(free);
        space.state()
    };
    // `found` is of a file system of a TiB.
    let reserved = (1_u64 << 40).div_ceil(10);
    assert_eq!(at(reserved + 3 * MIB), Taking::Accepting);
    assert_eq!(at(reserved + 2 * MIB - 1), Taking::Degraded);
    assert_eq!(at(reserved + MIB - 1), Taking::Refusing);
}

#[tokio::test(start_paused = true)]
async fn inodes_run_short_like_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new(dir.path(), SpaceLimits { eviction_percent: 10, ..SpaceLimits::floor(0) });
    let at = |inodes_free: u64| {
        space.found(u64::MAX / 2);
        space.lock().found.inodes = 1000;
        space.lock().found.inodes_free = inodes_free;
        space.state()
    };
    assert_eq!(at(100), Taking::Accepting);
    assert_eq!(at(55), Taking::Refusing);
}

#[tokio::test(start_paused = true)]
async fn a_state_ends_only_when_there_is_clearly_more() {
    let dir = tempfile::tempdir().unwrap();
    let space = space(&dir, SpaceLimits::floor(800));
    let at = |free: u64| {
        space.found(free);
        space.state()
    };
    assert_eq!(at(1600), Taking::Accepting);
    assert_eq!(at(1599), Taking::Degraded);
    assert_eq!(at(1699), Taking::Degraded);
    assert_eq!(at(799), Taking::Refusing);
    assert_eq!(at(899), Taking::Refusing);
    assert_eq!(at(900), Taking::Degraded);
    assert_eq!(at(1700), Taking::Accepting);
}

#[tokio::test(start_paused = true)]
async fn one_that_sends_without_end_is_refused_and_the_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let space = space(&dir, limited(32 * MIB));
    let (flood, beside, other) = (owner("shop", "till"), owner("shop", "desk"), owner("bank", "vault"));
    let mut refused = None;
    for _ in 0..1000 {
        refused = space.charge(&flood, 64 << 10).err().or(refused);
    }
    let Some(StoreError::Share { owner, used }) = refused else { panic!("{refused:?}") };
    assert_eq!(owner, "pod shop/till");
    assert!(used > 18 * MIB && used < 20 * MIB, "{used}");
    assert_eq!((space.state(), space.report().above_share), (Taking::Limiting, 1));
    assert!(space.admits(&flood).is_err());
    for one in [&beside, &other] {
        space.admits(one).unwrap();
        space.begin(one).unwrap();
        space.charge(one, MIB).unwrap();
    }
    assert_eq!(space.state(), Taking::Limiting);
}

#[tokio::test(start_paused = true)]
async fn what_failed_or_became_smaller_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let space = space(&dir, limited(32 * MIB));
    let owner = owner("shop", "till");
    let before = space.report();
    space.charge(&owner, MIB).unwrap();
    assert_eq!(space.report().left, before.left - MIB);
    space.refund(&owner, MIB);
    assert_eq!(space.report(), before);
    space.charge(&owner, MIB).unwrap();
    space.settle_events(&owner, MIB, 1000);
    assert_eq!(space.report().stored, before.stored + 1000);
    assert_eq!(space.lock().shares.used(&owner), (1000, 1000));
}

proptest! {
    #[test]
    fn whatever_is_written_a_limit_is_never_passed(
        limit in 1..64_u64,
        shares in any::<bool>(),
        writes in prop::collection::vec((0..3_u8, 0..(4 * MIB)), 1..200),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = SpaceLimits { shares, ..limited(limit * MIB) };
        let space = space(&dir, limits);
        let mut written = 0;
        for (one, bytes) in writes {
            if space.charge(&owner("shop", &one.to_string()), bytes).is_ok() {
                written += bytes;
            }
        }
        prop_assert!(written <= limit * MIB);
        // With shares there is always room for somebody else.
        prop_assert!(!shares || space.admits(&owner("bank", "vault")).is_ok());
    }
}
