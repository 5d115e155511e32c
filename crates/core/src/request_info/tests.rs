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
    assert_eq!(RequestInfo::parse("GET", "/api/v1/%ff"), Err(RequestInfoError::NotUtf8));
}

#[test]
fn selectors_are_kept_as_sent() {
    let i = info("GET", "/api/v1/pods?labelSelector=a%3Db&fieldSelector=x%3Dy");
    assert_eq!((&*i.label_selector, &*i.field_selector), ("a=b", "x=y"));
}

proptest::proptest! {
    #[test]
    fn any_target_is_parsed_without_panic(method in ".*", target in ".*") {
        let _ = RequestInfo::parse(&method, &target);
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
    ] {
        assert_eq!(info("GET", target).pod_action(), Some(expected), "{target}");
    }
}

#[test]
fn an_action_of_the_kubelet_that_the_path_does_not_tell_is_unknown() {
    for path in [
        "cri/exec/token",
        "exec",
        "exec//n/p/c",
        "/exec/n/p/c",
        "EXEC/n/p/c",
        "exec/n/p/c/d/e",
        "portForward//p",
    ] {
        let action = info("GET", &format!("/api/v1/nodes/x/proxy/{path}")).pod_action().unwrap();
        assert_eq!(action.action, Action::Unknown, "{path}");
    }
    for target in [
        "/api/v1/nodes/x/proxy/metrics",
        "/api/v1/nodes/x",
        "/api/v1/namespaces/n/pods/p/log",
        "/apis/example.org/v1/namespaces/n/pods/p/exec",
        "/",
    ] {
        assert_eq!(info("GET", target).pod_action(), None, "{target}");
    }
}
