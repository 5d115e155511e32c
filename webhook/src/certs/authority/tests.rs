use super::*;
use crate::certs::{
    mint::{INTERMEDIATE_LIFE, LEAF_LIFE, ROOT_LIFE},
    testing::accepts,
};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
const HOST: &str = "svc.ns.svc";

fn names() -> Vec<String> {
    vec![HOST.to_owned()]
}

/// An authority whose next root is out, and the time at which it was made.
fn with_next() -> (Authority, i64) {
    let now = NOW + ROOT_LIFE * 2 / 3;
    let authority = Authority::found(NOW).unwrap().advance(now, false).unwrap();
    assert!(authority.has_next());
    (authority, now)
}

#[test]
fn nothing_changes_before_it_is_due() {
    let authority = Authority::found(NOW).unwrap();
    assert_eq!(authority.advance(NOW + DAY, true).unwrap(), authority);
    let chain = authority.issue(&names(), NOW).unwrap().cert;
    assert!(!authority.due(&chain, &names(), NOW + LEAF_LIFE / 2));
    assert!(authority.due(&chain, &names(), NOW + LEAF_LIFE * 2 / 3));
    assert!(authority.due(&chain, &["other".to_owned()], NOW));
    assert!(authority.due("", &names(), NOW));
}

#[test]
fn an_intermediate_is_replaced_under_the_same_root() {
    let before = Authority::found(NOW).unwrap();
    let then = NOW + INTERMEDIATE_LIFE * 2 / 3;
    let after = before.advance(then, false).unwrap();
    assert_eq!(after.bundle(), before.bundle());
    let (old, new) = (before.issue(&names(), then).unwrap(), after.issue(&names(), then).unwrap());
    assert!(after.due(&old.cert, &names(), then));
    accepts(&before.bundle(), &new.cert, HOST, then).unwrap();
    accepts(&after.bundle(), &old.cert, HOST, then).unwrap();
}

#[test]
fn a_new_root_is_trusted_before_it_signs() {
    let (authority, now) = with_next();
    let old_root = authority.root.cert.clone();
    assert!(authority.bundle().starts_with(&old_root) && authority.bundle().len() > old_root.len());
    let chain = authority.issue(&names(), now).unwrap().cert;
    accepts(&old_root, &chain, HOST, now).unwrap();

    assert!(authority.advance(now + TRUST_LEAD / 2, true).unwrap().has_next(), "too early");
    assert!(authority.advance(now + TRUST_LEAD * 9, false).unwrap().has_next(), "not published");
    let promoted = authority.advance(now + TRUST_LEAD, true).unwrap();
    assert!(!promoted.has_next());
    assert_ne!(promoted.root, authority.root);
    assert!(promoted.bundle().contains(&old_root), "live certificates still stand under the old root");
}

#[test]
fn who_knows_only_the_old_root_accepts_what_the_new_one_signs() {
    let (authority, now) = with_next();
    let now = now + TRUST_LEAD;
    let promoted = authority.advance(now, true).unwrap();
    let chain = promoted.issue(&names(), now).unwrap().cert;
    accepts(&authority.root.cert, &chain, HOST, now).unwrap();
    accepts(&promoted.root.cert, &chain, HOST, now).unwrap();
    accepts(&promoted.bundle(), &chain, HOST, now).unwrap();
}

#[test]
fn an_expired_root_is_forgotten_with_its_bridge() {
    let (authority, now) = with_next();
    let promoted = authority.advance(now + TRUST_LEAD, true).unwrap();
    let end = NOW + ROOT_LIFE + 1;
    let later = promoted.advance(end, true).unwrap();
    assert_eq!(later.bundle(), promoted.root.cert);
    assert!(later.due(&promoted.issue(&names(), end).unwrap().cert, &names(), end));
}

#[test]
fn what_is_stored_is_read_back() {
    let (authority, now) = with_next();
    for authority in
        [Authority::found(NOW).unwrap(), authority.clone(), authority.advance(now + DAY, true).unwrap()]
    {
        let entries = authority.entries();
        let back = Authority::from_entries(|name| entries.get(name).map(|text| (*text).to_owned()));
        assert_eq!(back, Ok(authority.clone()));
    }
    assert_eq!(Authority::from_entries(|_| None), Err("root.crt"));
}

#[test]
fn no_key_is_shown() {
    let authority = Authority::found(NOW).unwrap();
    assert!(!format!("{authority:?}").contains("PRIVATE KEY"));
}
