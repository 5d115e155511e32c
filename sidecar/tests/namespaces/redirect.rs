//! What is redirected, what is not, and whom nobody redirects.

use podwitness_sidecar::kernel::rules::{MovedPort, Rules};

use crate::lab::{
    ENDPOINT, GATEWAY, LISTENER, Lab, Landed, MARK, OTHER, SERVICE, SERVICE_V6, at_sidecar, rules, targets,
};

const ALL: [&str; 3] = [SERVICE, SERVICE_V6, ENDPOINT];

#[test]
#[ignore = "needs root and network namespaces"]
fn connections_to_the_api_server_land_at_the_sidecar_in_both_families() {
    let lab = Lab::new();
    assert_eq!(lab.lands(SERVICE, None), Landed::World);
    lab.install(&rules(), &ALL);
    for address in ALL {
        assert_eq!(lab.lands(address, None), at_sidecar(address));
    }
    assert_eq!(lab.lands(OTHER, None), Landed::World);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn any_address_on_the_api_servers_own_port_lands_at_the_sidecar() {
    let lab = Lab::new();
    lab.install(&rules(), &[SERVICE]);
    assert_eq!(lab.lands(GATEWAY, None), Landed::World);
    lab.install(&rules(), &[SERVICE, ENDPOINT]);
    assert_eq!(lab.lands(GATEWAY, None), at_sidecar(GATEWAY));
    assert_eq!(lab.lands(OTHER, None), Landed::World);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_port_that_is_held_lets_nothing_else_through_until_the_netmap_is_known() {
    let lab = Lab::new();
    let held = targets(&[SERVICE]).holding([443]);
    lab.rules(|socket| rules().install(socket, &held).unwrap());
    assert_eq!(lab.lands(SERVICE, None), at_sidecar(SERVICE));
    assert_eq!(lab.lands(OTHER, Some(MARK)), Landed::World);
    assert_eq!(lab.lands(GATEWAY, None), Landed::World, "other ports are left alone");
    assert!(lab.connect(OTHER, None).is_err());
    lab.rules(|socket| rules().refresh(socket, &targets(&[SERVICE])).unwrap());
    assert_eq!(lab.lands(OTHER, None), Landed::World);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn only_our_mark_under_our_uid_passes() {
    let lab = Lab::new();
    lab.install(&rules(), &ALL);
    for address in ALL {
        assert_eq!(lab.lands(address, Some(MARK)), Landed::World);
        assert_eq!(lab.lands(address, Some(MARK + 1)), at_sidecar(address));
    }
    let someone_else = Rules { uid: 64321, ..rules() };
    lab.install(&someone_else, &ALL);
    assert_eq!(lab.lands(SERVICE, Some(MARK)), at_sidecar(SERVICE));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_mesh_beside_us_neither_loops_nor_takes_the_api_servers_traffic() {
    let lab = Lab::new();
    // Everything on 443 goes to the mesh's own port, where nobody listens.
    lab.pod.nft(&["add table ip mesh; add chain ip mesh output { type nat hook output priority -100; }; \
         add rule ip mesh output tcp dport 443 redirect to :15001"]);
    assert!(lab.connect(SERVICE, Some(MARK)).is_err(), "the mesh takes what nobody protects");
    lab.install(&rules(), &ALL);
    assert_eq!(lab.lands(SERVICE, Some(MARK)), Landed::World);
    assert_eq!(lab.lands(SERVICE, None), at_sidecar(SERVICE));
    assert!(lab.connect(OTHER, None).is_err(), "what is the mesh's stays the mesh's");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn new_addresses_are_taken_over_and_old_ones_let_go() {
    let lab = Lab::new();
    lab.install(&rules(), &[SERVICE]);
    assert_eq!(lab.lands(ENDPOINT, None), Landed::World);
    lab.rules(|socket| rules().refresh(socket, &targets(&[ENDPOINT])).unwrap());
    assert_eq!(lab.lands(ENDPOINT, None), at_sidecar(ENDPOINT));
    assert_eq!(lab.lands(SERVICE, None), Landed::World);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn as_many_addresses_as_we_take_fit_one_transaction() {
    let lab = Lab::new();
    let many: Vec<String> = (0..256).map(|n| format!("[fd00:10:96::{n:x}]:{}", 7000 + n)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let moved = [1, 2].map(|number| MovedPort { from: number, to: number + 40000 }).to_vec();
    lab.install(&Rules { moved, ..rules() }, &many);
    lab.rules(|socket| rules().refresh(socket, &targets(&many)).unwrap());
    assert!(lab.pod.nft(&["list", "set", "inet", "podwitness", "api6"]).contains("fd00:10:96::ff . 7255"));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_connection_that_nobody_redirected_names_the_listener_itself() {
    let lab = Lab::new();
    lab.install(&rules(), &ALL);
    let own = format!("127.0.0.1:{LISTENER}");
    assert_eq!(lab.lands(&own, None), at_sidecar(&own));
}

#[test]
#[ignore = "needs root and network namespaces"]
fn frames_to_the_api_server_that_skip_the_output_hook_are_dropped() {
    let lab = Lab::new();
    // What is forwarded through the pod meets no output hook, like a frame from a raw socket.
    let side = podwitness_lab::Netns::new("side");
    lab.pod.ip(&format!("link add side type veth peer name eth0 netns {}", side.name));
    lab.pod.ip("addr add 10.245.0.1/24 dev side");
    lab.pod.ip("link set side up");
    side.ip("addr add 10.245.0.2/24 dev eth0");
    side.ip("link set eth0 up");
    side.ip("route add default via 10.245.0.1");
    lab.pod.sysctl("net.ipv4.ip_forward", "1");
    lab.world.ip("route add 10.245.0.0/24 via 10.244.0.5");
    lab.world
        .nft(&["add table ip count; add chain ip count in { type filter hook prerouting priority 0; }; \
         add rule ip count in tcp dport 443 counter"]);
    let connect = |to: &'static str| {
        side.run(|| {
            let limit = std::time::Duration::from_millis(400);
            std::net::TcpStream::connect_timeout(&to.parse().unwrap(), limit).is_ok()
        })
    };
    assert!(connect(SERVICE));
    lab.install(&rules(), &ALL);
    lab.world.nft(&["reset", "counters"]);
    let counted = || lab.world.nft(&["list", "table", "ip", "count"]);
    let before = counted();
    assert!(!connect(SERVICE));
    assert_eq!(counted(), before, "not one frame arrived");
    assert!(connect(OTHER));
    assert_eq!(lab.lands(SERVICE, Some(MARK)), Landed::World);
}
