//! What we write by netlink is what `nft` makes of the text below.

use std::time::Duration;

use podwitness_lab::Netns;
use podwitness_sidecar::kernel::rules::{MovedPort, Rules};
use serde_json::Value;

use crate::lab::{ENDPOINT, Lab, SERVICE, SERVICE_V6, rules};

const WANTED: &str = include_str!("listing.nft");

#[test]
#[ignore = "needs root and network namespaces"]
fn the_kernel_holds_exactly_the_rules_that_nft_would_make() {
    let lab = Lab::new();
    lab.install(&Rules { uid: 64321, ..rules() }, &[SERVICE, SERVICE_V6, ENDPOINT]);
    compare(&lab, &WANTED.replace("$TIMEOUT", ""));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_dead_man_adds_timeouts_and_nothing_else() {
    let lab = Lab::new();
    let rules = Rules { uid: 64321, dead_man: Some(Duration::from_secs(10)), ..rules() };
    lab.install(&rules, &[SERVICE, SERVICE_V6, ENDPOINT]);
    compare(&lab, &WANTED.replace("$TIMEOUT", "timeout 10s;"));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_port_that_is_held_by_another_program_is_led_on() {
    const BEFORE: &str = "@ports dnat ip6 to [::1]:15443\n\t}\n";
    const AFTER: &str = "@ports dnat ip6 to [::1]:15443
        oifname lo meta l4proto tcp tcp dport 15430 dnat to :40000
    }
    chain arrival {
        type nat hook prerouting priority -101;
        meta l4proto tcp tcp dport 15430 dnat to :40000
    }
";
    let lab = Lab::new();
    let moved = vec![MovedPort { from: 15430, to: 40000 }];
    lab.install(&Rules { uid: 64321, moved, ..rules() }, &[SERVICE, SERVICE_V6, ENDPOINT]);
    assert!(WANTED.contains(BEFORE));
    compare(&lab, &WANTED.replace("$TIMEOUT", "").replace(BEFORE, AFTER));
}

fn compare(lab: &Lab, wanted: &str) {
    let reference = Netns::new("reference");
    reference.ip("link add eth0 type veth peer name other");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), wanted).unwrap();
    reference.nft(&["-f", file.path().to_str().unwrap()]);
    let list = |netns: &Netns| {
        let text = netns.nft(&["-j", "list", "ruleset"]);
        without_handles(serde_json::from_str(&text).unwrap())
    };
    let (ours, theirs) = (list(&lab.pod), list(&reference));
    assert!(ours["nftables"].as_array().unwrap().len() > 20, "{ours}");
    assert_eq!(ours, theirs);
}

/// Handles are numbers in order of creation; how long an element still lives changes while one looks.
fn without_handles(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("handle");
            map.remove("expires");
            map.values_mut().for_each(|inner| *inner = without_handles(inner.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| *inner = without_handles(inner.take())),
        _ => {}
    }
    value
}
