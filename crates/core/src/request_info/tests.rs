use super::*;

fn info(method: &str, target: &str) -> RequestInfo {
    RequestInfo::parse(method, target).unwrap()
}

/// Rows of the reference's own table test: method, target, verb, prefix, group, version, namespace, resource,
/// subresource, name.
type Row = (&'static str, &'static str, [&'static str; 8]);

const ROWS: &[Row] = &[
    ("GET", "/api/v1/namespaces", ["list", "api", "", "v1", "", "namespaces", "", ""]),
    ("GET", "/api/v1/namespaces/other", ["get", "api", "", "v1", "other", "namespaces", "", "other"]),
    ("GET", "/api/v1/namespaces/other/pods", ["list", "api", "", "v1", "other", "pods", "", ""]),
    ("GET", "/api/v1/namespaces/other/pods/foo", ["get", "api", "", "v1", "other", "pods", "", "foo"]),
    ("HEAD", "/api/v1/namespaces/other/pods/foo", ["get", "api", "", "v1", "other", "pods", "", "foo"]),
    ("GET", "/api/v1/pods", ["list", "api", "", "v1", "", "pods", "", ""]),
    (
        "GET",
        "/api/v1/proxy/namespaces/other/pods/foo",
        ["proxy", "api", "", "v1", "other", "pods", "", "foo"],
    ),
    (
        "GET",
        "/api/v1/proxy/namespaces/other/pods/foo/subpath/not/a/subresource",
        ["proxy", "api", "", "v1", "other", "pods", "", "foo"],
    ),
    ("GET", "/api/v1/watch/pods", ["watch", "api", "", "v1", "", "pods", "", ""]),
    ("GET", "/api/v1/pods?watch=true", ["watch", "api", "", "v1", "", "pods", "", ""]),
    ("GET", "/api/v1/pods?watch=false", ["list", "api", "", "v1", "", "pods", "", ""]),
    ("GET", "/api/v1/pods?watch=0", ["list", "api", "", "v1", "", "pods", "", ""]),
    ("GET", "/api/v1/watch/namespaces/other/pods", ["watch", "api", "", "v1", "other", "pods", "", ""]),
    (
        "POST",
        "/api/v1/namespaces/other/pods/foo/exec?command=sh",
        ["create", "api", "", "v1", "other", "pods", "exec", "foo"],
    ),
    (
        "GET",
        "/api/v1/namespaces/other/pods/foo/%65xec/",
        ["get", "api", "", "v1", "other", "pods", "exec", "foo"],
    ),
    ("GET", "/api/v1/namespaces/o/pods/foo%2Fexec", ["get", "api", "", "v1", "o", "pods", "exec", "foo"]),
    (
        "PUT",
        "/api/v1/namespaces/other/finalize",
        ["update", "api", "", "v1", "other", "namespaces", "finalize", "other"],
    ),
    (
        "PUT",
        "/api/v1/namespaces/other/status",
        ["update", "api", "", "v1", "other", "namespaces", "status", "other"],
    ),
    (
        "PATCH",
        "/apis/extensions/v1beta3/namespaces/other/pods/foo",
        ["patch", "apis", "extensions", "v1beta3", "other", "pods", "", "foo"],
    ),
    (
        "DELETE",
        "/api/v1/namespaces/other/pods",
        ["deletecollection", "api", "", "v1", "other", "pods", "", ""],
    ),
    (
        "GET",
        "/api/v1/pods?fieldSelector=metadata.name%3Dfoo",
        ["list", "api", "", "v1", "", "pods", "", "foo"],
    ),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da/b", ["list", "api", "", "v1", "", "pods", "", ""]),
];

#[test]
fn resources_are_read_as_the_api_server_reads_them() {
    for (method, target, expected) in ROWS {
        let i = info(method, target);
        assert!(i.is_resource_request, "{target}");
        let found = [
            &*i.verb,
            &i.api_prefix,
            &i.api_group,
            &i.api_version,
            &i.namespace,
            &i.resource,
            &i.subresource,
            &i.name,
        ];
        assert_eq!(&found, expected, "{method} {target}");
    }
}

#[test]
fn what_is_no_resource_keeps_its_method_as_verb() {
    for target in
        ["/", "/healthz", "/version", "/api", "/api/v1", "/apis", "/apis/batch", "/apis/batch/v1", "//api"]
    {
        let i = info("GET", target);
        assert!(!i.is_resource_request, "{target}");
        assert_eq!(i.verb, "get", "{target}");
    }
}

#[test]
fn double_slashes_are_not_cleaned() {
    let i = info("GET", "/api/v1/namespaces/o/pods//exec");
    assert_eq!((&*i.name, &*i.subresource), ("", "exec"));
}

#[test]
fn a_verb_prefix_needs_something_behind_it() {
    assert_eq!(RequestInfo::parse("GET", "/api/v1/watch"), Err(RequestInfoError::NothingAfterVerb));
}

#[test]
fn a_malformed_escape_is_an_error_as_in_net_url() {
    for target in ["/api/v1/%zz", "/api/v1/pods/%", "/api/v1/nodes/x/proxy/%2/../run/n/p/c"] {
        assert_eq!(RequestInfo::parse("GET", target), Err(RequestInfoError::MalformedEscape), "{target}");
    }
    assert!(RequestInfo::parse("GET", "/api/v1/pods?x=%zz").is_ok(), "the query is another matter");
}

#[test]
fn bytes_that_are_not_utf8_leave_the_segments_as_they_are() {
    let i = info("GET", "/api/v1/namespaces/%ff/pods/%c3/exec");
    assert_eq!((&*i.namespace, &*i.name, &*i.subresource), ("\u{fffd}", "\u{fffd}", "exec"));
    assert_eq!(info("GET", "/api/v1/namespaces/n/pods/p/exec%ff").pod_action(), None);
}

#[test]
fn selectors_are_kept_as_sent() {
    let i = info("GET", "/api/v1/pods?labelSelector=a%3Db&fieldSelector=x%3Dy");
    assert_eq!((&*i.label_selector, &*i.field_selector), ("a=b", "x=y"));
}

#[test]
fn what_a_proxy_sends_on_is_clean() {
    for (target, sent) in [
        ("/api/v1/nodes/x/proxy", Some("")),
        ("/api/v1/nodes/x/proxy/", Some("")),
        ("/api/v1/nodes/x/proxy/a/./b/../c/", Some("a/c")),
        ("/api/v1/namespaces/n/pods/p:80/proxy/../exec", Some("exec")),
        ("/api/v1/namespaces/n/services/https:s:/proxy/%2e%2e%2fws", Some("ws")),
        ("/api/v1/proxy/namespaces/n/services/s/a//b", Some("a/b")),
        ("/api/v1/namespaces/n/pods/p/exec", None),
        ("/version", None),
    ] {
        let info = info("GET", target);
        assert_eq!(info.proxied().map(|sent| sent.join("/")).as_deref(), sent, "{target}");
    }
}

mod properties {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Segments that mean something to one of the servers, and some that do not.
    const WORDS: [&str; 22] = [
        "api",
        "apis",
        "v1",
        "namespaces",
        "nodes",
        "pods",
        "services",
        "proxy",
        "watch",
        "exec",
        "attach",
        "portForward",
        "portforward",
        "run",
        "cri",
        "log",
        ".",
        "..",
        "",
        "n",
        "é",
        "%2e",
    ];

    /// The target of a path, each byte escaped where the path may not hold it or `choices` asks for it. A choice is
    /// whether to escape, and whether in small letters.
    fn escaped(path: &[u8], choices: &[(bool, bool)]) -> String {
        let mut choices = choices.iter().cycle();
        let mut target = String::from("/");
        for byte in path {
            let (chosen, small) = choices.next().copied().unwrap_or_default();
            let plain = byte.is_ascii_alphanumeric() || b"/.-_~:".contains(byte);
            match (plain && !chosen, small) {
                (true, _) => target.push(char::from(*byte)),
                (false, true) => target.push_str(&format!("%{byte:02x}")),
                (false, false) => target.push_str(&format!("%{byte:02X}")),
            }
        }
        target
    }

    fn path() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            8 => select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..4),
        ];
        vec(word, 0..10).prop_map(|words| words.join(&b'/'))
    }

    /// A way of the kubelet's, and what it does.
    fn action() -> impl Strategy<Value = (Vec<&'static str>, Action)> {
        select(vec![
            (vec!["exec", "n", "p", "c"], Action::Exec),
            (vec!["exec", "n", "p", "uid", "c"], Action::Exec),
            (vec!["attach", "n", "p", "c"], Action::Attach),
            (vec!["run", "n", "p", "c"], Action::Run),
            (vec!["portForward", "n", "p"], Action::PortForward),
        ])
    }

    /// Segments that cleaning takes away again.
    fn detour() -> impl Strategy<Value = &'static str> {
        select(vec!["", ".", "x/..", "run/..", "a/b/../..", "a/./../.", "\u{fffd}/.."])
    }

    proptest! {
        #[test]
        fn any_target_is_parsed_without_panic(method in ".*", target in ".*") {
            let _ = RequestInfo::parse(&method, &target);
        }

        #[test]
        fn any_escaping_of_a_path_is_the_path(
            path in path(),
            choices in vec(any::<(bool, bool)>(), 1..32),
        ) {
            let plain = RequestInfo::parse("GET", &escaped(&path, &[(false, false)]));
            let other = RequestInfo::parse("GET", &escaped(&path, &choices));
            prop_assert_eq!(&plain, &other);
            prop_assert_ne!(&plain, &Err(RequestInfoError::MalformedEscape));
            let action = |info: Result<RequestInfo, _>| info.ok().and_then(|info| info.pod_action());
            prop_assert_eq!(action(plain), action(other));
        }

        #[test]
        fn no_detour_hides_what_a_node_is_asked_for(
            (segments, action) in action(),
            detours in vec(vec(detour(), 0..3), 6),
            choices in vec(any::<(bool, bool)>(), 1..32),
        ) {
            let plain = info("POST", &format!("/api/v1/nodes/x/proxy/{}", segments.join("/"))).pod_action();
            let mut path = vec!["api/v1/nodes/x/proxy"];
            for (at, segment) in segments.iter().enumerate() {
                path.extend(&detours[at]);
                path.push(segment);
            }
            path.extend(&detours[5]);
            let found = info("POST", &escaped(path.join("/").as_bytes(), &choices)).pod_action();
            prop_assert_eq!(found.as_ref().map(|it| it.action), Some(action));
            prop_assert_eq!(found, plain);
        }

        #[test]
        fn what_is_sent_on_stays_when_it_is_cleaned_again(path in path()) {
            let mut target = b"api/v1/nodes/x/proxy/".to_vec();
            target.extend(path);
            let info = info("GET", &escaped(&target, &[(false, false)]));
            let sent = info.proxied().unwrap();
            prop_assert!(sent.iter().all(|segment| !matches!(*segment, "" | "." | "..")));
            prop_assert_eq!(path::clean(sent.iter().copied()), sent);
        }
    }
}

#[test]
fn an_action_in_a_pod_is_known_whichever_way_it_goes() {
    let known = |action, container: &str, through_node| PodAction {
        action,
        namespace: "n".into(),
        pod: "p".into(),
        container: container.into(),
        through_node,
    };
    for (target, expected) in [
        ("/api/v1/namespaces/n/pods/p/exec?container=c", known(Action::Exec, "", false)),
        ("/api/v1/namespaces/n/pods/p/%61ttach/", known(Action::Attach, "", false)),
        ("/api/v1/namespaces/n/pods/p/portforward", known(Action::PortForward, "", false)),
        ("/api/v1/nodes/x/proxy/exec/n/p/c", known(Action::Exec, "c", true)),
        ("/api/v1/nodes/https:x:10250/proxy/exec/n/p/uid/c/", known(Action::Exec, "c", true)),
        ("/api/v1/nodes/x/proxy/attach/n/p/c", known(Action::Attach, "c", true)),
        ("/api/v1/nodes/x/proxy/run/n%2Fp/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/portForward/n/p", known(Action::PortForward, "", true)),
        ("/api/v1/nodes/x/proxy/portForward/n/p/uid", known(Action::PortForward, "", true)),
        ("/api/v1/proxy/nodes/x/exec/n/p/c", known(Action::Exec, "c", true)),
        ("/api/v1/nodes/x/proxy/./run/n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy//run//n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/%2e/run/n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy//./run/n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/x/../run/n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/metrics/%2e%2E/run/n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/../../run/n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/%ff/../run/n/p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/%2f%2e%2frun%2fn/p/c/", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/run/n/./p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/run/n/q/../p/c", known(Action::Run, "c", true)),
        ("/api/v1/nodes/x/proxy/exec//n/p/./c/.", known(Action::Exec, "c", true)),
        ("/api/v1/nodes/x/proxy/run/../attach/n/p/c", known(Action::Attach, "c", true)),
        ("/api/v1/nodes/x/proxy/x/%2e%2e/portForward/n/p", known(Action::PortForward, "", true)),
        ("/api/v1/proxy/nodes/x/./exec/n/p/c", known(Action::Exec, "c", true)),
    ] {
        assert_eq!(info("GET", target).pod_action(), Some(expected), "{target}");
    }
}

#[test]
fn an_action_of_the_kubelet_that_the_path_does_not_tell_is_unknown() {
    for path in
        ["cri/exec/token", "exec", "exec//n/p", "x/../exec", "EXEC/n/p/c", "exec/n/p/c/d/e", "portForward//p"]
    {
        let action = info("GET", &format!("/api/v1/nodes/x/proxy/{path}")).pod_action().unwrap();
        assert_eq!(action.action, Action::Unknown, "{path}");
    }
    for target in [
        "/api/v1/nodes/x/proxy/metrics",
        "/api/v1/nodes/x/proxy/run/../metrics",
        "/api/v1/nodes/x/proxy/..run/n/p/c",
        "/api/v1/nodes/x/proxy/%252e/run/n/p/c",
        "/api/v1/nodes/x",
        "/api/v1/nodes/x/./proxy/run/n/p/c",
        "/api/v1/namespaces/n/pods/p/log",
        "/apis/example.org/v1/namespaces/n/pods/p/exec",
        "/",
    ] {
        assert_eq!(info("GET", target).pod_action(), None, "{target}");
    }
}
