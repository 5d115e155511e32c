//! A sidecar on the userspace back end.

use std::{process::Command, sync::Arc};

use podwitness_tunnel::{Backend, Inline, Options, ProvisionalLimits, Tunnel, netlink::Netlink};

use crate::{
    ends::{key, name},
    lab::Lab,
    scenarios,
};

#[test]
#[ignore = "needs root and network namespaces"]
fn two_ends_talk_through_the_tunnel() {
    scenarios::two_ends_talk(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn ipv4_carries_the_tunnel_too() {
    scenarios::ipv4_carries_it_too(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn peers_and_routes_are_exactly_those_that_were_set() {
    scenarios::peers_are_exactly_those_that_were_set(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_sidecar_that_restarts_with_a_new_key_is_served() {
    scenarios::a_sidecar_restarts_with_a_new_key(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_that_restarts_with_a_new_key_is_reached() {
    scenarios::a_recorder_restarts_with_a_new_key(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_that_restarts_with_its_key_is_reached_by_the_first_dial() {
    scenarios::a_recorder_restarts_with_its_key(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_with_its_key_that_is_set_anew_is_reached_at_once() {
    scenarios::a_recorder_with_its_key_is_set_anew(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_peer_that_is_silent_when_it_is_dialled_begins_anew() {
    scenarios::a_peer_that_is_silent_begins_anew(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_peer_that_is_heard_keeps_its_session() {
    scenarios::a_peer_that_is_heard_keeps_its_session(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_connection_outlives_a_change_of_address() {
    scenarios::a_connection_outlives_a_change_of_address(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_that_moves_is_reached_at_its_new_endpoint() {
    scenarios::a_recorder_moves(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn lost_packets_lose_no_bytes() {
    scenarios::lost_packets_lose_no_bytes(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn packets_fill_the_link_and_are_never_cut() {
    scenarios::packets_fill_the_link_and_are_never_cut(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn dialled_sockets_carry_mark_and_tunnel_address() {
    scenarios::sockets_carry_the_mark(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_closed_tunnel_leaves_nothing_and_can_be_opened_again() {
    scenarios::a_closed_tunnel_leaves_nothing(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn what_an_earlier_run_left_is_replaced() {
    scenarios::what_an_earlier_run_left_is_replaced(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn keepalives_flow_only_when_asked_for() {
    scenarios::keepalives_flow_only_when_asked_for(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn one_thread_needs_privilege_and_no_other() {
    scenarios::one_thread_needs_privilege(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_mtu_follows_the_default_route() {
    scenarios::the_mtu_follows_the_default_route(Backend::Tun);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_first_back_end_that_works_is_taken() {
    let lab = Lab::new();
    lab.sidecar.run(async {
        let open = async |backends: &[Backend]| {
            let options = Options { backends: backends.to_vec(), ..Options::new(name(), key()) };
            let tunnel = Tunnel::open(&options, Arc::new(Inline)).await?;
            let backend = tunnel.backend();
            tunnel.close().await.map(|()| backend)
        };
        // Which one that is depends on the machine's kernel; that both agree does not.
        let expected = if open(&[Backend::Kernel]).await.is_ok() { Backend::Kernel } else { Backend::Tun };
        assert_eq!(open(&Backend::ALL).await.unwrap(), expected);
        assert_eq!(open(&[Backend::Tun, Backend::Kernel]).await.unwrap(), Backend::Tun);
        assert!(open(&[]).await.is_err());
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn nothing_is_printed_to_standard_output() {
    const TEST: &str = "userspace::peers_and_routes_are_exactly_those_that_were_set";
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact", TEST])
        .output()
        .unwrap();
    let printed = String::from_utf8(run.stdout).unwrap();
    assert!(printed.contains("1 passed"), "{printed}");
    let passed = format!("test {TEST} ... ok");
    let of_runner =
        |line: &&str| ["", "running 1 test", &passed].contains(line) || line.starts_with("test result: ok");
    assert_eq!(printed.lines().find(|line| !of_runner(line)), None);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_whose_interface_is_removed_says_so() {
    let lab = Lab::new();
    let name = name();
    lab.recorder.run(async move {
        let (options, limits) = (Options::new(name.clone(), key()), ProvisionalLimits::default());
        let opened = Tunnel::open_recorder(&options, limits, Arc::new(Inline)).await.unwrap();
        Netlink::new().delete_link(&name).unwrap();
        assert!(opened.tunnel.failed().await.to_string().contains("removed"));
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_port_that_is_taken_is_named() {
    let lab = Lab::new();
    lab.recorder.run(async {
        let _taken = tokio::net::UdpSocket::bind("[::]:51820").await.unwrap();
        let options = Options { listen_port: Some(51820), ..Options::new(name(), key()) };
        let opened = Tunnel::open_recorder(&options, ProvisionalLimits::default(), Arc::new(Inline)).await;
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("UDP port 51820 cannot be bound"), "{error}");
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_tunnel_whose_interface_is_removed_says_so() {
    scenarios::a_removed_interface_is_noticed(Backend::Tun);
}
