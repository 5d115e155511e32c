//! Rows without a recorder, without a netmap, and without a grant.

use anyhow::{Result, ensure};
use podwitness_core::{inject::ADMIN_PORT, labels};
use podwitness_e2e::{
    Kubectl, Namespace, eventually,
    faulty::{Kind, TestRecorder},
    outage::{Outage, during, with_outages},
    pods::sleeper,
    schedule::{Class, enter},
};
use serde_json::json;

use super::{
    lab::{Lab, start as start_pods, start_target, with_grants, with_namespaces},
    row::{Fate, in_the_end, start},
    session::Lane,
};

const LANES: [Lane; 2] = [Lane::Open, Lane::Closed];

#[tokio::test]
async fn no_recorder_has_the_tag() -> Result<()> {
    enter(Class::Long).await;
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
async fn there_never_was_a_netmap() -> Result<()> {
    let test = async |lab: &Lab<'_>| {
        let mut begun = Vec::new();
        let early = async || {
            admission_knows_the_grants(lab.ns).await?;
            tokio::try_join!(start_pods(lab.ns, &LANES), start_target(lab.plain))?;
            begun = start(lab, &LANES, Fate::TooEarly).await?;
            anyhow::Ok(())
        };
        during(Outage::Control, early).await?;
        in_the_end(lab, &begun, Fate::TooEarly).await
    };
    with_outages(async || with_lab(test).await).await
}

/// Sessions pass, are counted and not recorded; the same pod is recorded again as soon as there is a grant.
#[tokio::test]
async fn no_grant_matches() -> Result<()> {
    with_outages(async || {
        with_namespaces(async |ns, plain| {
            TestRecorder::with(&ns.name, Kind::Small, async |recorder| {
                nothing_is_recorded(&Lab::new(ns, plain, recorder).await?).await
            })
            .await
        })
        .await
    })
    .await
}

async fn nothing_is_recorded(lab: &Lab<'_>) -> Result<()> {
    let Lab { ns, plain, .. } = lab;
    let mut passed = Vec::new();
    let ungranted = async || {
        labelling_warns().await?;
        tokio::try_join!(start_pods(ns, &[Lane::Open]), start_target(plain))?;
        eventually("sessions are let through unrecorded", async || {
            ns.shell("open", &format!("kubectl -n {} exec target -- true", plain.name)).await?.ok()?;
            ensure!(passes(ns).await? > 0, "none was");
            Ok(())
        })
        .await?;
        let before = passes(ns).await?;
        passed = start(lab, &[Lane::Open], Fate::Completes).await?;
        let counted = passes(ns).await? - before;
        ensure!(counted == passed.len(), "{counted} are counted");
        anyhow::Ok(())
    };
    during(Outage::DefaultGrant, ungranted).await?;
    with_grants(ns, &[Lane::Open], async || lab.settle(&[Lane::Open]).await).await?;
    for (case, _) in &passed {
        lab.nothing_recorded(case).await?;
    }
    Ok(())
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

/// Labelling a namespace that no grant matches warns; admission learns of grants by its own watch.
async fn labelling_warns() -> Result<()> {
    let labels = json!({labels::INJECT: "required", "pod-security.kubernetes.io/enforce": "privileged"});
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "e2e-never", "labels": labels}});
    eventually("labelling warns", async || {
        let run = Kubectl::default().create(&namespace, &["--dry-run=server"]).await?.ok()?;
        let told = run.stderr.contains("nothing is recorded: no Grant matches them")
            && run.stderr.contains("namespace:e2e-never");
        ensure!(told, "{run:?}");
        Ok(())
    })
    .await
}
