use std::{fs, path::PathBuf};

use super::*;
use crate::args::GrantForm;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policies").join(name)
}

fn imported(text: &str) -> Imported {
    import(text, &Options::default()).unwrap()
}

fn mapped(text: &str, map: &[(&str, &str)]) -> Result<Imported, ImportError> {
    let map = map.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    import(text, &Options { map, keep_groups: false })
}

/// A policy with one grant of `src` and `dst`.
fn policy(src: &str, dst: &str) -> String {
    format!(
        r#"{{"groups": {{"group:sre": ["ana@example.com"]}}, "grants": [{{"src": [{src}], "dst": [{dst}],
        "app": {{"tailscale.com/cap/kubernetes": [{{"recorder": ["tag:rec"]}}]}}}}]}}"#
    )
}

/// What is written and what is reported is what lies beside the policy. `UPDATE=1` writes it anew.
fn golden(name: &str) {
    let text = fs::read_to_string(file(&format!("{name}.hujson"))).unwrap();
    let imported = imported(&text);
    for (suffix, found) in [
        ("yaml", imported.print(GrantForm::Yaml).unwrap()),
        ("report", imported.report(&format!("{name}.hujson"))),
    ] {
        let path = file(&format!("{name}.{suffix}"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &found).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert!(found == expected, "{} has drifted; found\n{found}", path.display());
    }
}

#[test]
fn the_references_example_is_carried_over() {
    golden("reference");
}

#[test]
fn a_grown_policy_is_carried_over_and_nothing_silently() {
    golden("large");
}

#[test]
fn json_holds_the_same_grants() {
    let imported = imported(&policy(r#""group:sre""#, r#""*""#));
    let list: serde_json::Value = serde_json::from_str(&imported.print(GrantForm::Json).unwrap()).unwrap();
    let spec: podwitness_core::grant::GrantSpec =
        serde_json::from_value(list["items"][0]["spec"].clone()).unwrap();
    assert_eq!(spec, imported.grants[0].grant.spec);
    assert_eq!(list["items"][0]["metadata"]["labels"]["podwitness.dev/imported"], "policy");
}

#[test]
fn what_cannot_be_said_here_records_more_and_is_told() {
    for (src, dst) in [
        (r#""autogroup:member""#, r#""*""#),
        (r#""tag:ci""#, r#""*""#),
        (r#""192.0.2.7""#, r#""*""#),
        (r#""group:elsewhere""#, r#""*""#),
        (r#""ana@example.com""#, r#""tag:k8s""#),
        (r#""ana@example.com""#, r#""autogroup:internet""#),
    ] {
        let imported = imported(&policy(src, dst));
        let spec = &imported.grants[0].grant.spec;
        assert!(spec.src == ["*"] || spec.dst == ["*"], "{spec:?}");
        let wider: Vec<&Note> = imported.notes.iter().filter(|note| note.kind == Kind::Wider).collect();
        assert_eq!(wider.len(), 1, "{src} {dst}: {:?}", imported.notes);
        assert!(wider[0].at.is_some() && wider[0].message.contains("becomes *"), "{:?}", wider[0]);
    }
    let exact = imported(&policy(r#""ana@example.com", "bo@example.com", "ana@example.com""#, r#""*""#));
    assert!(exact.notes.iter().all(|note| note.kind == Kind::Hint), "{:?}", exact.notes);
    assert_eq!(exact.grants[0].grant.spec.src, ["ana@example.com", "bo@example.com"]);
}

#[test]
fn a_map_says_better() {
    let text = policy(r#""group:sre", "autogroup:member""#, r#""tag:k8s", "tag:staging""#);
    let map = [
        ("group:sre", "group:oidc:sre"),
        ("autogroup:member", "group:staff"),
        ("tag:k8s", "namespace:shop"),
        ("tag:staging", ""),
    ];
    let imported = mapped(&text, &map).unwrap();
    let spec = &imported.grants[0].grant.spec;
    assert_eq!(
        (&*spec.src, &*spec.dst),
        (&["group:oidc:sre".into(), "group:staff".into()][..], &["namespace:shop".into()][..])
    );
    assert_eq!(imported.notes.iter().filter(|note| note.kind == Kind::LeftOut).count(), 1);
    assert!(imported.notes.iter().all(|note| note.kind != Kind::Wider), "{:?}", imported.notes);
    let all_left_out = mapped(&text, &[("tag:k8s", ""), ("tag:staging", "")]).unwrap();
    assert!(all_left_out.grants.is_empty());
    assert!(all_left_out.notes.iter().any(|note| note.message.contains("no dst left")));
    for (from, to) in [("tag:k8s", "shop"), ("group:sre", "autogroup:admin")] {
        let error = mapped(&text, &[(from, to)]).unwrap_err().to_string();
        assert!(error.contains("means nothing") && error.contains("line 1"), "{error}");
    }
    let kept = import(&text, &Options { keep_groups: true, ..Options::default() }).unwrap();
    assert_eq!(kept.grants[0].grant.spec.src, ["*"], "{:?}", kept.notes);
}

#[test]
fn names_stay_while_whom_and_what_a_grant_means_does() {
    let names =
        |text: &str| imported(text).grants.into_iter().map(|carried| carried.grant.name).collect::<Vec<_>>();
    let one = policy(r#""group:sre", "ana@example.com""#, r#""tag:k8s""#);
    let turned = policy(r#""ana@example.com", "group:sre""#, r#""tag:k8s""#);
    let stricter = one.replace(r#""recorder":"#, r#""enforceRecorder": true, "recorder":"#);
    assert_eq!(names(&one), names(&stricter));
    assert_eq!(names(&one)[0].rsplit('-').next(), names(&turned)[0].rsplit('-').next());
    assert_ne!(names(&one), names(&policy(r#""group:sre""#, r#""tag:k8s""#)));
    let grants = one.split_once(r#""grants": ["#).unwrap().1.trim_end_matches("]}");
    let twice = format!(r#"{{"grants": [{grants}, {grants}]}}"#);
    let found = names(&twice);
    assert_eq!(found[1], format!("{}-2", found[0]));
}

#[test]
fn a_group_with_more_members_than_a_grant_holds_becomes_two_grants() {
    let members: Vec<String> = (0..300).map(|n| format!("\"u{n}@example.com\"")).collect();
    let text = policy(r#""group:sre""#, r#""*""#).replace("\"ana@example.com\"", &members.join(","));
    let imported = imported(&text);
    let sizes: Vec<usize> = imported.grants.iter().map(|carried| carried.grant.spec.src.len()).collect();
    assert_eq!(sizes, [256, 44]);
}

#[test]
fn errors_say_where() {
    for (text, place, says) in [
        ("", "line 1, column 1", "empty"),
        ("[]", "line 1, column 1", "an object"),
        (
            "{\n  \"grants\": [\n    {\"src\": \"*\"}\n  ]\n}",
            "line 3, column 13",
            "src has to be a list of strings",
        ),
        ("{\n  'grants': []\n}", "line 2", "ingle-quoted"),
        ("{\n  \"grants\": [}\n", "line 2", ""),
        ("{\"grants\": [], \"Grants\": []}", "line 1, column 16", "second time"),
        (
            "{\"groups\": {\"group:a\": [], \"group:a\": []}}",
            "line 1, column 28",
            "group:a stands here a second",
        ),
        ("{\"groups\": {\"group:a\": [7]}}", "line 1, column 25", "list of strings"),
        ("{\"a\" 1}", "line 1", "olon"),
        ("{grants: []}", "line 1", ""),
        ("{\"a\": 0x1}", "line 1", ""),
        ("{\"a\": 1 \"b\": 2}", "line 1", ""),
    ] {
        let error = import(text, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(says), "{text:?}: {error}");
    }
    let rule = |rule: &str| policy("\"*\"", "\"*\"").replace("{\"recorder\": [\"tag:rec\"]}", rule);
    for (text, says) in [
        (rule(r#"{"recorder": "tag:rec"}"#), "recorder has to be a list of strings"),
        (rule(r#"{"recorder": ["rec"]}"#), "recorder rec has to be a tag"),
        (rule(r#"{"enforceRecorder": "yes"}"#), "enforceRecorder has to be true or false"),
        (rule(r#"{"recorder": [], "recorder": []}"#), "second time"),
        (rule(&vec![r#"{"recorder": ["tag:a"]}"#; 33].join(",")), "too many entries"),
    ] {
        let error = import(&text, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(says) && error.starts_with("line 2"), "{text}: {error}");
    }
}

/// Such a grant would match, and with that keep the default grant from recording.
#[test]
fn what_asks_for_no_recording_becomes_no_grant() {
    for rule in ["{}", r#"{"impersonate": {"groups": ["g"]}}"#, r#"{"enableEvents": true, "recorder": null}"#]
    {
        let text = policy("\"*\"", "\"*\"").replace("{\"recorder\": [\"tag:rec\"]}", rule);
        let imported = imported(&text);
        assert!(imported.grants.is_empty(), "{rule}: {:?}", imported.grants);
        let told = imported.notes.iter().filter(|note| note.kind == Kind::LeftOut).count();
        assert!(told >= 2, "{rule}: {:?}", imported.notes);
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let text = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(import(&text, &Options::default()), Err(ImportError::Syntax { .. })));
}
