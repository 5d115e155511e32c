//! API events as the viewer serves them, and the API server's own account of the same requests.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};
use hyper::body::Bytes;
use podwitness_wire::pack::Unpacker;
use serde_json::{Value, json};

use crate::{
    Kubectl, Namespace, Run, Viewer, eventually,
    grants::{self, with_grant},
    pods::sleeper,
};

/// Where the control plane node keeps its audit log.
const AUDIT: &str = "/var/log/kubernetes";

/// The events that a recorder has published since a moment.
#[derive(Debug)]
pub struct Events {
    viewer: Viewer,
    /// Files by path; none before the first of these is of interest.
    files: BTreeMap<String, Bytes>,
    last: String,
}

impl Events {
    /// Those that are published from here on.
    ///
    /// # Errors
    /// Where the recorder cannot be reached.
    pub async fn from_now() -> Result<Self> {
        let mut events = Self { viewer: Viewer::open().await?, files: BTreeMap::new(), last: String::new() };
        while let Some(last) = events.page().await?.pop() {
            events.last = last;
        }
        Ok(events)
    }

    /// Every event so far of a pod in this namespace, in the order of their ids.
    ///
    /// # Errors
    /// Where a file is not what it should be.
    pub async fn of(&mut self, namespace: &str) -> Result<Vec<Value>> {
        self.fetch().await?;
        let mut found = Vec::new();
        for file in self.files.values() {
            let (mut bytes, mut unpacker) = (file.clone(), Unpacker::new());
            while let Some(lines) = unpacker.unpack(&mut bytes)? {
                for line in lines.split_inclusive(|byte| *byte == b'\n') {
                    found.push(serde_json::from_slice::<Value>(line)?);
                }
            }
        }
        found.retain(|event| text(event, "/podwitness/namespace") == namespace);
        found.sort_by_key(|event| text(event, "/podwitness/event").to_owned());
        Ok(found)
    }

    /// Writes the files below `folder` as they lie in the recorder.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        for (path, file) in &self.files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            std::fs::write(path, file)?;
        }
        Ok(())
    }

    /// Everything that was published, as it is stored but not compressed.
    ///
    /// # Errors
    /// Where a file is not what it should be.
    pub async fn everything(&mut self) -> Result<Vec<u8>> {
        self.fetch().await?;
        let mut all = Vec::new();
        for file in self.files.values() {
            let (mut bytes, mut unpacker) = (file.clone(), Unpacker::new());
            while let Some(lines) = unpacker.unpack(&mut bytes)? {
                all.extend_from_slice(&lines);
            }
        }
        Ok(all)
    }

    async fn fetch(&mut self) -> Result<()> {
        loop {
            let page = self.page().await?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            for path in page {
                let file = self.viewer.get(&format!("/api/v1/events/{path}")).await?;
                self.files.insert(path, file);
            }
            self.last = last;
        }
    }

    async fn page(&self) -> Result<Vec<String>> {
        let list = self.viewer.get(&format!("/api/v1/events?limit=1000&after={}", self.last)).await?;
        let list: Value = serde_json::from_slice(&list)?;
        let files = list.get("files").and_then(Value::as_array).context("no list of files")?;
        Ok(files.iter().map(|file| text(file, "/path").to_owned()).collect())
    }
}

/// A request that marks a moment in both logs.
///
/// # Errors
/// Where it is not answered.
pub async fn mark(ns: &Namespace, pod: &str, word: &str) -> Result<Run> {
    ns.shell(pod, &format!("kubectl get --raw '/version?fieldManager={word}'")).await?.ok()
}

/// Runs `test` with a grant for a namespace, once a request from its pod has an event by that grant.
///
/// # Errors
/// Those of `test`, and where there is no such event.
pub async fn with_events(
    ns: &Namespace,
    pod: &str,
    enforce: bool,
    test: impl AsyncFnOnce(&mut Events) -> Result<()>,
) -> Result<()> {
    with_events_by(&grants::events(&ns.name, "tag:podwitness", enforce), ns, pod, test).await
}

/// The same with this grant, which has the name of the namespace.
///
/// # Errors
/// As [`with_events`].
pub async fn with_events_by(
    grant: &Value,
    ns: &Namespace,
    pod: &str,
    test: impl AsyncFnOnce(&mut Events) -> Result<()>,
) -> Result<()> {
    let mut events = Events::from_now().await?;
    with_grant(grant, async || {
        eventually("requests have events by the grant", async || {
            mark(ns, pod, "effective").await?;
            let seen = events.of(&ns.name).await?;
            let by = |event: &Value| text(event, "/podwitness/grants/0") == ns.name;
            ensure!(seen.iter().any(by), "{} events, none by the grant", seen.len());
            Ok(())
        })
        .await?;
        test(&mut events).await
    })
    .await
}

/// Whether the one command that holds `word` has its events.
///
/// # Errors
/// Where it has not.
pub fn has_session(seen: &[Value], word: &str) -> Result<()> {
    let of = |event: &&Value| text(event, "/request/queryParameters/command/1") == word;
    let stages: Vec<_> = seen.iter().filter(of).map(|event| text(event, "/podwitness/stage")).collect();
    ensure!(stages == ["started", "complete"], "{word}: {stages:?}");
    Ok(())
}

/// Whether the one `ConfigMap` of this name was created, listed, watched and deleted, by its events.
///
/// # Errors
/// Where it was not, or more was done.
pub fn has_requests(seen: &[Value], name: &str) -> Result<()> {
    let of = |event: &&Value| {
        let asked = text(event, "/kubernetes/Name");
        let asked = if asked.is_empty() { text(event, "/podwitness/body/name") } else { asked };
        text(event, "/kubernetes/Resource") == "configmaps" && asked == name
    };
    let said = |event| (text(event, "/kubernetes/Verb"), text(event, "/podwitness/stage"));
    // Two within a millisecond may stand in either order.
    let mut found: Vec<_> = seen.iter().filter(of).map(said).collect();
    found.sort_unstable();
    let expected = [
        ("create", "complete"),
        ("delete", "complete"),
        ("list", "complete"),
        ("watch", "complete"),
        ("watch", "started"),
    ];
    ensure!(found == expected, "{name}: {found:?}");
    Ok(())
}

/// A text of a JSON object, empty where there is none.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Starts a pod `auditor` that sees the API server's audit log.
///
/// # Errors
/// Where it does not start.
pub async fn auditor(namespace: &Namespace) -> Result<()> {
    let nodes = Kubectl::default().get(&["nodes", "-l", "node-role.kubernetes.io/control-plane"]).await?;
    let node = nodes.pointer("/items/0/metadata/name").context("there is no control plane node")?;
    let mut pod = sleeper("auditor");
    let spec = pod.pointer_mut("/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.extend([
        ("nodeName".into(), node.clone()),
        ("tolerations".into(), json!([{"operator": "Exists"}])),
        ("volumes".into(), json!([{"name": "audit", "hostPath": {"path": AUDIT}}])),
    ]);
    let app = spec.get_mut("containers").and_then(|all| all.get_mut(0)).and_then(Value::as_object_mut);
    app.context("no container")?
        .insert("volumeMounts".into(), json!([{"name": "audit", "mountPath": AUDIT, "readOnly": true}]));
    namespace.start(&pod).await?;
    Ok(())
}

/// What the API server says of the requests that this user's credential made and that are over, oldest first.
///
/// # Errors
/// Where the log cannot be read.
pub async fn audited(namespace: &Namespace, user: &str) -> Result<Vec<Value>> {
    let search = format!("cat {AUDIT}/audit*.log | grep -F '\"username\":\"{user}\"'; true");
    let run = namespace.shell("auditor", &search).await?.ok()?;
    let lines = run.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // The line that is being written may be cut.
    let mut found: Vec<Value> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    found
        .retain(|entry| text(entry, "/user/username") == user && text(entry, "/stage") == "ResponseComplete");
    found.sort_by_key(|entry| text(entry, "/requestReceivedTimestamp").to_owned());
    Ok(found)
}
