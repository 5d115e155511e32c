use proptest::{collection::vec, prelude::*, sample::select as one_of};

use super::*;
use crate::{
    grant::{
        Fate, GrantSpec, Obligation, Rule, evaluate,
        evaluate::{merge, rules_for},
        explain,
        select::{Scope, src_fits},
    },
    request_info::RequestInfo,
};

/// What `evaluate` means, as a loop over every grant.
fn plain(grants: &[Grant], caller: &Caller, request: &RequestInfo) -> Option<Obligation> {
    let scope = Scope::of(request);
    let matching = |default: bool| {
        let mut found: Vec<(&Grant, Vec<&Rule>)> = grants
            .iter()
            .filter(|grant| grant.spec.default == default && src_fits(&grant.spec, caller))
            .map(|grant| (grant, rules_for(grant, &scope)))
            .filter(|(_, rules)| !rules.is_empty())
            .collect();
        found.sort_by(|(a, _), (b, _)| {
            b.spec.priority.cmp(&a.spec.priority).then_with(|| a.name.cmp(&b.name))
        });
        found
    };
    merge(&matching(false)).or_else(|| merge(&matching(true)))
}

const SRC: [&str; 16] = [
    "*",
    "ana",
    "user:ana",
    "user:*",
    "bob@example.com",
    "group:sre",
    "group:*",
    "group:",
    "serviceaccount:shop/till",
    "serviceaccount:shop/t*",
    "serviceaccount:*/till",
    "serviceaccount:s*p/*",
    "serviceaccount:shop",
    "autogroup:member",
    "user:system:serviceaccount:shop:till",
    "system:serviceaccount:shop:till",
];
const USERS: [&str; 8] = [
    "ana",
    "*",
    "bob@example.com",
    "autogroup:member",
    "serviceaccount:shop",
    "system:serviceaccount:shop:till",
    "system:serviceaccount:office:till",
    "",
];
const TARGETS: [&str; 6] = [
    "/api/v1/namespaces/shop/pods/till/exec",
    "/api/v1/namespaces/office/pods/desk/attach",
    "/api/v1/namespaces/shop/pods",
    "/api/v1/nodes/x/proxy/run/shop/till/app",
    "/api/v1/nodes/x/proxy/cri/exec/token",
    "/healthz",
];

fn rule() -> impl Strategy<Value = Rule> {
    let few = |words: &'static [&'static str]| vec(one_of(words).prop_map(str::to_owned), 0..2);
    let scope = (few(&["shop", "o*"]), few(&["get", "create", "*"]), few(&["pods/exec", "pods/*", "pods"]));
    let named = (few(&["tag:a", "tag:b", "tag:c"]), few(&["--password", "-p"]));
    (scope, named, any::<[bool; 2]>(), proptest::option::of(1_u64..9)).prop_map(
        |(
            (namespaces, verbs, resources),
            (recorder, mask_flags),
            [enforce_recorder, enable_events],
            lead,
        )| {
            Rule {
                namespaces,
                verbs,
                resources,
                recorder,
                mask_flags,
                enforce_recorder,
                enable_events,
                lead,
                ..Rule::default()
            }
        },
    )
}

fn grant() -> impl Strategy<Value = Grant> {
    let src = vec(one_of(&SRC[..]).prop_map(str::to_owned), 0..3);
    ("[a-c]", src, -1..2_i32, any::<bool>(), vec(rule(), 0..3)).prop_map(
        |(name, src, priority, default, kubernetes)| Grant {
            name,
            spec: GrantSpec {
                src,
                priority,
                default,
                app: crate::grant::App { kubernetes },
                ..GrantSpec::default()
            },
        },
    )
}

fn user() -> impl Strategy<Value = User> {
    let groups = vec(one_of(&["sre", "*", "", "member"][..]).prop_map(str::to_owned), 0..3);
    (one_of(&USERS[..]), groups).prop_map(|(name, groups)| User { name: name.to_owned(), groups })
}

fn caller() -> impl Strategy<Value = Caller> {
    (user(), proptest::option::of(user()), proptest::bool::weighted(0.8)).prop_map(
        |(authenticated, effective, verified)| Caller {
            effective: effective.unwrap_or_else(|| authenticated.clone()),
            authenticated,
            verified,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_index_answers_as_a_loop_over_every_grant(
        list in vec(grant(), 0..8), caller in caller(), target in one_of(&TARGETS[..]), post: bool,
    ) {
        let request = RequestInfo::parse(if post { "POST" } else { "GET" }, target).unwrap();
        let grants = Grants::from(list.clone());
        prop_assert_eq!(evaluate(&grants, &caller, &request), plain(&list, &caller, &request));
    }

    #[test]
    fn what_is_explained_is_what_is_evaluated(
        list in vec(grant(), 0..8), caller in caller(), target in one_of(&TARGETS[..]),
    ) {
        let request = RequestInfo::parse("GET", target).unwrap();
        let grants = Grants::from(list);
        let fates = explain(&grants, &caller, &request);
        prop_assert_eq!(fates.len(), grants.len());
        let applies: Vec<String> = fates
            .iter()
            .filter(|(_, fate)| matches!(fate, Fate::Applies(_)))
            .map(|(grant, _)| grant.name.clone())
            .collect();
        let evaluated = evaluate(&grants, &caller, &request).map(|obligation| obligation.grants);
        prop_assert_eq!(applies, evaluated.unwrap_or_default());
    }
}

#[test]
fn on_the_wire_it_is_a_list() {
    let text = r#"[{"name":"g","src":["*"],"dst":["*"],"priority":0,"default":false,"app":{}}]"#;
    let grants: Grants = serde_json::from_str(text).unwrap();
    assert_eq!((grants.len(), &*grants[0].name), (1, "g"));
    let back = serde_json::to_value(&grants).unwrap();
    assert_eq!(serde_json::from_value::<Vec<Grant>>(back).unwrap(), grants.to_vec());
    assert!(grants.meant(&Caller::default())[0].len() == 1, "an index does not change what is equal");
    assert_eq!(grants, serde_json::from_str(text).unwrap());
}
