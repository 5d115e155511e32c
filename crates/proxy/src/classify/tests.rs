use http::Request;

use super::*;

fn class(method: &str, target: &str, headers: &[(&str, &str)]) -> Class {
    let mut builder = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    classify(&builder.body(()).unwrap().into_parts().0)
}

const WEBSOCKET: &[(&str, &str)] =
    &[("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "v5.channel.k8s.io")];

fn session(target: &str) -> Session {
    match class("GET", target, WEBSOCKET) {
        Class::Session(session) => session,
        other => panic!("{target}: {other:?}"),
    }
}

#[test]
fn upgrades_are_told_apart_by_what_they_are_for() {
    for (target, purpose) in [
        ("/api/v1/namespaces/n/pods/p/exec?command=sh", Purpose::Exec),
        ("/api/v1/namespaces/n/pods/p/%65xec/", Purpose::Exec),
        ("/api/v1/namespaces/n/pods/p%2Fexec", Purpose::Exec),
        ("/api/v1/namespaces/n/pods/p/attach", Purpose::Attach),
        ("/api/v1/namespaces/n/pods/p/portforward", Purpose::PortForward),
        ("/api/v1/nodes/x/proxy/exec/n/p/c?command=sh", Purpose::Node),
        ("/api/v1/nodes/x/proxy/cri/exec/token", Purpose::Node),
        ("/api/v1/nodes/x/proxy/portForward/n/p", Purpose::Node),
        ("/api/v1/proxy/nodes/x/attach/n/p/c", Purpose::Node),
        ("/api/v1/nodes/x/proxy/metrics", Purpose::Opaque),
        ("/api/v1/namespaces/n/pods?watch=1", Purpose::Event),
        ("/api/v1/watch/pods", Purpose::Event),
        ("/api/v1/namespaces/n/pods/p/log?follow=true", Purpose::Event),
        ("/api/v1/namespaces/n/services/s:80/proxy/exec", Purpose::Opaque),
        ("/api/v1/namespaces/n/pods/p/proxy/", Purpose::Opaque),
        ("/apis/subresources.kubevirt.io/v1/namespaces/n/virtualmachineinstances/v/console", Purpose::Opaque),
        ("/apis/example.org/v1/namespaces/n/pods/p/exec", Purpose::Opaque),
        ("/", Purpose::Opaque),
    ] {
        assert_eq!(session(target).purpose, purpose, "{target}");
    }
}

#[test]
fn an_upgrade_counts_wherever_the_connection_header_says_so() {
    let exec = "/api/v1/namespaces/n/pods/p/exec";
    for connection in ["Upgrade", "keep-alive, Upgrade", "UPGRADE", "no-upgrades"] {
        let headers = [("Connection", "close"), ("Connection", connection), ("Upgrade", "SPDY/3.1")];
        let Class::Session(session) = class("POST", exec, &headers) else { panic!("{connection}") };
        assert_eq!(session.transport, Transport::Spdy);
    }
    for headers in [&[("Upgrade", "websocket")][..], &[("Connection", "Upgrade")], &[("Connection", "close")]]
    {
        assert!(matches!(class("GET", exec, headers), Class::Ordinary { .. }), "{headers:?}");
    }
}

/// The API server speaks SPDY where WebSocket is not all that is named.
#[test]
fn of_several_protocols_the_one_that_the_server_chooses_counts() {
    let exec = "/api/v1/namespaces/n/pods/p/exec";
    for (upgrade, transport) in [
        ("WebSocket", Transport::WebSocket),
        ("websocket, SPDY/3.1", Transport::Spdy),
        ("spdy/3.1, websocket", Transport::Spdy),
        ("h2c", Transport::Other),
        ("websocket, h2c", Transport::Other),
    ] {
        let Class::Session(session) = class("GET", exec, &[("Connection", "Upgrade"), ("Upgrade", upgrade)])
        else {
            panic!("{upgrade}")
        };
        assert_eq!(session.transport, transport, "{upgrade}");
    }
}

#[test]
fn exec_and_attach_can_be_recorded_where_a_version_is_known() {
    let offers_for = |path: &str, protocols: &str| {
        let headers =
            [("Connection", "Upgrade"), ("Upgrade", "WebSocket"), ("Sec-WebSocket-Protocol", protocols)];
        matches!(class("GET", path, &headers), Class::Session(session) if session.is_recordable())
    };
    let offers = |protocols| {
        let both = ["exec", "attach"]
            .map(|what| offers_for(&format!("/api/v1/namespaces/n/pods/p/{what}"), protocols));
        assert_eq!(both[0], both[1], "{protocols}");
        both[0]
    };
    assert!(offers("v5.channel.k8s.io") && offers("channel.k8s.io, v4.channel.k8s.io"));
    assert!(offers("v3.channel.k8s.io") && offers("base64.channel.k8s.io"));
    assert!(
        offers("") && offers("base64url.bearer.authorization.k8s.io.YQ"),
        "no offer is the first version"
    );
    assert!(!offers("v9.channel.k8s.io"));
    let spdy = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
    let recordable =
        |path: &str| matches!(class("POST", path, &spdy), Class::Session(session) if session.is_recordable());
    for what in ["exec", "attach", "portforward"] {
        assert!(recordable(&format!("/api/v1/namespaces/n/pods/p/{what}")), "{what}");
    }
    assert!(
        recordable("/api/v1/nodes/x/proxy/exec/n/p/c") && !recordable("/api/v1/nodes/x/proxy/cri/exec/t")
    );
}

/// The streaming servers of older kubelets, and paths that fit none of its routes.
#[test]
fn what_a_path_of_the_kubelet_does_not_tell_is_recorded_as_it_stands() {
    for path in ["cri/exec/t", "cri/portforward/t", "exec/n/p", "attach", "Exec/n/p/c", "run/n/p/c/d/e"] {
        let target = format!("/api/v1/nodes/x/proxy/{path}");
        for headers in [WEBSOCKET, &[("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]] {
            let Class::Session(session) = class("GET", &target, headers) else { panic!("{target}") };
            assert_eq!(
                (session.script, session.is_recordable()),
                (Some(Script::Undecoded), false),
                "{target}"
            );
        }
        let Class::Session(session) = class("POST", &target, &[]) else { panic!("{target}") };
        assert_eq!((session.script, session.is_recordable()), (Some(Script::Answer), false), "{target}");
    }
}

/// Should a server follow where we cannot, what it says is kept all the same.
#[test]
fn a_command_in_an_unknown_protocol_is_recorded_as_it_stands() {
    let exec = "/api/v1/namespaces/n/pods/p/exec";
    for (method, upgrade, protocol) in [
        ("GET", "h2c", ""),
        ("POST", "websocket", "v5.channel.k8s.io"),
        ("GET", "websocket", "v9.channel.k8s.io"),
    ] {
        let headers = [("Connection", "Upgrade"), ("Upgrade", upgrade), ("Sec-WebSocket-Protocol", protocol)];
        let Class::Session(session) = class(method, exec, &headers) else { panic!("{upgrade}") };
        assert_eq!((session.script, session.is_recordable()), (Some(Script::Undecoded), false), "{upgrade}");
    }
}

/// As `strings.EqualFold` and `strings.ToLower` have it, both of which the API server uses on this header.
#[test]
fn an_upgrade_counts_in_every_spelling_that_the_server_takes() {
    let exec = "/api/v1/namespaces/n/pods/p/exec";
    for upgrade in ["WebSocket", "webSOC\u{212a}et", "web\u{17f}ocket"] {
        let mut request = Request::get(exec).body(()).unwrap();
        let connection = http::HeaderValue::from_bytes(b"\xff, Upgrade").unwrap();
        request.headers_mut().insert("connection", connection);
        request.headers_mut().insert("upgrade", http::HeaderValue::from_bytes(upgrade.as_bytes()).unwrap());
        let Class::Session(session) = classify(&request.into_parts().0) else { panic!("{upgrade}") };
        assert_eq!(session.script, Some(Script::Command(session::Transport::WebSocket)), "{upgrade}");
    }
}

#[test]
fn port_forwards_can_be_recorded_where_a_carrier_is_known() {
    let script = |path: &str, protocols: &str| {
        let headers =
            [("Connection", "Upgrade"), ("Upgrade", "WebSocket"), ("Sec-WebSocket-Protocol", protocols)];
        let Class::Session(session) = class("GET", path, &headers) else { panic!("{path}") };
        session.script
    };
    let forward = Some(Script::Forward(session::Transport::WebSocket));
    for path in ["/api/v1/namespaces/n/pods/p/portforward?ports=80", "/api/v1/nodes/x/proxy/portForward/n/p"]
    {
        for offer in ["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io, v9", ""] {
            assert_eq!(script(path, offer), forward, "{path} {offer}");
        }
        assert_eq!(script(path, "v5.channel.k8s.io"), Some(Script::Opaque));
        assert_eq!(script(path, "v4.base64.channel.k8s.io"), Some(Script::Opaque));
    }
}

#[test]
fn of_what_nobody_knows_the_bytes_can_be_counted() {
    for target in ["/api/v1/namespaces/n/services/s:80/proxy/exec", "/api/v1/nodes/x/proxy/metrics", "/"] {
        assert_eq!(session(target).script, Some(Script::Opaque), "{target}");
        assert!(!session(target).is_recordable());
    }
    assert_eq!(session("/api/v1/watch").script, None);
    assert_eq!(session("/api/v1/namespaces/n/pods?watch=1").script, None);
}

#[test]
fn a_command_run_by_the_kubelet_is_a_session_without_an_upgrade() {
    let Class::Session(run) = class("POST", "/api/v1/nodes/x/proxy/run/n/p/c?cmd=id", &[]) else { panic!() };
    assert_eq!((run.purpose, run.transport), (Purpose::Node, Transport::Request));
    assert_eq!(run.script, Some(Script::Answer));
    let Class::Session(run) = class("POST", "/api/v1/nodes/x/proxy/run/n/p/c?cmd=id", WEBSOCKET) else {
        panic!()
    };
    assert_eq!(run.script, Some(Script::Answer), "an upgrade that is not made hides nothing");
    assert!(matches!(class("GET", "/api/v1/nodes/x/proxy/pods", &[]), Class::Ordinary { .. }));
}

#[test]
fn answers_that_go_on_are_known_as_such() {
    for (target, expected) in [
        ("/api/v1/pods?watch", true),
        ("/api/v1/watch/pods", true),
        ("/api/v1/namespaces/n/pods/p/log?follow=1", true),
        ("/api/v1/namespaces/n/pods/p/log?follow=0", false),
        ("/api/v1/pods", false),
    ] {
        let Class::Ordinary { endless, .. } = class("GET", target, &[]) else { panic!("{target}") };
        assert_eq!(endless, expected, "{target}");
    }
}

#[test]
fn a_path_that_cannot_be_read_is_known_as_such() {
    for target in ["/api/v1/%zz", "/api/v1/watch", "/api/v1/nodes/x/proxy/%/../run/n/p/c"] {
        assert!(matches!(class("GET", target, &[]), Class::Ordinary { info: None, .. }), "{target}");
        assert_eq!(session(target).purpose, Purpose::Unknown, "{target}");
    }
    assert!(matches!(class("GET", "/api/v1/%ff", &[]), Class::Ordinary { info: Some(_), .. }));
}

/// As the API server cleans what it sends to the kubelet.
#[test]
fn no_detour_in_a_path_of_the_kubelet_hides_a_session() {
    for path in ["./run", "x/../run", "%2e/run", "/./run", "%ff/../run", "..%2frun", "/run", "run/../run/."] {
        let target = format!("/api/v1/nodes/x/proxy/{path}/n/./p/c?cmd=id");
        let Class::Session(run) = class("POST", &target, &[]) else { panic!("{target}") };
        assert_eq!((run.purpose, run.script), (Purpose::Node, Some(Script::Answer)), "{target}");
        let action = run.action.unwrap();
        assert_eq!((action.action, &*action.pod, &*action.container), (Action::Run, "p", "c"), "{target}");
        for what in ["exec", "attach"] {
            let upgraded = session(&target.replace("run", what));
            assert_eq!(upgraded.purpose, Purpose::Node, "{target}");
            assert!(upgraded.is_recordable(), "{target}");
        }
    }
}

/// What a pod's or service's proxy is sent never leaves it, whatever dots its path has.
#[test]
fn no_detour_makes_something_else_of_an_opaque_upgrade() {
    for target in [
        "/api/v1/namespaces/n/pods/p/proxy/../exec",
        "/api/v1/namespaces/n/pods/p/proxy/%2e%2e/%2e%2e/exec",
        "/api/v1/namespaces/n/services/s/proxy/./run",
        "/api/v1/namespaces/n/services/s/proxy//..",
    ] {
        assert_eq!(
            (session(target).purpose, session(target).script),
            (Purpose::Opaque, Some(Script::Opaque))
        );
    }
}
