//! The kubectl plugin as people run it: `kubectl witness …`, with `kubectl-witness` in `PATH`.

use anyhow::{Result, ensure};
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
            ensure!(run.code == 3 && run.text().contains("not labelled"), "{run:?}");
            Ok(())
        })
        .await?;
        let run = witness(&["grants", "explain", "--as", "ana", "--pod", "e2e-none/none"]).await?;
        ensure!(run.code == 1 && run.stderr.contains("there is no namespace e2e-none"), "{run:?}");
        let run = witness(&["grants", "explain", "--as", "ana", "--pod", "none"]).await?;
        ensure!(run.code == 64 && run.stderr.contains("NAMESPACE/POD"), "{run:?}");
        Ok(())
    })
    .await
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
