use super::*;
use crate::certs::{ADMIT, Authority};

const NOW: i64 = 1_800_000_000;

fn entries(authority: &Authority) -> secret::Entries {
    let keyed = authority.issue(&["svc".to_owned()], NOW).unwrap();
    [("tls.crt", keyed.cert), ("tls.key", keyed.key), ("ca.crt", authority.bundle())]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text))
        .collect()
}

#[test]
fn what_the_secret_holds_is_served_with_its_roots_and_its_expiry() {
    let registry = SharedRegistry::new();
    let served = Served::new(ADMIT, &registry);
    let authority = Authority::found(NOW).unwrap();
    served.take(&entries(&authority)).unwrap();
    assert_eq!(served.roots().borrow().as_deref(), Some(authority.bundle().as_str()));
    assert_eq!(served.cert.current().unwrap().cert.len(), 2);
    let expiry = format!("podwitness_certificate_expiry_timestamp_seconds {}", NOW + mint::LEAF_LIFE);
    assert!(registry.encode().unwrap().contains(&expiry));
}

#[test]
fn a_secret_that_cannot_be_served_changes_nothing() {
    let served = Served::new(ADMIT, &SharedRegistry::new());
    let authority = Authority::found(NOW).unwrap();
    let good = entries(&authority);
    served.take(&good).unwrap();
    let before = served.cert.current().unwrap();
    let mut mixed = entries(&Authority::found(NOW).unwrap());
    mixed.insert("tls.key".to_owned(), good["tls.key"].clone());
    assert!(matches!(served.take(&mixed), Err(CertsError::Serve { .. })));
    let mut short = good.clone();
    short.remove("ca.crt");
    assert!(matches!(served.take(&short), Err(CertsError::Entry { entry: "ca.crt", .. })));
    assert!(Arc::ptr_eq(&before, &served.cert.current().unwrap()));
    assert_eq!(served.roots().borrow().as_deref(), Some(authority.bundle().as_str()));
}
