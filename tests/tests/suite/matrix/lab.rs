//! The pods and the recorder of one test.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use podwitness_e2e::{
    Kubectl, Namespace, Recording, Viewer, eventually,
    faulty::{INSTALLED_TAG, Kind, TestRecorder},
    grants::grant,
    pods::sleeper,
    schedule::{Class, enter},
};
use serde_json::{Value, json};

use super::session::{AT_LAST, AT_LAST_TEXT, BRIEF, Case, FLOOD, Lane};

/// Bytes that may be shown before they are acknowledged.
pub const LEAD: usize = 64 << 10;

/// A pod of each lane, a pod to work in, and a recorder.
pub struct Lab<'a> {
    /// Where recorded pods are.
    pub ns: &'a Namespace,
    /// Where the pod is that sessions go to.
    pub plain: &'a Namespace,
    pub recorder: &'a TestRecorder,
    installed: Viewer,
}

impl<'a> Lab<'a> {
    /// A lab of what there is.
    pub async fn new(ns: &'a Namespace, plain: &'a Namespace, recorder: &'a TestRecorder) -> Result<Self> {
        Ok(Self { ns, plain, recorder, installed: Viewer::open().await? })
    }

    /// Runs `test` once a session of each lane was taken by the recorder of the test.
    pub async fn with(kind: Kind, test: impl AsyncFnOnce(&Lab<'_>) -> Result<()>) -> Result<()> {
        enter(Class::Heavy).await;
        with_namespaces(async |ns, plain| {
            TestRecorder::with(&ns.name, kind, async |recorder| {
                with_grants(ns, &Lane::ALL, async || {
                    tokio::try_join!(start(ns, &Lane::ALL), start_target(plain))?;
                    let lab = Lab::new(ns, plain, recorder).await?;
                    lab.settle(&Lane::ALL).await?;
                    test(&lab).await
                })
                .await
            })
            .await
        })
        .await
    }

    /// Waits until the test's recorder takes a session of each of these lanes.
    pub async fn settle(&self, lanes: &[Lane]) -> Result<()> {
        try_join_all(lanes.iter().map(|lane| self.settle_one(*lane))).await.map(drop)
    }

    async fn settle_one(&self, lane: Lane) -> Result<()> {
        let script = format!("kubectl -n {} exec target -- echo settled", self.plain.name);
        eventually("the recorder of the test takes a session", async || {
            self.ns.shell(lane.pod(), &script).await?.ok()?;
            let sessions = self.recorder.viewer.sessions(&self.ns.name).await?;
            let from = |session: &&Value| session.pointer("/source/pod/pod") == Some(&json!(lane.pod()));
            sessions.iter().find(from).with_context(|| format!("none is from {lane:?}")).map(drop)
        })
        .await
    }

    /// What the test's recorder has on its disk of the output of a session, counted without carriage returns.
    pub async fn durable(&self, case: &Case) -> Result<usize> {
        let stored = self.recorder.viewer.stored(&self.ns.name, &case.id()).await?;
        stored.map_or(Ok(0), |cast| Ok(without_returns(&Recording::parse(&cast)?.output()?).len()))
    }

    /// The whole recording of a session, once all recorders together have its end.
    pub async fn recorded(&self, case: &Case) -> Result<Recording> {
        let id = case.id();
        eventually(&format!("{id} is recorded"), async || {
            let recording = Recording::join(&self.stored(&id).await?)?;
            ensure!(!recording.text("x-close").is_empty(), "it has no end: {}", recording.lines.len());
            Ok(recording)
        })
        .await
    }

    /// Fails where any recorder has anything of a session.
    pub async fn nothing_recorded(&self, case: &Case) -> Result<()> {
        let stored = self.stored(&case.id()).await?;
        ensure!(stored.is_empty(), "{} is recorded: {stored:?}", case.id());
        Ok(())
    }

    async fn stored(&self, id: &str) -> Result<Vec<hyper::body::Bytes>> {
        let viewers = [&self.recorder.viewer, &self.installed];
        let stored = viewers.map(|viewer| viewer.stored(&self.ns.name, id));
        Ok(try_join_all(stored).await?.into_iter().flatten().collect())
    }

    /// Whether the script of a session was started.
    pub async fn ran(&self, case: &Case) -> Result<bool> {
        let run = self.plain.shell("target", &format!("test -e /tmp/{}.ran", case.id())).await?;
        Ok(run.code == 0)
    }

    /// Waits until the scripts of these sessions were started.
    pub async fn all_run(&self, cases: &[Case]) -> Result<()> {
        eventually("every session has begun", async || {
            let begun = self.plain.shell("target", "ls /tmp").await?.ok()?.text();
            let missing = cases.iter().map(Case::id).find(|id| !begun.contains(&format!("{id}.ran\n")));
            ensure!(missing.is_none(), "{missing:?} has not");
            Ok(())
        })
        .await
    }
}

/// A namespace that is recorded, and one that is not.
pub async fn with_namespaces(test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>) -> Result<()> {
    Namespace::plain(async |plain| {
        Namespace::witnessed(async |ns| {
            ns.allow_all().await?;
            test(ns, plain).await
        })
        .await
    })
    .await
}

/// The pods of these lanes.
pub async fn start(ns: &Namespace, lanes: &[Lane]) -> Result<()> {
    try_join_all(lanes.iter().map(async |lane| {
        ns.start(&sleeper(lane.pod())).await?;
        put(ns, lane.pod(), AT_LAST, AT_LAST_TEXT).await
    }))
    .await
    .map(drop)
}

/// The pod that sessions go to, with its scripts.
pub async fn start_target(plain: &Namespace) -> Result<()> {
    plain.start(&sleeper("target")).await?;
    for script in [FLOOD, BRIEF] {
        put(plain, "target", &format!("/tmp/{}", script.name), script.text).await?;
    }
    Ok(())
}

/// Writes a file in a pod. Not through standard input, which ends with the standard output that goes into the file.
async fn put(ns: &Namespace, pod: &str, path: &str, text: &str) -> Result<()> {
    let write = "printf %s \"$1\" >\"$2\"";
    let args = ["exec", pod, "-c", "app", "--", "sh", "-c", write, "sh", text, path];
    ns.kubectl.run(&args).await?.ok().map(drop)
}

/// Runs `test` with a grant for each of these lanes, which names the recorder of the test.
pub async fn with_grants(
    ns: &Namespace,
    lanes: &[Lane],
    test: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let result = async {
        for lane in lanes {
            Kubectl::default().create(&grant_of(ns, *lane), &[]).await?.ok()?;
        }
        test().await
    };
    let result = result.await;
    for lane in lanes {
        let args = ["delete", "grant", &grant_name(ns, *lane), "--ignore-not-found"];
        let _ = Kubectl::default().run(&args).await;
    }
    result
}

/// Name of the grant of a lane.
pub fn grant_name(ns: &Namespace, lane: Lane) -> String {
    format!("{}-{}", ns.name, lane.pod())
}

fn grant_of(ns: &Namespace, lane: Lane) -> Value {
    let tag = format!("tag:{}", ns.name);
    let rule = match lane {
        Lane::Open => json!({"recorder": [tag]}),
        Lane::Closed => json!({"recorder": [tag], "enforceRecorder": true, "lead": LEAD}),
        Lane::Next => json!({"recorder": [tag, INSTALLED_TAG], "enforceRecorder": true, "lead": LEAD}),
    };
    grant(&grant_name(ns, lane), &format!("pod:{}/{}", ns.name, lane.pod()), &rule)
}

/// Output as both ends of a terminal agree on it.
pub fn without_returns(output: &[u8]) -> Vec<u8> {
    output.iter().copied().filter(|byte| *byte != b'\r').collect()
}
