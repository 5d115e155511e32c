use serde_json::{Value, json};

use super::*;

fn of(spec: Value) -> WithoutEffect {
    WithoutEffect::of(&serde_json::from_value(spec).unwrap())
}

fn of_rule(rule: &Value) -> WithoutEffect {
    of(json!({"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": [rule]}}))
}

#[test]
fn parts_without_effect_are_named() {
    let whole = json!({"src": ["ana@example.com", "group:sre", "*"], "dst": ["namespace:shop", "tag:pci", "pod:a/*"],
        "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:a"]}]}});
    assert!(of(whole).is_none());
    let found = of(json!({
        "src": ["autogroup:member", "100.64.0.7", "fd7a::/48", "svc:x", "ana"],
        "dst": ["namespace:shop", "autogroup:internet", "shop"],
        "ip": ["tcp:443"],
        "app": {"tailscale.com/cap/kubernetes": [{"impersonate": {"groups": ["g"]}}]},
    }));
    let parts = [
        "src autogroup:member",
        "src 100.64.0.7",
        "src fd7a::/48",
        "src svc:x",
        "dst autogroup:internet",
        "dst shop (did you mean namespace:shop?)",
        "ip",
        "impersonate",
    ];
    assert_eq!(found.parts, parts);
    assert_eq!((found.nobody, found.no_pod, found.no_rule, found.no_request), (false, false, false, false));
}

#[test]
fn a_grant_that_matches_no_user_and_no_pod_says_so() {
    let found = of(json!({"src": ["autogroup:member"], "dst": ["10.0.0.1"]}));
    assert_eq!((found.nobody, found.no_pod, found.no_rule), (true, true, true));
    assert!(!found.is_none());
}

#[test]
fn a_dst_that_matches_no_pod_is_told_with_what_was_meant() {
    for (dst, meant) in [
        ("shop", Some("namespace:shop")),
        ("sh*", Some("namespace:sh*")),
        ("shop/till", Some("pod:shop/till")),
        ("ns:shop", Some("namespace:shop")),
        ("namespaces:shop", Some("namespace:shop")),
        ("namepsace:shop", Some("namespace:shop")),
        ("pods:shop/till", Some("pod:shop/till")),
        ("tags:pci", Some("tag:pci")),
        ("autogroup:self", None),
        ("100.64.0.7", None),
        ("example.com", None),
        ("svc:x", None),
    ] {
        let spec = json!({"src": ["*"], "dst": [dst], "app": {"tailscale.com/cap/kubernetes": [{}]}});
        let hint = meant.map_or_else(String::new, |meant| format!(" (did you mean {meant}?)"));
        let found = of(spec);
        assert_eq!((found.parts, found.no_pod), (vec![format!("dst {dst}{hint}")], true));
    }
}

#[test]
fn a_src_that_is_taken_for_a_user_and_was_meant_otherwise_is_doubtful() {
    for (src, meant) in [
        ("sa:shop/till", Some("serviceaccount:shop/till")),
        ("serviceaccounts:shop/till", Some("serviceaccount:shop/till")),
        ("groups:sre", Some("group:sre")),
        ("gruop:sre", Some("group:sre")),
        ("users:ana", Some("user:ana")),
        ("system:authenticated", Some("group:system:authenticated")),
        ("system:serviceaccounts:shop", Some("group:system:serviceaccounts:shop")),
        ("ana@example.com", None),
        ("oidc:ana", None),
        ("system:serviceaccount:shop:till", None),
        ("system:node:n1", None),
        ("group:sre", None),
        ("autogroup:member", None),
    ] {
        let spec = json!({"src": ["*", src], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": [{}]}});
        let expected: Vec<String> =
            meant.iter().map(|meant| format!("src {src} (did you mean {meant}?)")).collect();
        assert_eq!(of(spec).doubtful, expected);
    }
}

#[test]
fn verbs_that_no_request_has_are_told_with_the_nearest_that_some_have() {
    for (verb, hint) in [
        ("gett", " (did you mean get?)"),
        ("lsit", " (did you mean list?)"),
        ("read", " (did you mean get?)"),
        ("exec", " (did you mean resources pods/exec?)"),
        ("logs", " (did you mean resources pods/log?)"),
        ("impersonate", ""),
        ("x*", ""),
    ] {
        let found = of_rule(&json!({"verbs": [verb]}));
        assert_eq!((found.parts, found.no_request), (vec![format!("verbs {verb}{hint}")], true));
    }
    for verb in API_VERBS.iter().chain(&METHODS).copied().chain(["*", "get*", "*list"]) {
        assert!(of_rule(&json!({"verbs": [verb]})).is_none(), "{verb}");
    }
    assert!(!of_rule(&json!({"verbs": ["gett", "list"]})).no_request);
}

#[test]
fn resources_that_no_request_names_are_told_with_what_was_meant() {
    for (resource, hint) in [
        ("pod", " (did you mean pods?)"),
        ("po/exec", " (did you mean pods/exec?)"),
        ("pods/port-forward", " (did you mean pods/portforward?)"),
        ("pods/logs", " (did you mean pods/log?)"),
        ("pod/logs", " (did you mean pods/log?)"),
        ("exec", " (did you mean pods/exec?)"),
        ("deploy", " (did you mean deployments?)"),
        ("deployment/scale", " (did you mean deployments/scale?)"),
        ("deployments.apps", " (did you mean deployments?)"),
        ("pods/shell", ""),
    ] {
        let found = of_rule(&json!({"resources": [resource]}));
        assert_eq!((found.parts, found.no_request), (vec![format!("resources {resource}{hint}")], true));
    }
    for resource in [
        "pods",
        "pods/exec",
        "pods/*",
        "pods/ex*",
        "*",
        "*/exec",
        "deployments/scale",
        "certificates",
        "nodes/proxy",
    ] {
        let found = of_rule(&json!({"resources": [resource]}));
        assert!(found.is_none() && found.doubtful.is_empty(), "{resource}: {found:?}");
    }
    let doubtful = of_rule(&json!({"resources": ["podss/exec"]}));
    assert!(doubtful.is_none());
    assert_eq!(doubtful.doubtful, ["resources podss/exec (did you mean pods/exec?)"]);
    let custom = of_rule(&json!({"resources": ["logs"]}));
    assert_eq!((custom.is_none(), &*custom.doubtful[0]), (true, "resources logs (did you mean pods/log?)"));
}

#[test]
fn one_rule_that_matches_is_enough() {
    let rules = json!([{"verbs": ["gett"]}, {"resources": ["pods"]}]);
    let found = of(json!({"src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/kubernetes": rules}}));
    assert_eq!((found.parts.len(), found.no_request), (1, false));
}
