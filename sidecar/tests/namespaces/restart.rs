//! What a restart, a dead sidecar and other people's tables mean for the rules.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use podwitness_sidecar::kernel::rules::{Refreshed, Rules};

use crate::lab::{
    ENDPOINT, GATEWAY, LISTENER, Lab, Landed, MARK, SERVICE, SERVICE_V6, at_sidecar, eventually, listen,
    rules, targets,
};

const ALL: [&str; 3] = [SERVICE, SERVICE_V6, ENDPOINT];

#[test]
#[ignore = "needs root and network namespaces"]
fn a_restart_replaces_the_rules_and_takes_the_exemption_from_the_old_mark() {
    let lab = Lab::new();
    lab.install(&rules(), &ALL);
    let once = lab.pod.nft(&["list", "table", "inet", "podwitness"]);
    lab.install(&rules(), &ALL);
    assert_eq!(lab.pod.nft(&["list", "table", "inet", "podwitness"]), once);
    let (mark, listener) = (MARK + 1, LISTENER + 1);
    lab.listen(listener, mark);
    lab.install(&Rules { mark, listener, ..rules() }, &ALL);
    assert_eq!(lab.lands(SERVICE, Some(MARK)), at_sidecar(SERVICE));
    assert_eq!(lab.lands(SERVICE, Some(MARK + 1)), Landed::World);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_program_that_binds_the_port_of_a_dead_sidecar_is_given_no_connection() {
    let lab = Lab::wired();
    lab.install(&rules(), &ALL);
    let addresses = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), LISTENER));
    for (mark, expected) in [(0, false), (MARK + 1, false), (MARK, true)] {
        let sockets = addresses.map(|address| lab.pod.run(|| listen(address, mark)));
        for to in ALL.iter().map(|to| to.parse().unwrap()).chain(addresses) {
            let limit = Duration::from_millis(if expected { 10_000 } else { 400 });
            let connected = lab.pod.run(|| TcpStream::connect_timeout(&to, limit));
            assert_eq!(connected.is_ok(), expected, "{to}, mark {mark}: {connected:?}");
        }
        drop(sockets);
    }
    // Another port is theirs.
    let other = lab.pod.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    lab.pod.run(|| TcpStream::connect(other.local_addr().unwrap())).unwrap();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_restart_redirects_to_its_own_port_only() {
    let lab = Lab::new();
    lab.install(&Rules { listener: LISTENER + 1, ..rules() }, &ALL);
    assert!(lab.connect(SERVICE, None).is_err());
    lab.install(&rules(), &ALL);
    for address in ALL {
        assert_eq!(lab.lands(address, None), at_sidecar(address));
    }
    let rules = lab.pod.nft(&["list", "table", "inet", "podwitness"]);
    assert!(!rules.contains(&(LISTENER + 1).to_string()), "{rules}");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn tables_of_others_stay_as_they_are() {
    let lab = Lab::new();
    lab.pod.nft(&["add table inet theirs; add chain inet theirs c { type nat hook output priority -101; }"]);
    lab.pod.nft(&[
        "add table netdev theirs; add table ip podwitness; add set ip podwitness api4 { type ipv4_addr; }",
    ]);
    let theirs = || lab.pod.nft(&["list", "ruleset"]).matches("theirs").count();
    let namesake = || lab.pod.nft(&["list", "table", "ip", "podwitness"]);
    let before = (theirs(), namesake());
    lab.install(&rules(), &ALL);
    lab.rules(|socket| rules().refresh(socket, &targets(&ALL)).unwrap());
    assert_eq!((theirs(), namesake()), before);
    lab.rules(|socket| Rules::remove(socket).unwrap());
    assert_eq!((theirs(), namesake()), before);
    assert_eq!(lab.lands(SERVICE, None), Landed::World);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn without_renewal_a_dead_mans_redirect_opens() {
    let lab = Lab::new();
    let rules = Rules { dead_man: Some(Duration::from_secs(3)), ..rules() };
    lab.install(&rules, &ALL);
    assert_eq!(lab.lands(SERVICE, None), at_sidecar(SERVICE));
    for address in [SERVICE, SERVICE_V6, ENDPOINT, GATEWAY] {
        eventually(address, || lab.lands(address, None) == Landed::World);
    }
    lab.rules(|socket| rules.refresh(socket, &targets(&ALL)).unwrap());
    assert_eq!(lab.lands(SERVICE, None), at_sidecar(SERVICE));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn renewal_gives_every_element_its_whole_life_again() {
    let lab = Lab::new();
    let rules = Rules { dead_man: Some(Duration::from_secs(100)), ..rules() };
    lab.install(&rules, &ALL);
    let oldest = || {
        let listed = lab.pod.nft(&["-j", "list", "set", "inet", "podwitness", "api4"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let elements = listed["nftables"][1]["set"]["elem"].as_array().unwrap().clone();
        elements.iter().map(|element| element["elem"]["expires"].as_u64().unwrap()).min().unwrap()
    };
    eventually("an element ages", || oldest() <= 98);
    lab.rules(|socket| rules.refresh(socket, &targets(&ALL)).unwrap());
    assert!(oldest() >= 99);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn rules_that_someone_flushed_come_back_with_the_next_renewal() {
    let lab = Lab::new();
    lab.install(&rules(), &ALL);
    lab.pod.nft(&["flush", "ruleset"]);
    assert_eq!(lab.lands(SERVICE, None), Landed::World);
    let refresh = || lab.rules(|socket| rules().refresh(socket, &targets(&ALL)).unwrap());
    assert_eq!(refresh(), Refreshed::PutBack);
    assert_eq!(lab.lands(SERVICE, None), at_sidecar(SERVICE));
    assert_eq!(refresh(), Refreshed::Renewed);
}
