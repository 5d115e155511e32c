use podwitness_core::{grant::Grant, identity::User};
use serde_json::json;

use super::*;
use crate::classify::Transport;

fn grant(enforce: bool, opaque: &str, src: &str) -> Grant {
    let rule = json!({"recorder": ["tag:a"], "enforceRecorder": enforce, "opaque": opaque});
    let spec = json!({"src": [src], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": [rule]}});
    Grant { name: "pci".into(), spec: serde_json::from_value(spec).unwrap() }
}

fn map(grants: Vec<Grant>) -> Netmap {
    Netmap { grants: grants.into(), ..Netmap::default() }
}

fn ana() -> Caller {
    let user = User { name: "ana".into(), groups: Vec::new() };
    Caller { authenticated: user.clone(), effective: user, verified: true }
}

fn session(purpose: Purpose) -> Session {
    let info = RequestInfo::parse("GET", "/api/v1/namespaces/n/pods/p/attach").unwrap();
    Session { action: info.pod_action(), info, purpose, transport: Transport::Spdy, script: None }
}

fn attach() -> Session {
    session(Purpose::Attach)
}

#[test]
fn without_a_netmap_the_setting_of_the_pod_holds() {
    let of = |until| obligation(None, until, &ana(), &attach().info).unwrap();
    assert_eq!(policy(&of(UntilNetmap::Open)), Policy::Open);
    assert_eq!(at_start(&of(UntilNetmap::Open), Recorders::Unknown), AtStart::RecordLater);
    let closed = of(UntilNetmap::Closed);
    assert!(matches!(at_start(&closed, Recorders::Unknown), AtStart::Refuse(status) if status.code == 503));
    assert!(
        matches!(unrecordable(None, &closed, &attach()), OnUnknown::Refuse(status) if status.code == 503)
    );
    assert_eq!(unrecordable(None, &of(UntilNetmap::Open), &attach()), OnUnknown::Forward);
}

#[test]
fn where_no_grant_matches_nothing_is_asked() {
    let nobody = map(vec![grant(true, "refuse", "bob")]);
    assert_eq!(obligation(Some(&nobody), UntilNetmap::Closed, &ana(), &attach().info), None);
    assert!(may_oblige(Some(&nobody), &attach().info), "bob's session is asked about");
    assert!(!may_oblige(Some(&map(Vec::new())), &attach().info));
    assert!(may_oblige(None, &attach().info));
}

#[test]
fn what_cannot_be_recorded_passes_only_under_fail_open() {
    let of = |grant: Grant, session: &Session| {
        let map = map(vec![grant]);
        let obligation = obligation(Some(&map), UntilNetmap::Open, &ana(), &session.info).unwrap();
        unrecordable(Some(&map), &obligation, session)
    };
    assert_eq!(of(grant(false, "refuse", "*"), &attach()), OnUnknown::Forward);
    let OnUnknown::Refuse(refused) = of(grant(true, "allow", "*"), &attach()) else { panic!() };
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("attach over SPDY/3.1"), "{}", refused.message);
    assert_eq!(of(grant(true, "allow", "*"), &session(Purpose::Opaque)), OnUnknown::Forward);
    assert!(matches!(of(grant(true, "refuse", "*"), &session(Purpose::Opaque)), OnUnknown::Refuse(_)));
}

#[test]
fn an_unreadable_connection_is_held_to_the_strictest_grant() {
    let of = |netmap: Option<&Netmap>, until| on_unreadable(netmap, until, "it");
    assert_eq!(of(None, UntilNetmap::Open), OnUnknown::Forward);
    assert!(matches!(of(None, UntilNetmap::Closed), OnUnknown::Refuse(_)));
    let open = map(vec![grant(false, "refuse", "*")]);
    assert_eq!(of(Some(&open), UntilNetmap::Closed), OnUnknown::Forward);
    let closed = map(vec![grant(false, "refuse", "*"), grant(true, "refuse", "bob")]);
    assert!(
        matches!(of(Some(&closed), UntilNetmap::Open), OnUnknown::Refuse(s) if s.message.contains("pci"))
    );
}
