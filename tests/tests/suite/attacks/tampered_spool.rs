//! What a session has shown cannot be rewritten while its recording waits on the node's disk.

use anyhow::{Result, ensure};
use podwitness_core::inject::MOUNT_SPOOL;
use podwitness_e2e::{
    Kubectl, Namespace, Viewer, eventually,
    grants::{grant, with_grant},
    pods::{overseer, sleeper},
};
use serde_json::{Value, json};

/// Runs a command of the node's root for each file of lines in the spools of a namespace's pods that has `needle`, as
/// `$lines`. Fails where there is none.
async fn each_file(plain: &Namespace, ns: &Namespace, needle: &str, command: &str) -> Result<()> {
    let script = format!(
        "for process in /proc/[0-9]*; do
            [ \"$(cat $process/comm)\" = podwitness-side ] || continue
            tr '\\0' '\\n' <$process/environ | grep -qx POD_NAMESPACE={} || continue
            for lines in $(grep -lF '{needle}' $process/root{MOUNT_SPOOL}/*/*.lines); do {command} && echo done; done
        done",
        ns.name
    );
    let run = plain.shell("overseer", &script).await?;
    ensure!(run.text().contains("done"), "no spool has {needle:?}: {run:?}");
    Ok(())
}

/// The recordings wait because their grant names a recorder that there is not, and go on when it is corrected.
#[tokio::test]
async fn a_recording_that_was_rewritten_on_the_disk_says_so() -> Result<()> {
    Namespace::plain(async |plain| {
        Namespace::witnessed(async |ns| {
            ns.allow_all().await?;
            let witness = ns.start(&sleeper("witness")).await?;
            plain.start(&overseer("overseer", &witness)?).await?;
            let nowhere = json!({"recorder": [format!("tag:{}-typo", ns.name)]});
            let nowhere = grant(&ns.name, &format!("namespace:{}", ns.name), &nowhere);
            with_grant(&nowhere, async || rewritten(ns, plain).await).await
        })
        .await
    })
    .await
}

async fn rewritten(ns: &Namespace, plain: &Namespace) -> Result<()> {
    let say = async |word: &str| {
        let script = format!("kubectl -n {} exec witness -- sh -c 'echo {word}'", ns.name);
        ns.shell("witness", &script).await?.ok()
    };
    eventually("a session is kept in the spool", async || {
        say("kept").await?;
        each_file(plain, ns, "\"kept\\n\"", "true").await
    })
    .await?;
    for word in ["incriminating", "untouched"] {
        say(word).await?;
        eventually("it is on the disk", async || each_file(plain, ns, word, "true").await).await?;
    }
    // Into the same file, which the sidecar has open.
    let rewrite = "sed s/incriminating/insignificant/ $lines >/tmp/forged && cat /tmp/forged >$lines";
    each_file(plain, ns, "incriminating", rewrite).await?;

    let rules = json!([{"recorder": ["tag:podwitness"]}]);
    let corrected = json!({"spec": {"app": {"tailscale.com/cap/kubernetes": rules}}}).to_string();
    let patch = ["patch", "grant", &ns.name, "--type=merge", "-p", &corrected];
    Kubectl::default().run(&patch).await?.ok()?;
    let viewer = Viewer::open().await?;
    let untouched = viewer.recording(&ns.name, "echo untouched").await?;
    ensure!(untouched.text("o") == "untouched\n" && untouched.is_whole(), "{untouched:?}");
    let changed = viewer.recording(&ns.name, "echo incriminating").await?;
    ensure!(changed.text("x-gap").ends_with(" tampered"), "{changed:?}");
    ensure!(changed.text("x-close") == "gap" && !changed.text("o").contains("insignificant"), "{changed:?}");

    eventually("the pod says so", async || {
        let events = ns.kubectl.get(&["events", "--field-selector=involvedObject.name=witness"]).await?;
        let items = events.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
        ensure!(items.iter().any(|event| event.get("reason") == Some(&json!("SpoolTampered"))), "{items:?}");
        Ok(())
    })
    .await
}
