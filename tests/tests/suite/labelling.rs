//! Warnings at labelling a namespace whose pods are older than the label.

use anyhow::{Result, ensure};
use podwitness_core::labels;
use podwitness_e2e::{Kubectl, Namespace, TOOLBOX, eventually, pods::sleeper};
use serde_json::json;

const INJECT: &str = labels::INJECT;

async fn label(ns: &Namespace, value: &str) -> Result<String> {
    let label = format!("{INJECT}{value}");
    let run = Kubectl::default().run(&["label", "--overwrite", "namespace", &ns.name, &label]).await?.ok()?;
    Ok(run.stderr)
}

#[tokio::test]
async fn older_pods_are_counted_with_the_command_that_restarts_them() -> Result<()> {
    Namespace::plain(async |ns| {
        ns.start(&sleeper("alone")).await?;
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": TOOLBOX,
                    "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]}]}}}});
        ns.kubectl.create(&deployment, &[]).await?.ok()?;
        ns.kubectl.run(&["rollout", "status", "deployment/web", "--timeout=120s"]).await?.ok()?;
        let restart = format!("kubectl -n {} rollout restart deployment", ns.name);
        let said = label(ns, "=optional").await?;
        for says in ["3 pods are older than the label", &*restart, "delete and recreate 1"] {
            ensure!(said.contains(says), "{says} is missing: {said}");
        }
        // What it says works.
        ns.kubectl.run(&["rollout", "restart", "deployment"]).await?.ok()?;
        ns.kubectl.run(&["rollout", "status", "deployment/web", "--timeout=120s"]).await?.ok()?;
        eventually("only the pod without an owner is left", async || {
            label(ns, "-").await?;
            let said = label(ns, "=optional").await?;
            ensure!(
                said.contains("1 pod is older than the label") && !said.contains("rollout restart"),
                "{said}"
            );
            Ok(())
        })
        .await?;
        ns.kubectl.run(&["delete", "pod", "alone"]).await?.ok()?;
        label(ns, "-").await?;
        let said = label(ns, "=optional").await?;
        ensure!(!said.contains("older than the label"), "{said}");
        let table = Kubectl::default().run(&["get", "namespace", &ns.name, "-L", INJECT]).await?.ok()?.text();
        ensure!(table.contains("INJECT") && table.contains("optional"), "{table}");
        Ok(())
    })
    .await
}
