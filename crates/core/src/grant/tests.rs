use super::*;
use crate::{
    identity::{Caller, User},
    request_info::RequestInfo,
};

fn evaluate(grants: &[Grant], caller: &Caller, request: &RequestInfo) -> Option<Obligation> {
    super::evaluate(&grants.to_vec().into(), caller, request)
}

fn grant(name: &str, json: serde_json::Value) -> Grant {
    Grant { name: name.into(), spec: serde_json::from_value(json).unwrap() }
}

fn rule(recorder: &str, enforce: bool) -> serde_json::Value {
    serde_json::json!({"tailscale.com/cap/kubernetes": [{"recorder": [recorder], "enforceRecorder": enforce}]})
}

fn caller(name: &str, groups: &[&str], verified: bool) -> Caller {
    let user = User { name: name.into(), groups: groups.iter().map(|g| (*g).into()).collect() };
    Caller { authenticated: user.clone(), effective: user, verified }
}

fn exec() -> RequestInfo {
    RequestInfo::parse("GET", "/api/v1/namespaces/shop/pods/till/exec").unwrap()
}

#[test]
fn globs_match_as_people_expect() {
    for (pattern, text, expected) in [
        ("*", "", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*c", "abc", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*a", "a", false),
        ("abc", "abc", true),
        ("ab", "abc", false),
        ("", "", true),
        ("a*bc*c", "abc", false),
    ] {
        assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn dst_means_the_pod_that_is_witnessed() {
    let tags = ["pci".to_owned()];
    let pod = |name| PodTarget { namespace: "shop", name, tags: &tags };
    for (dst, name, expected) in [
        ("*", Some("till"), true),
        ("namespace:shop", Some("till"), true),
        ("namespace:office", Some("till"), false),
        ("pod:shop/ti*", Some("till"), true),
        ("pod:shop/x*", Some("till"), false),
        ("pod:shop/x*", None, true),
        ("tag:pci", Some("till"), true),
        ("tag:pc", Some("till"), false),
        ("autogroup:member", Some("till"), false),
    ] {
        let spec = GrantSpec { dst: vec![dst.into()], ..GrantSpec::default() };
        assert_eq!(dst_fits(&spec, pod(name)), expected, "{dst}");
    }
}

#[test]
fn src_means_the_authenticated_or_the_effective_user() {
    for (src, expected) in [
        ("ana", true),
        ("user:ana", true),
        ("group:sre", true),
        ("*", true),
        ("bob", false),
        ("serviceaccount:shop/t*", false),
    ] {
        let grants =
            [grant("g", serde_json::json!({"src": [src], "dst": ["*"], "app": rule("tag:a", false)}))];
        assert_eq!(evaluate(&grants, &caller("ana", &["sre"], true), &exec()).is_some(), expected, "{src}");
    }
    let grants =
        [grant("g", serde_json::json!({"src": ["serviceaccount:shop/t*"], "app": rule("tag:a", false)}))];
    let mut impersonating = caller("ana", &[], true);
    impersonating.effective.name = "system:serviceaccount:shop:till".into();
    assert!(evaluate(&grants, &impersonating, &exec()).is_some());
}

#[test]
fn an_unverified_identity_gets_the_strictest() {
    let grants = [
        grant("bob", serde_json::json!({"src": ["bob"], "app": rule("tag:b", true)})),
        grant("all", serde_json::json!({"src": ["*"], "app": rule("tag:a", false)})),
    ];
    assert!(evaluate(&grants, &caller("ana", &[], false), &exec()).unwrap().enforce);
    assert!(!evaluate(&grants, &caller("ana", &[], true), &exec()).unwrap().enforce);
}

#[test]
fn a_default_grant_counts_only_where_no_other_matches() {
    let grants = [
        grant("shipped", serde_json::json!({"src": ["*"], "default": true, "app": rule("tag:d", false)})),
        grant("sre", serde_json::json!({"src": ["group:sre"], "app": rule("tag:s", true)})),
    ];
    let of = |caller| evaluate(&grants, &caller, &exec()).unwrap().grants;
    assert_eq!(of(caller("ana", &["sre"], true)), ["sre"]);
    assert_eq!(of(caller("ana", &[], true)), ["shipped"]);
}

#[test]
fn recorders_concatenate_by_priority_and_booleans_or() {
    let grants = [
        grant("b", serde_json::json!({"src": ["*"], "app": rule("tag:b", false)})),
        grant("a", serde_json::json!({"src": ["*"], "app": rule("tag:a", false)})),
        grant("z", serde_json::json!({"src": ["*"], "priority": 5, "app": rule("tag:b", true)})),
    ];
    let obligation = evaluate(&grants, &caller("ana", &[], true), &exec()).unwrap();
    assert_eq!(obligation.grants, ["z", "a", "b"]);
    assert!(obligation.enforce && !obligation.events);
    let choice = |tag: &str, enforced| RecorderChoice { tag: tag.into(), enforced };
    assert_eq!(obligation.recorders, [choice("tag:b", true), choice("tag:a", false)]);
}

#[test]
fn a_rule_can_be_scoped_to_namespaces_verbs_and_resources() {
    for (scope, expected) in [
        (serde_json::json!({"namespaces": ["sh*"]}), true),
        (serde_json::json!({"namespaces": ["office"]}), false),
        (serde_json::json!({"resources": ["pods/exec"]}), true),
        (serde_json::json!({"resources": ["pods"]}), false),
        (serde_json::json!({"verbs": ["get"], "resources": ["pods/*"]}), true),
        (serde_json::json!({"verbs": ["create"]}), false),
    ] {
        let app = serde_json::json!({"tailscale.com/cap/kubernetes": [scope]});
        let grants = [grant("g", serde_json::json!({"src": ["*"], "app": app}))];
        assert_eq!(evaluate(&grants, &caller("ana", &[], true), &exec()).is_some(), expected, "{scope}");
    }
}

#[test]
fn the_strictest_window_wins_and_never_exceeds_the_cap() {
    let of = |rules: serde_json::Value| {
        let app = serde_json::json!({"tailscale.com/cap/kubernetes": rules});
        let grants = [grant("g", serde_json::json!({"src": ["*"], "app": app}))];
        evaluate(&grants, &caller("ana", &[], true), &exec()).unwrap()
    };
    let strict =
        of(serde_json::json!([{"lead": 4096, "requireAck": "volume"}, {"lead": 9, "requireAck": "process"}]));
    assert_eq!((strict.lead, strict.require_ack), (9, Some(AckLevel::Volume)));
    assert_eq!(of(serde_json::json!([{"lead": 999_999_999}])).lead, MAX_LEAD);
}

#[test]
fn a_session_through_a_node_is_in_the_scope_of_what_it_does_in_a_pod() {
    let grants = [grant(
        "shop",
        serde_json::json!({"src": ["*"], "app": {"tailscale.com/cap/kubernetes": [
            {"recorder": ["tag:a"], "namespaces": ["shop"], "verbs": ["create"], "resources": ["pods/exec"]}]}}),
    )];
    for (path, expected) in [
        ("exec/shop/till/app", true),
        ("run/shop/till/app", true),
        ("cri/exec/token", true),
        ("exec/office/desk/app", false),
        ("attach/shop/till/app", false),
        ("metrics", false),
    ] {
        let request = RequestInfo::parse("GET", &format!("/api/v1/nodes/x/proxy/{path}")).unwrap();
        assert_eq!(evaluate(&grants, &caller("ana", &[], true), &request).is_some(), expected, "{path}");
    }
}

fn rules(rules: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({"src": ["*"], "app": {"tailscale.com/cap/kubernetes": rules}})
}

#[test]
fn without_a_capability_nothing_is_asked_for() {
    let ana = caller("ana", &[], true);
    assert_eq!(evaluate(&[], &ana, &exec()), None);
    let network = grant("network", serde_json::json!({"src": ["*"], "dst": ["*"], "ip": ["tcp:443"]}));
    assert_eq!(evaluate(std::slice::from_ref(&network), &ana, &exec()), None);
    // A grant without rules does not stand in the way of default ones either.
    let mut shipped = rules(&serde_json::json!([{"recorder": ["tag:d"]}]));
    shipped["default"] = true.into();
    let found = evaluate(&[network, grant("shipped", shipped)], &ana, &exec()).unwrap();
    assert_eq!(found.grants, ["shipped"]);
}

#[test]
fn an_empty_rule_is_a_match_that_asks_for_nothing() {
    let found =
        evaluate(&[grant("g", rules(&serde_json::json!([{}])))], &caller("ana", &[], true), &exec()).unwrap();
    assert_eq!(
        found,
        Obligation {
            grants: vec!["g".into()],
            recorders: vec![],
            enforce: false,
            events: false,
            require_ack: None,
            lead: MAX_LEAD,
            mask_flags: vec![],
            opaque: Opaque::Refuse,
        }
    );
}

#[test]
fn the_rules_of_one_grant_and_of_several_are_taken_together() {
    let ana = caller("ana", &[], true);
    let a = serde_json::json!({"recorder": ["tag:x", "tag:y"], "maskFlags": ["-p", "--token"], "opaque": "allow"});
    let b = serde_json::json!({"recorder": ["tag:y", "tag:z"], "enforceRecorder": true, "enableEvents": true,
        "maskFlags": ["--token", "PGPASSWORD"], "opaque": "allow", "lead": 100, "requireAck": "object"});
    let one = evaluate(&[grant("a", rules(&serde_json::json!([a, b])))], &ana, &exec()).unwrap();
    let two = evaluate(
        &[grant("b", rules(&serde_json::json!([b]))), grant("a", rules(&serde_json::json!([a])))],
        &ana,
        &exec(),
    )
    .unwrap();
    let choice = |tag: &str, enforced| RecorderChoice { tag: tag.into(), enforced };
    assert_eq!(one.recorders, [choice("tag:x", false), choice("tag:y", true), choice("tag:z", true)]);
    assert_eq!(one.mask_flags, ["-p", "--token", "PGPASSWORD"]);
    assert!(one.enforce && one.events);
    assert_eq!((one.lead, one.require_ack, one.opaque), (100, Some(AckLevel::Object), Opaque::Allow));
    assert_eq!(Obligation { grants: one.grants.clone(), ..two }, one);
    assert_eq!((one.grants.len(), two.grants), (1, vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn opaque_upgrades_pass_only_where_every_rule_lets_them() {
    for (rule_list, expected) in [
        (serde_json::json!([{"opaque": "allow"}]), Opaque::Allow),
        (serde_json::json!([{"opaque": "allow"}, {}]), Opaque::Refuse),
        (serde_json::json!([{"opaque": "allow"}, {"opaque": "refuse"}]), Opaque::Refuse),
    ] {
        let grants = [grant("g", rules(&rule_list))];
        let found = evaluate(&grants, &caller("ana", &[], true), &exec()).unwrap();
        assert_eq!(found.opaque, expected, "{rule_list}");
    }
}

#[test]
fn rules_out_of_scope_count_for_nothing() {
    let both = serde_json::json!([
        {"recorder": ["tag:a"], "resources": ["pods/exec"]},
        {"recorder": ["tag:b"], "enforceRecorder": true, "resources": ["pods/attach"]},
    ]);
    let found = evaluate(&[grant("g", rules(&both))], &caller("ana", &[], true), &exec()).unwrap();
    assert_eq!(found.recorders, [RecorderChoice { tag: "tag:a".into(), enforced: false }]);
    assert!(!found.enforce);
}

#[test]
fn default_grants_are_asked_again_for_each_request() {
    let mut shipped = rules(&serde_json::json!([{"recorder": ["tag:d"], "enableEvents": true}]));
    shipped["default"] = true.into();
    let only_exec = rules(&serde_json::json!([{"recorder": ["tag:s"], "resources": ["pods/exec"]}]));
    let grants = [grant("shipped", shipped), grant("sessions", only_exec)];
    let of = |target| {
        let request = RequestInfo::parse("GET", target).unwrap();
        evaluate(&grants, &caller("ana", &[], true), &request).unwrap().grants
    };
    assert_eq!(of("/api/v1/namespaces/shop/pods/till/exec"), ["sessions"]);
    assert_eq!(of("/api/v1/namespaces/shop/pods"), ["shipped"]);
}

#[test]
fn priorities_count_downwards_and_names_as_text() {
    let at = |name: &str, priority: i32| {
        let mut spec = rules(&serde_json::json!([{}]));
        spec["priority"] = priority.into();
        grant(name, spec)
    };
    let grants = [at("b10", 0), at("low", i32::MIN), at("b9", 0), at("high", i32::MAX), at("B", 0)];
    let found = evaluate(&grants, &caller("ana", &[], true), &exec()).unwrap();
    assert_eq!(found.grants, ["high", "B", "b10", "b9", "low"]);
}
