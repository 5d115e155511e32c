//! A sidecar on the kernel's back end, its recorder in userspace.

use podwitness_tunnel::Backend;

use crate::scenarios;

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn two_ends_talk_through_the_tunnel() {
    scenarios::two_ends_talk(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn ipv4_carries_the_tunnel_too() {
    scenarios::ipv4_carries_it_too(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn peers_and_routes_are_exactly_those_that_were_set() {
    scenarios::peers_are_exactly_those_that_were_set(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_sidecar_that_restarts_with_a_new_key_is_served() {
    scenarios::a_sidecar_restarts_with_a_new_key(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_recorder_that_restarts_with_a_new_key_is_reached() {
    scenarios::a_recorder_restarts_with_a_new_key(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_recorder_that_restarts_with_its_key_is_reached_by_the_first_dial() {
    scenarios::a_recorder_restarts_with_its_key(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_recorder_with_its_key_that_is_set_anew_is_reached_at_once() {
    scenarios::a_recorder_with_its_key_is_set_anew(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_peer_that_is_silent_when_it_is_dialled_begins_anew() {
    scenarios::a_peer_that_is_silent_begins_anew(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_peer_that_is_heard_keeps_its_session() {
    scenarios::a_peer_that_is_heard_keeps_its_session(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_connection_outlives_a_change_of_address() {
    scenarios::a_connection_outlives_a_change_of_address(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_recorder_that_moves_is_reached_at_its_new_endpoint() {
    scenarios::a_recorder_moves(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn lost_packets_lose_no_bytes() {
    scenarios::lost_packets_lose_no_bytes(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn packets_fill_the_link_and_are_never_cut() {
    scenarios::packets_fill_the_link_and_are_never_cut(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn dialled_sockets_carry_mark_and_tunnel_address() {
    scenarios::sockets_carry_the_mark(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_closed_tunnel_leaves_nothing_and_can_be_opened_again() {
    scenarios::a_closed_tunnel_leaves_nothing(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn what_an_earlier_run_left_is_replaced() {
    scenarios::what_an_earlier_run_left_is_replaced(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn keepalives_flow_only_when_asked_for() {
    scenarios::keepalives_flow_only_when_asked_for(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn one_thread_needs_privilege_and_no_other() {
    scenarios::one_thread_needs_privilege(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn the_mtu_follows_the_default_route() {
    scenarios::the_mtu_follows_the_default_route(Backend::Kernel);
}

#[test]
#[ignore = "needs root and a kernel with WireGuard: hack/vm"]
fn a_tunnel_whose_interface_is_removed_says_so() {
    scenarios::a_removed_interface_is_noticed(Backend::Kernel);
}
