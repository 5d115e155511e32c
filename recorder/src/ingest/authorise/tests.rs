use std::sync::Mutex;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use podwitness_core::{
    assertion::{Claims, sign},
    inject::Inject,
};
use podwitness_tunnel::{PrivateKey, address};

use super::*;

const NOW: i64 = 10_000;

/// A tunnel with one peer, and the issuer that may speak for it.
struct Lab {
    key: PublicKey,
    admitted: Mutex<Option<Duration>>,
    issuer: Issuer,
    pkcs8: Vec<u8>,
}

impl Gatekeeper for Lab {
    fn peer(&self, from: Ipv6Addr) -> Option<TunnelPeer> {
        let admitted = self.admitted.lock().unwrap().is_some();
        (from == address(&self.key)).then_some(TunnelPeer { key: self.key, admitted })
    }

    fn admit(&self, key: &PublicKey, life: Duration) -> bool {
        *self.admitted.lock().unwrap() = Some(life);
        *key == self.key
    }
}

impl Lab {
    fn new() -> Arc<Self> {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public_key = STANDARD.encode(pair.public_key().as_ref());
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec();
        Arc::new(Self {
            key: new_key(),
            admitted: Mutex::default(),
            issuer: Issuer { id: "k".into(), cluster: "c".into(), public_key },
            pkcs8,
        })
    }

    fn claims(&self) -> Claims {
        Claims {
            cluster: "c".into(),
            namespace: "shop".into(),
            pod: "till".into(),
            pod_uid: "u".into(),
            node: "n".into(),
            service_account: "default".into(),
            key: self.key.to_string(),
            mode: Some(Inject::Required),
            iat: NOW,
            exp: NOW + 600,
        }
    }

    fn sign(&self, claims: &Claims) -> HeaderMap {
        headers(&[&sign(claims, "k", &self.pkcs8).unwrap()])
    }

    fn from(&self) -> IpAddr {
        address(&self.key).into()
    }

    fn owner(self: &Arc<Self>, from: IpAddr, headers: &HeaderMap) -> Result<Owner, Refused> {
        self.door().owner(from, headers, std::slice::from_ref(&self.issuer), NOW)
    }

    fn may_ask(self: &Arc<Self>, headers: &HeaderMap) -> Result<(), Refused> {
        self.door().may_ask(self.from(), headers, std::slice::from_ref(&self.issuer), NOW)
    }

    fn door(self: &Arc<Self>) -> Door {
        Door::Tunnel(Arc::clone(self) as Arc<dyn Gatekeeper>)
    }
}

fn new_key() -> PublicKey {
    PrivateKey::generate().unwrap().public()
}

fn headers(assertions: &[&str]) -> HeaderMap {
    assertions.iter().map(|text| (assertion::HEADER.parse().unwrap(), text.parse().unwrap())).collect()
}

#[test]
fn the_holder_of_the_asserted_key_is_admitted_for_the_assertions_life() {
    let lab = Lab::new();
    assert!(!lab.door().admits(lab.from()));
    let owner = lab.owner(lab.from(), &lab.sign(&lab.claims())).unwrap();
    let Owner::Pod(pod) = owner else { panic!("{owner:?}") };
    assert_eq!((&*pod.pod, &*pod.uid, &*pod.cluster), ("till", "u", "c"));
    assert_eq!(pod.mode, Some(Inject::Required), "how binding injection is there is kept with the session");
    assert_eq!(*lab.admitted.lock().unwrap(), Some(Duration::from_secs(600)));
    assert!(lab.door().admits(lab.from()));
}

#[test]
fn everyone_else_is_refused_and_admits_nobody() {
    let lab = Lab::new();
    let valid = sign(&lab.claims(), "k", &lab.pkcs8).unwrap();
    let with = |change: fn(&mut Claims)| {
        let mut claims = lab.claims();
        change(&mut claims);
        lab.sign(&claims)
    };
    let forged = sign(&lab.claims(), "k", &Lab::new().pkcs8).unwrap();
    let unknown = sign(&lab.claims(), "another", &Lab::new().pkcs8).unwrap();
    let mut tampered = valid.clone();
    let other = if tampered.remove(40) == 'A' { 'B' } else { 'A' };
    tampered.insert(40, other);
    let table = [
        ("none", headers(&[]), "no_assertion"),
        ("two", headers(&[&valid, &valid]), "bad_assertion"),
        ("garbage", headers(&["a.b.c"]), "bad_assertion"),
        ("huge", headers(&[&"x".repeat(5000)]), "bad_assertion"),
        ("of another issuer", headers(&[&forged]), "bad_assertion"),
        ("of an issuer that nobody knows", headers(&[&unknown]), "unknown_issuer"),
        ("tampered with", headers(&[&tampered]), "bad_assertion"),
        ("expired", with(|claims| (claims.iat, claims.exp) = (NOW - 600, NOW)), "bad_assertion"),
        ("not yet valid", with(|claims| (claims.iat, claims.exp) = (NOW + 120, NOW + 600)), "bad_assertion"),
        ("too long", with(|claims| claims.exp = NOW + 7200), "bad_assertion"),
        ("for another cluster", with(|claims| claims.cluster = "d".into()), "bad_assertion"),
        ("for another key", with(|claims| claims.key = new_key().to_string()), "other_key"),
        ("for no key", with(|claims| claims.key = "key".into()), "other_key"),
    ];
    for (name, headers, reason) in table {
        assert_eq!(lab.owner(lab.from(), &headers).unwrap_err().reason(), reason, "{name}");
        assert_eq!(*lab.admitted.lock().unwrap(), None, "{name}");
    }
}

#[test]
fn a_valid_assertion_is_worth_nothing_from_another_address() {
    let lab = Lab::new();
    let valid = lab.sign(&lab.claims());
    for from in [address(&new_key()).into(), "10.0.0.1".parse().unwrap(), "::1".parse().unwrap()] {
        assert_eq!(lab.owner(from, &valid).unwrap_err().reason(), "no_peer", "{from}");
    }
    assert_eq!(*lab.admitted.lock().unwrap(), None);
}

#[test]
fn an_admitted_peer_may_ask_without_assertion_but_not_upload() {
    let lab = Lab::new();
    assert!(lab.may_ask(&headers(&[])).is_err());
    assert!(lab.may_ask(&lab.sign(&lab.claims())).is_ok());
    assert!(lab.may_ask(&headers(&[])).is_ok());
    assert_eq!(lab.owner(lab.from(), &headers(&[])).unwrap_err().reason(), "no_assertion");
}

#[test]
fn asking_with_a_renewed_assertion_prolongs_the_stay() {
    let lab = Lab::new();
    lab.may_ask(&lab.sign(&lab.claims())).unwrap();
    lab.may_ask(&lab.sign(&Claims { exp: NOW + 3000, ..lab.claims() })).unwrap();
    assert_eq!(*lab.admitted.lock().unwrap(), Some(Duration::from_secs(3000)));
    assert!(lab.may_ask(&headers(&["a.b.c"])).is_err());
}

#[test]
fn the_plain_door_believes_nobody() {
    let lab = Lab::new();
    let from = "::ffff:10.0.0.1".parse().unwrap();
    let owner = Door::Plain.owner(from, &lab.sign(&lab.claims()), &[], NOW).unwrap();
    assert_eq!(owner, Owner::Unverified { address: "10.0.0.1".parse().unwrap() });
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_fill_the_log() {
    let told = Told::default();
    assert!(told.is_due() && !told.is_due());
    tokio::time::advance(TELL_AGAIN).await;
    assert!(told.is_due() && !told.is_due());
}
