//! What a request costs that asks which grants apply: `cargo bench -p podwitness-core`. The budget is 5 µs with 1,000
//! grants that mostly mean others; `explain` looks at every grant, as evaluation would without its index.

#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use podwitness_core::{
    grant::{Grant, Grants, evaluate, explain},
    identity::{Caller, User},
    request_info::RequestInfo,
};
use serde_json::json;

fn grants() -> Grants {
    let src = |n: usize| match n % 5 {
        0 => format!("user:user-{n}@example.com"),
        1 | 2 => format!("group:team-{n}"),
        3 => format!("serviceaccount:team-{n}/deploy-*"),
        _ => format!("group:oidc:department-{n}"),
    };
    (0..1_000)
        .map(|n| {
            let rule = json!({"recorder": ["tag:podwitness"], "enforceRecorder": n % 2 == 0,
                "namespaces": [format!("team-{n}-*"), "shop"], "resources": ["pods/*"]});
            let spec = json!({"src": [src(n)], "dst": ["*"], "priority": n % 7,
                "app": {"tailscale.com/cap/kubernetes": [rule]}});
            Grant { name: format!("grant-{n}"), spec: serde_json::from_value(spec).unwrap() }
        })
        .collect()
}

fn caller(name: &str, groups: &[&str]) -> Caller {
    let user = User { name: name.into(), groups: groups.iter().map(|group| (*group).into()).collect() };
    Caller { authenticated: user.clone(), effective: user, verified: true }
}

fn benches(c: &mut Criterion) {
    let grants = grants();
    let request = RequestInfo::parse("GET", "/api/v1/namespaces/shop/pods/till/exec?command=sh").unwrap();
    let account = "system:serviceaccount:team-503:deploy-7";
    let mut impersonated = caller(account, &["system:serviceaccounts"]);
    impersonated.effective = caller("user-500@example.com", &["team-501", "oidc:department-4"]).effective;
    for (name, caller) in [
        ("nobody's", caller("ines@example.com", &["system:authenticated"])),
        ("a user with 20 groups", {
            let groups: Vec<String> = (100..120).map(|n| format!("team-{n}")).collect();
            caller("user-500@example.com", &groups.iter().map(String::as_str).collect::<Vec<_>>())
        }),
        ("a service account", caller(account, &["system:serviceaccounts", "system:authenticated"])),
        ("an impersonated user", impersonated),
    ] {
        let mut group = c.benchmark_group(name);
        group.bench_function("evaluate", |b| {
            b.iter(|| evaluate(black_box(&grants), black_box(&caller), black_box(&request)));
        });
        group.bench_function("explain", |b| {
            b.iter(|| explain(black_box(&grants), black_box(&caller), black_box(&request)).len());
        });
        group.finish();
    }
    let unverified = Caller { verified: false, ..caller("ines@example.com", &[]) };
    c.bench_function("nobody verified: every grant", |b| {
        b.iter(|| evaluate(black_box(&grants), black_box(&unverified), black_box(&request)));
    });
}

criterion_group!(evaluation, benches);
criterion_main!(evaluation);
