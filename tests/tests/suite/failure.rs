//! What happens when recording is not possible. Recorders that go away are those of one test; the control plane goes
//! away for several tests at once.

use anyhow::{Result, ensure};
use podwitness_core::{inject::MOUNT_SPOOL, labels};
use podwitness_e2e::{
    Namespace, Viewer, eventually,
    grants::{self, enforced, with_grant},
    outage::{Outage, during, with_outages},
    pods::{beside, overseer, sleeper},
    recorders::{tag, viewer, with_recorders},
    replicas::without_recorder,
};
use serde_json::{Value, json};

/// Runs `test` with a Recorder of the name of a namespace.
async fn with_recorder(ns: &Namespace, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    with_recorders(&[(&ns.name, json!({"enableUI": true}))], test).await
}

/// A grant under which that Recorder records what pods of the namespace do, and without it nothing is refused.
fn open(ns: &Namespace) -> Value {
    let rule = json!({"recorder": [tag(&ns.name)]});
    grants::grant(&ns.name, &format!("namespace:{}", ns.name), &rule)
}

/// Waits until a session of this pod is recorded: enrolment, netmap and tunnel are there.
async fn settled(ns: &Namespace, pod: &str, recorder: &str) -> Result<()> {
    let viewer = viewer(recorder).await?;
    let script = format!("kubectl -n {} exec {pod} -- echo settled", ns.name);
    eventually("a session is recorded", async || {
        ns.shell(pod, &script).await?.ok()?;
        ensure!(!viewer.sessions(&ns.name).await?.is_empty(), "none is");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn fail_open_goes_on_and_the_recording_comes_later() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        ns.start(&sleeper("witness")).await?;
        let goes_on = async || {
            settled(ns, "witness", &ns.name).await?;
            let script =
                format!("kubectl -n {} exec witness -- sh -c 'echo unseen for now; exit 3'", ns.name);
            without_recorder(&ns.name, async || {
                let run = ns.shell("witness", &script).await?;
                ensure!(run.code == 3 && run.text() == "unseen for now\n", "{run:?}");
                Ok(())
            })
            .await?;
            let recording = viewer(&ns.name).await?.recording(&ns.name, "unseen for now").await?;
            ensure!(
                recording.text("o") == "unseen for now\n" && recording.text("x-exit") == "3",
                "{recording:?}"
            );
            Ok(())
        };
        with_recorder(ns, async || with_grant(&open(ns), goes_on).await).await
    })
    .await
}

#[tokio::test]
async fn fail_closed_never_starts_the_command() -> Result<()> {
    Namespace::witnessed(async |ns| {
        ns.allow_all().await?;
        ns.start(&sleeper("witness")).await?;
        let script = format!("kubectl -n {} exec witness -- touch /tmp/ran", ns.name);
        let refused = async |reason: &str| {
            eventually("the grant is enforced", async || {
                let run = ns.shell("witness", &script).await?;
                let told =
                    run.stderr.contains(&format!("Grant \"{}\"", ns.name)) && run.stderr.contains(reason);
                ensure!(run.code != 0 && told, "{run:?}");
                Ok(())
            })
            .await?;
            ns.shell("witness", "rm -f /tmp/ran").await?.ok()?;
            let run = ns.shell("witness", &script).await?;
            ensure!(run.code != 0, "{run:?}");
            ensure!(ns.shell("witness", "test -e /tmp/ran").await?.code == 1, "the command ran");
            Ok(())
        };
        with_grant(&enforced(&ns.name, "tag:nobody"), async || {
            refused("no Recorder that is ready has its tag").await
        })
        .await?;
        let is_recorded = async || {
            eventually("it is recorded", async || ns.shell("witness", &script).await?.ok()).await.map(drop)
        };
        let with_its_recorder = async || {
            is_recorded().await?;
            without_recorder(&ns.name, async || refused("asks for a recording, and no").await).await?;
            is_recorded().await
        };
        with_recorder(ns, async || with_grant(&enforced(&ns.name, &tag(&ns.name)), with_its_recorder).await)
            .await
    })
    .await
}

#[tokio::test]
async fn pods_start_and_work_while_the_control_plane_is_away() -> Result<()> {
    let test = async |ns: &Namespace| {
        ns.allow_all().await?;
        let script = format!("kubectl -n {} exec witness -- echo before the netmap", ns.name);
        during(Outage::Control, async || {
            ns.start(&sleeper("witness")).await?;
            let run = ns.shell("witness", &script).await?.ok()?;
            ensure!(run.text() == "before the netmap\n", "{run:?}");
            Ok(())
        })
        .await?;
        Viewer::open().await?.recording(&ns.name, "before the netmap").await?;
        Ok(())
    };
    with_outages(async || Namespace::with(&[(labels::INJECT, "required")], test).await).await
}

/// What a pod that a grant means does before it knows any: it is stamped, and refuses what `script` asks.
async fn refuses_before_its_netmap(
    grant: fn(&str) -> Value,
    stamp: &str,
    script: fn(&str) -> String,
) -> Result<()> {
    let test = async |ns: &Namespace| {
        ns.allow_all().await?;
        let early = async || {
            // Admission learns of the grant by its own watch.
            eventually("admission stamps the pod", async || {
                let run =
                    ns.kubectl.create(&sleeper("w"), &["--dry-run=server", "-o", "json"]).await?.ok()?;
                ensure!(run.text().contains(&format!("\"{stamp}\"")), "{run:?}");
                Ok(())
            })
            .await?;
            ns.start(&sleeper("witness")).await?;
            let run = ns.shell("witness", &script(&ns.name)).await?;
            ensure!(run.code != 0 && run.stderr.contains("podwitness"), "{run:?}");
            Ok(())
        };
        with_grant(&grant(&ns.name), async || {
            during(Outage::Control, early).await?;
            settled(ns, "witness", "podwitness").await
        })
        .await
    };
    with_outages(async || Namespace::with(&[(labels::INJECT, "required")], test).await).await
}

#[tokio::test]
async fn an_enforced_pod_waits_for_its_netmap() -> Result<()> {
    let exec = |ns: &str| format!("kubectl -n {ns} exec witness -- true");
    refuses_before_its_netmap(|ns| enforced(ns, "tag:podwitness"), "closed", exec).await
}

/// kubectl asks again for as long as it is told to, so that its log has to say what it was told.
#[tokio::test]
async fn a_pod_whose_requests_are_recorded_first_waits_with_all_of_them() -> Result<()> {
    let get = |_: &str| {
        "kubectl get --raw /version -v=6 >/tmp/log 2>&1 & until grep -q '503 Service' /tmp/log; do sleep 0.2; done;
         kill $!; echo podwitness >&2; exit 1"
            .to_owned()
    };
    refuses_before_its_netmap(|ns| grants::events(ns, "tag:podwitness", true), "closed-to-all", get).await
}

/// Runs a command for each sidecar of a namespace, from the node; `$process` is its folder in `/proc`.
async fn each_sidecar(plain: &Namespace, ns: &Namespace, command: &str) -> Result<()> {
    let script = format!(
        "for process in /proc/[0-9]*; do
            [ \"$(cat $process/comm)\" = podwitness-side ] || continue
            tr '\\0' '\\n' <$process/environ | grep -qx POD_NAMESPACE={} || continue
            {command} && echo done
        done",
        ns.name
    );
    let run = plain.shell("overseer", &script).await?;
    ensure!(run.text().contains("done"), "no sidecar is like that: {run:?}");
    Ok(())
}

/// Ends the sidecars as the kernel does when memory is short.
async fn kill_sidecars(plain: &Namespace, ns: &Namespace) -> Result<()> {
    each_sidecar(plain, ns, "kill -9 ${process#/proc/}").await
}

/// What was recorded and not yet sent stands on the pod's disk, and the next sidecar sends it; of a session that was cut
/// off it says so.
#[tokio::test]
async fn a_recording_outlives_the_sidecar_that_made_it() -> Result<()> {
    beside(&sleeper("target"), async |ns, plain| {
        let witness = ns.kubectl.get(&["pod", "witness"]).await?;
        plain.start(&overseer("overseer", &witness)?).await?;
        with_recorder(ns, async || with_grant(&open(ns), async || outlives(ns, plain).await).await).await
    })
    .await
}

async fn outlives(ns: &Namespace, plain: &Namespace) -> Result<()> {
    settled(ns, "witness", &ns.name).await?;
    let exec = format!("kubectl -n {} exec target -- sh -c", plain.name);
    without_recorder(&ns.name, async || {
        let run = ns.shell("witness", &format!("{exec} 'echo ended before'")).await?.ok()?;
        ensure!(run.text() == "ended before\n", "{run:?}");
        let live = format!("{exec} 'echo under way; exec sleep 600'");
        let kill = async {
            // Lines that no recorder takes lie in memory alone for a second.
            let on_disk = format!("grep -rqF '\"under way\\n\"' $process/root{MOUNT_SPOOL}");
            eventually("it is on the disk", async || each_sidecar(plain, ns, &on_disk).await).await?;
            kill_sidecars(plain, ns).await
        };
        let (live, ()) = tokio::try_join!(ns.shell("witness", &live), kill)?;
        ensure!(live.code != 0 && live.text() == "under way\n", "{live:?}");
        Ok(())
    })
    .await?;
    let viewer = viewer(&ns.name).await?;
    let ended = viewer.recording(&ns.name, "echo ended before").await?;
    ensure!(ended.text("o") == "ended before\n" && ended.text("x-end") == "completed", "{ended:?}");
    let cut = viewer.recording(&ns.name, "echo under way").await?;
    ensure!(cut.text("o") == "under way\n" && cut.text("x-end") == "interrupted", "{cut:?}");
    eventually("the next sidecar records", async || {
        ns.shell("witness", &format!("{exec} 'echo with the next one'")).await?.ok()
    })
    .await?;
    viewer.recording(&ns.name, "echo with the next one").await.map(drop)
}

/// While the sidecar is dead, the API server is not reached past it.
#[tokio::test]
async fn a_dead_sidecar_lets_nobody_through() -> Result<()> {
    beside(&sleeper("target"), async |ns, plain| {
        let witness = ns.kubectl.get(&["pod", "witness"]).await?;
        plain.start(&overseer("overseer", &witness)?).await?;
        let version = "kubectl get --raw /version";
        eventually("the sidecar serves", async || ns.shell("witness", version).await?.ok()).await?;
        // The kubelet starts it again at once the first time, and waits longer each time after.
        eventually("requests are refused while it is dead", async || {
            kill_sidecars(plain, ns).await?;
            let run = ns.shell("witness", version).await?;
            ensure!(run.code != 0 && run.stderr.contains("refused"), "{run:?}");
            Ok(())
        })
        .await?;
        eventually("the next one serves", async || ns.shell("witness", version).await?.ok()).await.map(drop)
    })
    .await
}
