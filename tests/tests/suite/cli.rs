//! The kubectl plugin as people run it: `kubectl witness …`, with `kubectl-witness` in `PATH`.

use anyhow::{Result, ensure};
use podwitness_core::labels::{BYPASS_UNTIL, EXEMPT, INJECT};
use podwitness_e2e::{
    Kubectl, Namespace, eventually,
    grants::{enforced, with_grant},
    pods::sleeper,
};
use serde_json::Value;

const POLICY: &str = r#"// The policy of a small company.
{
  "groups": {"group:sre": ["ana@example.com", "bo@example.com"]},
  "grants": [
    {"src": ["group:sre"], "dst": ["tag:k8s"], "ip": ["tcp:443"]},
    {
      "src": ["group:sre", "autogroup:admin"],
      "dst": ["tag:k8s"],
      "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:podwitness"], "enforceRecorder": true}]},
    },
  ],
}
"#;

async fn witness(args: &[&str]) -> Result<podwitness_e2e::Run> {
    Kubectl::default().run(&[&["witness"], args].concat()).await
}

#[tokio::test]
async fn explain_says_which_grants_apply() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.start(&sleeper("till")).await?;
        let pod = format!("{}/till", ns.name);
        let ask = ["grants", "explain", "--as", "ana", "--pod", &pod];
        let run = witness(&ask).await?.ok()?.text();
        ensure!(run.starts_with("RECORDED") && run.contains("1. default (priority 0, default)"), "{run}");
        with_grant(&enforced(&ns.name, "tag:nobody"), async || {
            let run = witness(&ask).await?;
            let text = run.text();
            ensure!(run.code == 4 && text.starts_with("REFUSED"), "{run:?}");
            for says in
                [&*format!("1. {} ", ns.name), "no Recorder has this tag", "default: it is a default grant"]
            {
                ensure!(text.contains(says), "{says} is missing: {text}");
            }
            let json = witness(&[&ask[..], &["-o", "json"]].concat()).await?;
            let answer: Value = serde_json::from_slice(&json.stdout)?;
            ensure!(answer["outcome"] == "refused" && answer["follows"]["failClosed"] == true, "{answer}");
            Ok(())
        })
        .await?;
        eventually("a pod without a sidecar is told", async || {
            let run = witness(&["grants", "explain", "--as", "ana", "--pod", "kube-system/none"]).await?;
            ensure!(run.code == 3 && run.text().contains("never get a sidecar"), "{run:?}");
            Ok(())
        })
        .await?;
        let run = witness(&["grants", "explain", "--as", "ana", "--pod", "e2e-none/none"]).await?;
        ensure!(run.code == 1 && run.stderr.contains("there is no namespace e2e-none"), "{run:?}");
        // As kubectl takes them: the namespace is that of the pod, and by default that of the context.
        let run =
            witness(&["grants", "explain", "--as", "ana", "--pod", "till", "-n", &ns.name]).await?.ok()?;
        ensure!(run.text().contains(&format!("From pod    {pod}")), "{run:?}");
        let run = witness(&["grants", "explain", "--as", "ana", "--pod", "none"]).await?;
        ensure!(run.text().contains("From pod    default/none"), "{run:?}");
        for wrong in
            [&["--pod", &pod, "-n", "other"][..], &["--pod", &pod, "--verb", "dance"], &["--pod", "a/b/c"]]
        {
            let run = witness(&[&["grants", "explain", "--as", "ana"], wrong].concat()).await?;
            ensure!(run.code == 64 && run.stdout.is_empty(), "{wrong:?}: {run:?}");
        }
        Ok(())
    })
    .await
}

async fn annotate(ns: &Namespace, annotation: &str) -> Result<()> {
    Kubectl::default()
        .run(&["annotate", "--overwrite", "namespace", &ns.name, annotation])
        .await?
        .ok()
        .map(drop)
}

#[tokio::test]
async fn explain_knows_why_a_pod_is_not_recorded() -> Result<()> {
    Namespace::plain(async |ns| {
        let explain = async |pod: &str, says: &[&str]| {
            let run = witness(&["grants", "explain", "--as", "ana", "--pod", pod, "-n", &ns.name]).await?;
            let text = run.text();
            ensure!(run.code == 3 && text.starts_with("NOT RECORDED"), "{pod}: {run:?}");
            ensure!(says.iter().all(|says| text.contains(says)), "{pod}, {says:?}: {text}");
            Ok(())
        };
        ns.start(&sleeper("older")).await?;
        let delete = format!("kubectl -n {} delete pod older", ns.name);
        explain("older", &["kubectl label namespace", &delete]).await?;
        let optional = format!("{INJECT}=optional");
        Kubectl::default().run(&["label", "namespace", &ns.name, &optional]).await?.ok()?;
        explain("older", &["older than the namespace's label", &delete]).await?;
        // Before a pod that takes a while, so that admission knows it when the pod that it leaves out comes.
        annotate(ns, &format!("{EXEMPT}=app=batch")).await?;
        let mut host = sleeper("host");
        host["spec"]["hostNetwork"] = Value::from(true);
        ns.start(&host).await?;
        explain("host", &["hostNetwork"]).await?;
        ns.start(&sleeper("batch")).await?;
        explain("batch", &["leaves pods with labels app=batch out", EXEMPT]).await?;
        ns.start(&sleeper("till")).await?;
        let ask = ["grants", "explain", "--as", "ana", "--pod", "till", "-n", &ns.name];
        witness(&ask).await?.ok()?;
        annotate(ns, &format!("{BYPASS_UNTIL}=2199-01-01T00:00:00Z")).await?;
        explain(
            "till",
            &[
                "until 2199-01-01T00:00:00Z",
                &format!("kubectl annotate namespace {} {BYPASS_UNTIL}-", ns.name),
            ],
        )
        .await?;
        annotate(ns, &format!("{BYPASS_UNTIL}=2020-01-01T00:00:00Z")).await?;
        witness(&ask).await?.ok()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn errors_are_words() -> Result<()> {
    let run =
        witness(&["grants", "explain", "--as", "ana", "--pod", "till", "--context", "e2e-none"]).await?;
    ensure!(run.code == 1 && run.stderr.contains("has no context e2e-none"), "{run:?}");
    ensure!(!run.stderr.contains(['{', '"']), "{run:?}");
    let run = witness(&["completion", "bash"]).await?.ok()?;
    ensure!(run.text().contains("kubectl-witness"), "{run:?}");
    let run = witness(&["--version"]).await?.ok()?;
    ensure!(run.text().contains('+'), "no commit: {run:?}");
    Ok(())
}

#[tokio::test]
async fn an_imported_policy_is_taken_by_the_api_server() -> Result<()> {
    let kubectl = Kubectl::default();
    let args = ["witness", "grants", "import", "-", "--map", "tag:k8s=namespace:e2e-never"];
    let run = kubectl.run_with_stdin(&args, POLICY.as_bytes()).await?.ok()?;
    ensure!(
        run.stderr.contains("-:5:5: left out:") && run.stderr.contains("wider: src autogroup:admin"),
        "{run:?}"
    );
    let taken =
        kubectl.run_with_stdin(&["create", "--dry-run=server", "-f", "-", "-o", "json"], &run.stdout).await?;
    let grant: Value = serde_json::from_slice(&taken.ok()?.stdout)?;
    ensure!(grant["spec"]["src"][0] == "*" && grant["spec"]["dst"][0] == "namespace:e2e-never", "{grant}");
    let wrong = kubectl.run_with_stdin(&["witness", "grants", "import", "-"], b"{\n  grants: []\n}").await?;
    ensure!(wrong.code == 1 && wrong.stderr.contains("line 2") && wrong.stdout.is_empty(), "{wrong:?}");
    Ok(())
}
