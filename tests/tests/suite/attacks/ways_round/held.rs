//! A connection that is opened while recording is suspended, passes raw, and is used when recording is no longer suspended.

use anyhow::{Result, ensure};
use podwitness_core::labels::BYPASS_UNTIL;
use podwitness_e2e::{Kubectl, Namespace, Run, eventually};

use super::{
    Arena, Pass,
    run::{Background, Tried},
};

/// Who certifies the API server, as clients see it: the cluster's authority where nothing is terminated.
const ISSUER: &str = "speak --over none --path /version";
/// What `speak` says once something was asked and answered on a connection that it holds.
const IN_USE: &str = "held\n";

/// Tries the way of a script, which has HOLD for the file that lets the connection be used.
pub(super) async fn try_one(arena: &Arena<'_>, pass: Pass, mark: &str, script: &str) -> Result<Tried> {
    let (ns, pod) = arena.pod(pass);
    let held = Background { ns, pod, mark };
    let go = format!("/tmp/go-{mark}");
    let script = script.replace("HOLD", &go);
    let go = async || ns.shell(pod, &format!("touch {go}")).await?.ok();
    if pass == Pass::Direct {
        held.start(&script, IN_USE).await?;
        go().await?;
        return held.outcome().await;
    }
    let authority = issuer(&arena.plain.shell("target", ISSUER).await?.ok()?)?;
    suspend(ns, Some("2099-01-01T00:00:00Z")).await?;
    eventually("recording is suspended", async || {
        let found = issuer(&ns.shell(pod, ISSUER).await?.ok()?)?;
        ensure!(found == authority, "connections are terminated: {found} is not {authority}");
        Ok(())
    })
    .await?;
    let said = held.start(&script, IN_USE).await?;
    ensure!(said.contains(&authority), "the connection does not pass raw: {said}");
    suspend(ns, None).await?;
    // Where it does not end by itself, it is used all the same, and the target tells.
    if held.outcome().await.is_err() {
        go().await?;
    }
    held.outcome().await
}

/// The line in which `speak` says it.
fn issuer(run: &Run) -> Result<String> {
    let line = run.stderr.lines().find(|line| line.starts_with("peer certified by"));
    line.map(ToOwned::to_owned)
        .ok_or_else(|| anyhow::anyhow!("the certificate of the peer is not shown: {run:?}"))
}

async fn suspend(ns: &Namespace, until: Option<&str>) -> Result<()> {
    let annotation =
        until.map_or_else(|| format!("{BYPASS_UNTIL}-"), |until| format!("{BYPASS_UNTIL}={until}"));
    Kubectl::default().run(&["annotate", "namespace", &ns.name, &annotation]).await?.ok().map(drop)
}
