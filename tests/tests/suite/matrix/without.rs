//! Rows without a recorder, without a netmap, and without a grant.

use anyhow::{Result, ensure};
use podwitness_core::{inject::ADMIN_PORT, labels};
use podwitness_e2e::{
    Kubectl, Namespace, eventually,
    faulty::{Kind, TestRecorder},
    parts::{CONTROL, without},
    pods::sleeper,
};
use serde_json::json;

use super::{
    lab::{CLUSTER, Lab, start as start_pods, start_target, with_grants, with_namespaces},
    row::{Fate, in_the_end, start},
    session::Lane,
};

const LANES: [Lane; 2] = [Lane::Open, Lane::Closed];

#[tokio::test]
#[ignore = "takes minutes; hack/test runs it beside the others"]
async fn no_recorder_has_the_tag() -> Result<()> {
    let _shared = CLUSTER.read().await;
    let refused = Fate::Refused("no Recorder that is ready has its tag");
    with_lab(async |lab| {
        let mut begun = Vec::new();
        let unnamed = async || {
            tokio::try_join!(start_pods(lab.ns, &LANES), start_target(lab.plain))?;
            knows_the_grants(lab.ns).await?;
            begun = start(lab, &LANES, refused).await?;
            anyhow::Ok(())
        };
        lab.recorder.unnamed(unnamed).await?;
        in_the_end(lab, &begun, refused).await
    })
    .await
}

#[tokio::test]
#[ignore = "takes minutes; hack/test runs it beside the others"]
async fn there_never_was_a_netmap() -> Result<()> {
    let _alone = CLUSTER.write().await;
    with_lab(async |lab| {
        let mut begun = Vec::new();
        let early = async || {
            admission_knows_the_grants(lab.ns).await?;
            tokio::try_join!(start_pods(lab.ns, &LANES), start_target(lab.plain))?;
            begun = start(lab, &LANES, Fate::TooEarly).await?;
            anyhow::Ok(())
        };
        without(CONTROL, early).await?;
        in_the_end(lab, &begun, Fate::TooEarly).await
    })
    .await
}

/// Sessions pass, are counted and not recorded; the same pod is recorded again as soon as there is a grant.
#[tokio::test]
#[ignore = "takes minutes; hack/test runs it beside the others"]
async fn no_grant_matches() -> Result<()> {
    let _alone = CLUSTER.write().await;
    with_namespaces(async |ns, plain| {
        TestRecorder::with(&ns.name, Kind::Small, async |recorder| {
            let lab = Lab::new(ns, plain, recorder).await?;
            let mut passed = Vec::new();
            let ungranted = async || {
                labelling_warns().await?;
                tokio::try_join!(start_pods(ns, &[Lane::Open]), start_target(plain))?;
                eventually("sessions are let through unrecorded", async || {
                    ns.shell("open", &format!("kubectl -n {} exec target -- true", plain.name))
                        .await?
                        .ok()?;
                    ensure!(passes(ns).await? > 0, "none was");
                    Ok(())
                })
                .await?;
                let before = passes(ns).await?;
                passed = start(&lab, &[Lane::Open], Fate::Completes).await?;
                let counted = passes(ns).await? - before;
                ensure!(counted == passed.len(), "{counted} are counted");
                anyhow::Ok(())
            };
            without_default_grant(ungranted).await?;
            with_grants(ns, &[Lane::Open], async || lab.settle(&[Lane::Open]).await).await?;
            for (case, _) in &passed {
                lab.nothing_recorded(case).await?;
            }
            Ok(())
        })
        .await
    })
    .await
}

async fn with_lab(test: impl AsyncFnOnce(&Lab<'_>) -> Result<()>) -> Result<()> {
    with_namespaces(async |ns, plain| {
        TestRecorder::with(&ns.name, Kind::Small, async |recorder| {
            let lab = Lab::new(ns, plain, recorder).await?;
            with_grants(ns, &LANES, async || test(&lab).await).await
        })
        .await
    })
    .await
}

/// Waits until the sidecar of the closed lane has a netmap.
async fn knows_the_grants(ns: &Namespace) -> Result<()> {
    eventually("the grant is known", async || {
        let run = ns.shell("closed", "kubectl exec closed -- true").await?;
        ensure!(run.code != 0 && run.stderr.contains("Grant"), "{run:?}");
        Ok(())
    })
    .await
}

/// Waits until a pod of the closed lane is told to wait for its netmap.
async fn admission_knows_the_grants(ns: &Namespace) -> Result<()> {
    eventually("admission stamps the pod closed", async || {
        let args = ["--dry-run=server", "-o", "json"];
        let run = ns.kubectl.create(&sleeper("closed"), &args).await?.ok()?;
        ensure!(run.text().contains("\"closed\""), "{run:?}");
        Ok(())
    })
    .await
}

/// Sessions of the open lane that passed because no grant asks for a recording.
async fn passes(ns: &Namespace) -> Result<usize> {
    let ask = format!("wget -qO- http://$(hostname -i):{ADMIN_PORT}/metrics");
    let metrics = ns.shell("open", &ask).await?.ok()?.text();
    let name = "podwitness_proxy_upgrades_total{purpose=\"Exec\",outcome=\"NoGrant\"} ";
    Ok(metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(Ok(0), str::parse)?)
}

/// Whoever labels a namespace that no grant means is told; admission learns of grants by its own watch.
async fn labelling_warns() -> Result<()> {
    let labels = json!({labels::INJECT: "required", "pod-security.kubernetes.io/enforce": "privileged"});
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "e2e-never", "labels": labels}});
    eventually("labelling warns", async || {
        let run = Kubectl::default().create(&namespace, &["--dry-run=server"]).await?.ok()?;
        let told = run.stderr.contains("nothing is recorded: no Grant means them")
            && run.stderr.contains("namespace:e2e-never");
        ensure!(told, "{run:?}");
        Ok(())
    })
    .await
}

/// Runs `test` while the shipped grant applies to nothing.
async fn without_default_grant(test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    default_grant_for("namespace:nothing").await?;
    let result = test().await;
    default_grant_for("*").await?;
    result
}

async fn default_grant_for(dst: &str) -> Result<()> {
    let patch = json!({"spec": {"dst": [dst]}}).to_string();
    let args = ["patch", "grant", "default", "--type=merge", "-p", &patch];
    Kubectl::default().run(&args).await?.ok().map(drop)
}
