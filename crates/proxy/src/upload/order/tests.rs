use std::collections::BTreeSet;

use podwitness_core::grant::{Opaque, RecorderChoice};

use super::*;

fn peer(name: &str, replica: u16, zone: Option<&str>) -> RecorderPeer {
    RecorderPeer {
        name: name.into(),
        replica: format!("{name}-{replica}"),
        tags: vec![format!("tag:{name}")],
        public_key: "k".into(),
        address: std::net::Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, replica),
        port: 80,
        endpoint: "10.0.0.9:51820".parse().unwrap(),
        ack: None,
        plaintext: None,
        zone: zone.map(ToOwned::to_owned),
    }
}

fn obligation(tags: &[&str]) -> Obligation {
    let choice = |tag: &&str| RecorderChoice { tag: (*tag).into(), enforced: false };
    Obligation {
        grants: vec![],
        recorders: tags.iter().map(choice).collect(),
        enforce: false,
        events: false,
        require_ack: None,
        lead: 1,
        mask_flags: vec![],
        opaque: Opaque::Refuse,
    }
}

/// Last numbers of the addresses, in their order.
fn order(obligation: &Obligation, netmap: &Netmap, pod: &str) -> Vec<u16> {
    let last = |address: SocketAddr| match address {
        SocketAddr::V6(address) => address.ip().segments()[7],
        SocketAddr::V4(_) => 0,
    };
    resolve(obligation, netmap, pod).into_iter().map(last).collect()
}

fn netmap(recorders: Vec<RecorderPeer>, zone: Option<&str>) -> Netmap {
    Netmap { recorders, zone: zone.map(ToOwned::to_owned), ..Netmap::default() }
}

#[test]
fn grants_come_before_zones_and_zones_before_names() {
    let of = |name: &str, replica, zone| {
        let tags = vec!["tag:a".into()];
        RecorderPeer { tags, ..peer(name, replica, zone) }
    };
    let far_tag = RecorderPeer { tags: vec!["tag:b".into()], ..peer("c", 5, Some("z1")) };
    let recorders = vec![
        of("a", 1, Some("z2")),
        of("b", 2, Some("z1")),
        of("c", 3, Some("z1")),
        of("d", 4, None),
        far_tag,
    ];
    let two = obligation(&["tag:a", "tag:b"]);
    assert_eq!(order(&two, &netmap(recorders.clone(), Some("z1")), "u"), [2, 3, 1, 4, 5]);
    assert_eq!(order(&two, &netmap(recorders.clone(), Some("z2")), "u"), [1, 2, 3, 4, 5]);
    // A zone that nobody knows is near to nothing.
    assert_eq!(order(&two, &netmap(recorders, None), "u"), [1, 2, 3, 4, 5]);
}

#[test]
fn replicas_are_spread_over_pods_and_each_pod_keeps_its_order() {
    let recorders: Vec<_> = (1..=3).map(|replica| peer("a", replica, Some("z1"))).collect();
    let netmap = netmap(recorders, Some("z1"));
    let mut firsts = [0_usize; 3];
    let mut orders = BTreeSet::new();
    for pod in 0..300 {
        let uid = format!("uid-{pod}");
        let found = order(&obligation(&["tag:a"]), &netmap, &uid);
        assert_eq!(found, order(&obligation(&["tag:a"]), &netmap, &uid));
        firsts[usize::from(found[0]) - 1] += 1;
        orders.insert(found);
    }
    assert!(firsts.iter().all(|pods| *pods > 60), "{firsts:?}");
    // The load of one that is gone is spread too.
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_recorder_outside_the_tunnel_is_asked_where_it_is() {
    let plain =
        RecorderPeer::in_plaintext("old".into(), vec!["tag:old".into()], "192.0.2.7:80".parse().unwrap());
    let found = resolve(&obligation(&["tag:old"]), &netmap(vec![plain], None), "u");
    assert_eq!(found, ["192.0.2.7:80".parse().unwrap()]);
}
