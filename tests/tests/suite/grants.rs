//! Grants as the API server takes them, and what the control plane says of them.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Kubectl, Namespace, eventually,
    grants::{grant, with_grant},
};
use serde_json::{Value, json};

/// Creates a Grant with this specification as a trial.
async fn trial(spec: &Value) -> Result<podwitness_e2e::Run> {
    let object = json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Grant",
        "metadata": {"name": "e2e-never"}, "spec": spec});
    Kubectl::default().create(&object, &["--dry-run=server"]).await
}

fn spec(src: &Value, dst: &Value, rule: &Value) -> Value {
    json!({"src": src, "dst": dst, "app": {"tailscale.com/cap/kubernetes": [rule]}})
}

#[tokio::test]
async fn grants_that_cannot_mean_what_they_say_are_refused() -> Result<()> {
    let (all, rule) = (json!(["*"]), json!({"recorder": ["tag:x"]}));
    let src = |src: Value| spec(&src, &all, &rule);
    let dst = |dst: Value| spec(&all, &dst, &rule);
    let with = |rule: Value| spec(&all, &all, &rule);
    for (spec, says) in [
        (src(json!([])), "a grant without src matches no user"),
        (dst(json!([])), "a grant without dst matches no pod"),
        (src(json!(["serviceaccount:till"])), "serviceaccount:NAMESPACE/NAME"),
        (src(json!(["ana*"])), "* stands alone"),
        (src(json!(["group:sre-*"])), "* stands alone"),
        (src(json!(["group:"])), "user:NAME or group:NAME with a name"),
        (src(json!([""])), "src[0]"),
        (dst(json!(["pod:till"])), "pod:NAMESPACE/NAME"),
        (dst(json!(["namespace:Shop"])), "namespace:NAME"),
        (dst(json!(["tag:"])), "tag.podwitness.dev/NAME"),
        (with(json!({"enforceRecorder": true})), "enforceRecorder without a recorder"),
        (with(json!({"recorder": ["podwitness"]})), "tag:NAME"),
        (with(json!({"namespaces": ["namespace:shop"]})), "without a prefix"),
        (src(json!(["serviceaccount:shop/Till"])), "in lower case"),
        (with(json!({"verbs": ["GET"]})), "lower-case API verbs"),
        (with(json!({"verbs": ["gett"]})), "lower-case API verbs"),
        (with(json!({"verbs": ["get", "exec"]})), "pods/exec"),
        (with(json!({"resources": ["Pods"]})), "plural names"),
        (with(json!({"maskFlags": ["--password=x"]})), "maskFlags are flags"),
        (with(json!({"lead": 0})), "lead"),
        (with(json!({"lead": 1_048_577})), "lead"),
        (with(json!({"requireAck": "disk"})), "requireAck"),
        (with(json!({"opaque": "maybe"})), "opaque"),
        (with(json!({"enforceRecoder": true})), "unknown field"),
    ] {
        let run = trial(&spec).await?;
        ensure!(run.code != 0 && run.stderr.contains(says), "{spec}: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn grants_of_a_policy_file_are_taken_as_they_are() -> Result<()> {
    let rule =
        json!({"recorder": ["tag:k8s-rec"], "enforceRecorder": true, "impersonate": {"groups": ["g"]}});
    for (src, dst) in [
        (json!(["*"]), json!(["*"])),
        (json!(["group:oidc:sre", "user:ana@example.com", "bo@example.com"]), json!(["namespace:sh*"])),
        (json!(["serviceaccount:*/deploy-*"]), json!(["pod:shop/till-*", "tag:pci"])),
        (json!(["autogroup:member", "tag:k8s"]), json!(["autogroup:self", "100.64.0.7"])),
    ] {
        let mut spec = spec(&src, &dst, &rule);
        spec["ip"] = json!(["tcp:443"]);
        trial(&spec).await?.ok()?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_writes_a_grant_without_a_recorder_is_warned() -> Result<()> {
    let all = json!(["*"]);
    let mut default = spec(&all, &all, &json!({}));
    default["default"] = json!(true);
    for (spec, warned) in [
        (spec(&all, &all, &json!({})), true),
        (spec(&all, &all, &json!({"recorder": [], "enableEvents": true})), true),
        (spec(&all, &all, &json!({"recorder": ["tag:x"]})), false),
        (default, false),
        (json!({"src": ["*"], "dst": ["*"]}), false),
    ] {
        let run = trial(&spec).await?;
        let told = run.stderr.contains("default grants are kept away from it");
        ensure!(run.code == 0 && told == warned, "{spec}: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn grants_that_match_nothing_are_told_with_what_was_meant() -> Result<()> {
    Namespace::witnessed(async |ns| {
        let (all, rule) = (json!(["*"]), json!({"recorder": ["tag:x"]}));
        let (wrong, right) = (format!("{}x", ns.name), format!("namespace:{}", ns.name));
        let dst = |dst: &str| spec(&all, &json!([dst]), &rule);
        let with = |rule: Value| spec(&all, &all, &rule);
        eventually("admission knows the namespace", async || {
            for (spec, refused, says) in [
                (dst("shop"), false, "did you mean namespace:shop?"),
                (dst("ns:shop"), false, "did you mean namespace:shop?"),
                (dst("pods:shop/till"), false, "did you mean pod:shop/till?"),
                (dst(&format!("namespace:{wrong}")), false, &*format!("did you mean {right}?")),
                (dst(&right), false, ""),
                (spec(&json!(["groups:sre"]), &all, &rule), false, "did you mean group:sre?"),
                (spec(&json!(["autogroup:member"]), &all, &rule), false, "src matches no user"),
                (
                    with(json!({"recorder": ["tag:x"], "resources": ["pod/exec"]})),
                    false,
                    "did you mean pods/exec?",
                ),
                (
                    with(json!({"recorder": ["tag:x"], "resources": ["deploy"]})),
                    false,
                    "did you mean deployments?",
                ),
                (with(json!({"recorder": ["tag:x"], "verbs": ["gett"]})), true, "did you mean get?"),
            ] {
                let run = trial(&spec).await?;
                ensure!((run.code != 0) == refused && run.stderr.contains(says), "{spec}: {run:?}");
                ensure!(!says.is_empty() || run.stderr.is_empty(), "{spec}: {run:?}");
            }
            Ok(())
        })
        .await
    })
    .await
}

async fn condition(name: &str, kind: &str) -> Result<(String, String)> {
    let grant = Kubectl::default().get(&["grant", name]).await?;
    let conditions = grant.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    let found = found.with_context(|| format!("{name} has no condition {kind} yet"))?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((text("reason"), text("message")))
}

#[tokio::test]
async fn status_says_where_recordings_go_or_why_nowhere() -> Result<()> {
    Namespace::plain(async |ns| {
        let dst = format!("namespace:{}", ns.name);
        let is = async |kind: &str, reason: &str, says: &str| {
            eventually("the status says it", async || {
                let found = condition(&ns.name, kind).await?;
                ensure!(found.0 == reason && found.1.contains(says), "{kind}: {found:?}");
                Ok(())
            })
            .await
        };
        with_grant(&grant(&ns.name, &dst, &json!({"recorder": ["tag:podwitness"]})), async || {
            is("Resolved", "Resolved", "tag:podwitness: ").await?;
            is("Ready", "Ready", "recorder ").await?;
            is("Effective", "Effective", "").await?;
            let table = Kubectl::default().run(&["get", "grant", &ns.name]).await?.ok()?.text();
            for word in ["DEFAULT", "FAILS", "RECORDERS", "READY", "open", "(1)", "True"] {
                ensure!(table.contains(word), "{word} is missing: {table}");
            }
            Ok(())
        })
        .await?;
        with_grant(&grant(&ns.name, "shop", &json!({"recorder": ["tag:podwitness"]})), async || {
            is("Effective", "MatchesNoPod", "did you mean namespace:shop?").await?;
            let table = Kubectl::default().run(&["get", "grant", &ns.name]).await?.ok()?.text();
            ensure!(table.contains("EFFECTIVE") && table.contains("MatchesNoPod"), "{table}");
            Ok(())
        })
        .await?;
        let nobody =
            json!({"recorder": ["tag:nobody"], "enforceRecorder": true, "impersonate": {"groups": ["g"]}});
        with_grant(&grant(&ns.name, &dst, &nobody), async || {
            is("Resolved", "NoRecorder", "no Recorder has tag:nobody").await?;
            is("Ready", "NoRecorder", "sessions are refused until a Recorder with this tag is ready").await?;
            is("Effective", "PartsWithoutEffect", "impersonate").await?;
            let table = Kubectl::default().run(&["get", "grant", &ns.name]).await?.ok()?.text();
            ensure!(table.contains("closed") && table.contains("no Recorder has tag:nobody"), "{table}");
            Ok(())
        })
        .await
    })
    .await
}
