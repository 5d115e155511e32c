//! What was shown under fail closed is recorded, whatever becomes of a recorder: a kill of its process, the loss of its
//! pod, the loss of its node as far as the storage promises to survive that, and a rolling restart.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Counting, Kubectl, Namespace, Recording, SYSTEM,
    bucket::with_bucket,
    counting::Seen,
    eventually,
    grants::{grant, with_grant},
    pods::{beside, overseer, sleeper},
    recorders::{change, condition, replica, returned, tag, viewer, with_recorders},
    schedule::{Class, enter},
};
use serde_json::{Value, json};

/// Bytes that may be shown before they are acknowledged.
const LEAD: usize = 16 << 10;

/// A recorder of its own, and a pod on its node that sees every process.
struct Lab<'a> {
    ns: &'a Namespace,
    plain: &'a Namespace,
    /// Name of the Recorder.
    recorder: &'a str,
    /// Name of the Recorder whose viewer shows what is kept.
    shows: &'a str,
}

/// Sessions that are over.
type Done<'a> = Vec<(Counting<'a>, Seen)>;

#[tokio::test]
async fn what_is_in_a_bucket_survives_the_node() -> Result<()> {
    enter(Class::Long).await;
    with_bucket_on_one_node(async |ns, plain, spec| {
        // The second one has nothing of its own: what it shows is in the bucket.
        let (recorder, shows) = (ns.name.as_str(), format!("{}-shows", ns.name));
        with_recorders(&[(recorder, spec.clone()), (shows.as_str(), spec)], async || {
            let lab = Lab { ns, plain, recorder, shows: &shows };
            Box::pin(lab.enforced("object", async || {
                let mut done = lab.killed_and_deleted("s3://audit/kept/here", "object").await?;
                done.extend(lab.node_is_lost().await?);
                lab.last(done).await
            }))
            .await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn what_is_on_a_claim_survives_the_pod() -> Result<()> {
    enter(Class::Long).await;
    on_one_node(async |ns, plain, node| {
        with_volume(plain, &ns.name, node, async |claim| {
            let filesystem = json!({"volumeClaimTemplate": {"spec": claim}, "whenDeleted": "Delete"});
            let (recorder, spec) = (ns.name.as_str(), spec(&json!({"filesystem": filesystem}), node));
            with_recorders(&[(recorder, spec)], async || {
                let lab = Lab { ns, plain, recorder, shows: recorder };
                Box::pin(lab.enforced("volume", async || {
                    let done = lab.killed_and_deleted("volume", "volume").await?;
                    lab.last(done).await
                }))
                .await
            })
            .await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_rolling_restart_is_seen_by_no_session() -> Result<()> {
    enter(Class::Long).await;
    with_bucket_on_one_node(async |ns, plain, mut spec| {
        spec.as_object_mut().context("no object")?.insert("replicas".into(), 2.into());
        with_recorders(&[(ns.name.as_str(), spec)], async || {
            let lab = Lab { ns, plain, recorder: &ns.name, shows: &ns.name };
            Box::pin(lab.enforced("object", async || lab.roll().await)).await
        })
        .await
    })
    .await
}

impl<'a> Lab<'a> {
    /// Runs `test` while recording by this recorder is enforced, once that is so.
    async fn enforced(&self, level: &str, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let rule = json!({"recorder": [tag(self.recorder)], "enforceRecorder": true, "requireAck": level, "lead": LEAD});
        let name = &self.ns.name;
        with_grant(&grant(name, &format!("namespace:{name}"), &rule), async || {
            let exec = format!("kubectl -n {} exec target -- echo settled", self.plain.name);
            let viewer = viewer(self.recorder).await?;
            eventually("the recorder takes a session", async || {
                self.ns.shell("witness", &exec).await?.ok()?;
                ensure!(!viewer.sessions(name).await?.is_empty(), "it took none");
                Ok(())
            })
            .await?;
            test().await
        })
        .await
    }

    /// What the Recorder says of its storage.
    async fn status(&self, storage: &str, ack: &str) -> Result<()> {
        let status = Kubectl::default().get(&["recorder", self.recorder]).await?;
        let at = |pointer: &str| status.pointer(pointer).cloned().unwrap_or_default();
        ensure!(at("/status/storage") == storage && at("/status/ack") == ack, "{status}");
        ensure!(at("/status/replicas/0/ack") == ack, "{status}");
        Ok(())
    }

    /// Its process is killed, then its pod is deleted.
    async fn killed_and_deleted(&self, storage: &str, ack: &str) -> Result<Done<'a>> {
        self.status(storage, ack).await?;
        let mut done = self.row("killed", async || self.kill().await).await?;
        done.extend(self.row("deleted", async || self.delete().await).await?);
        Ok(done)
    }

    /// Sessions go on as if nothing had been, and those before are still what they were.
    async fn last(&self, mut done: Done<'a>) -> Result<()> {
        done.extend(self.row("last", async || Ok(())).await?);
        self.all_recorded(&done).await
    }

    /// Does harm to the recorder of live sessions and lets them end once it is back. They went on meanwhile or were
    /// ended; what they showed is recorded.
    async fn row(&self, what: &str, harm: impl AsyncFnOnce() -> Result<()>) -> Result<Done<'a>> {
        let sessions = Counting::both(self.ns, self.plain, what).await?;
        harm().await?;
        self.ended(sessions).await
    }

    async fn ended(&self, sessions: Vec<Counting<'a>>) -> Result<Done<'a>> {
        for session in &sessions {
            session.end().await?;
        }
        let mut done = Vec::new();
        for session in sessions {
            let seen = session.over().await?;
            done.push((session, seen));
        }
        self.all_recorded(&done).await?;
        Ok(done)
    }

    async fn all_recorded(&self, done: &[(Counting<'a>, Seen)]) -> Result<()> {
        let viewer = viewer(self.shows).await?;
        for (session, seen) in done {
            let recording = viewer.recording(&self.ns.name, session.id()).await?;
            session.check(seen, &recording).await?;
        }
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        let before = replica(self.recorder, 0).await?;
        self.on_node("kill -9 ${process#/proc/}").await?;
        returned(self.recorder, 0, &before).await
    }

    /// With the pod goes an emptyDir.
    async fn delete(&self) -> Result<()> {
        let before = replica(self.recorder, 0).await?;
        self.take_away().await?;
        returned(self.recorder, 0, &before).await
    }

    async fn take_away(&self) -> Result<()> {
        let pod = format!("{}-0", self.recorder);
        system().run(&["delete", "pod", &pod, "--grace-period=0", "--force"]).await?.ok().map(drop)
    }

    /// The process stands still as if its node did, its volume is gone, and nothing replaces it until its sessions have
    /// ended: what they showed beyond the lead is in the bucket already.
    async fn node_is_lost(&self) -> Result<Done<'a>> {
        let sessions = Counting::both(self.ns, self.plain, "lost").await?;
        self.on_node("kill -STOP ${process#/proc/} && rm -rf $process/root/data/recordings/*").await?;
        change(self.recorder, &json!({"replicas": 0})).await?;
        self.take_away().await?;
        let viewer = viewer(self.shows).await?;
        for session in &sessions {
            let seen = session.over().await?;
            ensure!(seen.code != 0, "{} goes on without a recorder: {seen:?}", session.id());
            eventually("what was shown is in the bucket", async || {
                let kept = viewer.stored(&self.ns.name, session.id()).await?.context("nothing is")?;
                let kept = Recording::parse(&kept)?.output()?.len();
                ensure!(kept + LEAD >= seen.shown, "{seen:?}, but {kept} bytes are kept");
                Ok(())
            })
            .await?;
        }
        change(self.recorder, &json!({"replicas": 1})).await?;
        condition(self.recorder, "Ready", "True").await?;
        self.ended(sessions).await
    }

    /// Runs a shell command for the replica's process that takes recordings, from its node; `$process` is its folder in
    /// `/proc`.
    async fn on_node(&self, command: &str) -> Result<()> {
        let script = format!(
            "for process in /proc/[0-9]*; do
                [ \"$(cat $process/comm)\" = podwitness-reco ] || continue
                tr '\\0' ' ' <$process/cmdline | grep -q ' ingest' || continue
                [ \"$(cat $process/root/etc/hostname)\" = {}-0 ] || continue
                {command} && echo done
            done",
            self.recorder
        );
        let run = self.plain.shell("overseer", &script).await?;
        ensure!(run.text() == "done\n", "not one process is like that: {run:?}");
        Ok(())
    }

    /// Replaces both replicas, one after the other, under live sessions.
    async fn roll(&self) -> Result<()> {
        let mut sessions = Counting::both(self.ns, self.plain, "one").await?;
        sessions.extend(Counting::both(self.ns, self.plain, "two").await?);
        let before = [replica(self.recorder, 0).await?, replica(self.recorder, 1).await?];
        change(self.recorder, &json!({"statefulSet": {"pod": {"annotations": {"rolled": "once"}}}})).await?;
        for (number, before) in (0..).zip(&before) {
            returned(self.recorder, number, before).await?;
        }
        for session in &sessions {
            session.goes_on().await?;
        }
        let done = self.ended(sessions).await?;
        for (session, seen) in &done {
            ensure!(seen.code == 0, "{} was ended: {seen:?}", session.id());
        }
        let all = viewer(self.shows).await?.sessions(&self.ns.name).await?;
        let passed_on = all.iter().filter(|one| one.get("parts").and_then(Value::as_u64) > Some(1)).count();
        ensure!(passed_on == done.len(), "{passed_on} sessions were passed on: {all:?}");
        Ok(())
    }
}

fn system() -> Kubectl {
    Kubectl::with(&["-n", SYSTEM])
}

/// A Recorder with this storage, on the node that is watched.
fn spec(storage: &Value, node: &str) -> Value {
    let on = json!({"nodeSelector": {"kubernetes.io/hostname": node}});
    json!({"enableUI": true, "storage": storage, "statefulSet": {"pod": on}})
}

/// Runs `test` with pods `witness`, `target`, and `overseer` that sees the processes of its node; and with what that is
/// called in the label of nodes.
async fn on_one_node(test: impl AsyncFnOnce(&Namespace, &Namespace, &str) -> Result<()>) -> Result<()> {
    beside(&sleeper("target"), async |ns, plain| {
        let overseer = plain.start(&overseer("overseer", &plain.ready("target").await?)?).await?;
        let node = overseer.pointer("/spec/nodeName").and_then(Value::as_str).context("no node")?;
        let node = Kubectl::default().get(&["node", node]).await?;
        let label = node.pointer("/metadata/labels/kubernetes.io~1hostname").and_then(Value::as_str);
        test(ns, plain, label.context("the node has no label of its name")?).await
    })
    .await
}

/// The same beside a bucket, with what a Recorder on that node says that keeps recordings there.
async fn with_bucket_on_one_node(
    test: impl AsyncFnOnce(&Namespace, &Namespace, Value) -> Result<()>,
) -> Result<()> {
    on_one_node(async |ns, plain, node| {
        with_bucket(plain, async |s3| test(ns, plain, spec(&json!({"s3": s3}), node)).await).await
    })
    .await
}

/// Runs `test` while the node has a volume to be claimed; gives what a claim says to get it. Nothing makes volumes by
/// itself here.
async fn with_volume(
    plain: &Namespace,
    name: &str,
    node: &str,
    test: impl AsyncFnOnce(&Value) -> Result<()>,
) -> Result<()> {
    let path = format!("/var/local/{name}");
    let term =
        json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name,
        "persistentVolumeReclaimPolicy": "Retain", "local": {"path": path},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}});
    let run = async {
        plain.shell("overseer", &format!("mkdir -p /proc/1/root{path}")).await?.ok()?;
        Kubectl::default().create(&volume, &[]).await?.ok()?;
        test(&json!({"storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}})).await
    };
    let result = run.await;
    // Recorder and claim go with each other, and nothing writes when they are gone.
    system().run(&["delete", "recorder", name, "--ignore-not-found", "--timeout=60s"]).await?;
    Kubectl::default().run(&["delete", "pv", name, "--ignore-not-found", "--timeout=60s"]).await?;
    plain.shell("overseer", &format!("rm -rf /proc/1/root{path}")).await?;
    result
}
