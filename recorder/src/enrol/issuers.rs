//! Whose assertions are believed: the issuers that the netmap names and those of a file: a mounted ConfigMap, or the
//! join file of a recorder outside the clusters.
//!
//! Invariant: an issuer that is once known stays until a source that can be read says otherwise; a file that is
//! missing or broken changes nothing.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podwitness_agent::Agent;
use podwitness_core::control::Issuer;
use podwitness_runtime::tls::watch::Directory;
use tokio::sync::watch;

use super::join::{self, JoinError};

/// Cap on the file.
const MAX_FILE: u64 = 1 << 20;
/// How often the file's directory is looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// A file that names issuers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum List {
    /// A list of them.
    Issuers(PathBuf),
    /// A join file.
    Join(PathBuf),
}

/// Gathers issuers for as long as it runs.
#[derive(Debug)]
pub struct Issuers {
    agent: Option<Agent>,
    file: Option<List>,
    from_file: Vec<Issuer>,
    known: watch::Sender<Arc<[Issuer]>>,
}

impl Issuers {
    /// Issuers of both sources, either of which may be missing.
    #[must_use]
    pub fn new(agent: Option<Agent>, file: Option<List>) -> (Self, watch::Receiver<Arc<[Issuer]>>) {
        let known = watch::Sender::new(Arc::from([]));
        let receiver = known.subscribe();
        (Self { agent, file, from_file: Vec::new(), known }, receiver)
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut directory = self.file.as_ref().map(|list| Directory::new(parent(list.path()), PERIOD));
        if let Some(directory) = &mut directory {
            directory.note().await;
        }
        self.read_file().await;
        loop {
            self.publish();
            tokio::select! {
                () = netmap_changed(&mut self.agent) => {}
                () = file_changed(&mut directory) => self.read_file().await,
            }
        }
    }

    async fn read_file(&mut self) {
        let Some(list) = self.file.clone() else { return };
        let shown = list.path().display().to_string();
        match tokio::task::spawn_blocking(move || list.read()).await {
            Ok(Ok(issuers)) => self.from_file = issuers,
            // A ConfigMap that is yet to be made; what was known stays known.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!(path = shown, "there is no list of issuers");
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    path = shown,
                    error,
                    "the list of issuers cannot be read; what was known stays"
                );
            }
            // The runtime is going down.
            Err(_) => {}
        }
    }

    fn publish(&mut self) {
        let netmap = self.agent.as_mut().and_then(|agent| agent.netmap.borrow_and_update().clone());
        let mut all = self.from_file.clone();
        all.extend(netmap.into_iter().flat_map(|netmap| netmap.issuers.clone()));
        all.sort_by(|a, b| (&a.id, &a.cluster, &a.public_key).cmp(&(&b.id, &b.cluster, &b.public_key)));
        all.dedup();
        self.known.send_if_modified(|known| {
            let changed = **known != *all;
            if changed {
                tracing::info!(issuers = all.len(), "issuers of assertions");
                *known = Arc::from(all);
            }
            changed
        });
    }
}

impl List {
    fn path(&self) -> &Path {
        match self {
            Self::Issuers(path) | Self::Join(path) => path,
        }
    }

    fn read(&self) -> io::Result<Vec<Issuer>> {
        match self {
            Self::Issuers(path) => read(path),
            Self::Join(path) => join::read(path).map(join::issuers).map_err(|error| match error {
                JoinError::Read(_, error) => error,
                error => io::Error::other(error),
            }),
        }
    }
}

/// The directory of a file; a bare name is in the current one.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

async fn netmap_changed(agent: &mut Option<Agent>) {
    let changed = match agent {
        Some(agent) => agent.netmap.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        // Without an agent that runs, nothing changes any more.
        std::future::pending::<()>().await;
    }
}

async fn file_changed(directory: &mut Option<Directory>) {
    match directory {
        Some(directory) => directory.changed().await,
        None => std::future::pending().await,
    }
}

fn read(path: &Path) -> io::Result<Vec<Issuer>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use podwitness_agent::Link;
    use podwitness_core::control::Netmap;
    use tokio::time::timeout;

    use super::*;

    fn issuer(id: &str) -> Issuer {
        Issuer { id: id.into(), cluster: "c".into(), public_key: "k".into() }
    }

    async fn eventually(known: &mut watch::Receiver<Arc<[Issuer]>>, ids: &[&str]) {
        let holds =
            |known: &Arc<[Issuer]>| known.iter().map(|issuer| issuer.id.as_str()).eq(ids.iter().copied());
        timeout(Duration::from_secs(120), known.wait_for(holds)).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn issuers_of_both_sources_are_believed_and_follow_their_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issuers.json");
        fs::write(&path, serde_json::to_vec(&[issuer("b")]).unwrap()).unwrap();
        let netmap = watch::Sender::new(None);
        let agent = Agent {
            netmap: netmap.subscribe(),
            assertion: watch::channel(None).1,
            link: watch::channel(Link::Offline).1,
        };
        let (issuers, mut known) = Issuers::new(Some(agent), Some(List::Issuers(path.clone())));
        tokio::spawn(issuers.run());
        eventually(&mut known, &["b"]).await;
        netmap.send_replace(Some(Arc::new(Netmap {
            issuers: vec![issuer("a"), issuer("b")],
            ..Netmap::default()
        })));
        eventually(&mut known, &["a", "b"]).await;
        fs::write(&path, serde_json::to_vec(&[issuer("b"), issuer("c")]).unwrap()).unwrap();
        eventually(&mut known, &["a", "b", "c"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issuers.json");
        fs::write(&path, serde_json::to_vec(&[issuer("a")]).unwrap()).unwrap();
        let (issuers, mut known) = Issuers::new(None, Some(List::Issuers(path.clone())));
        tokio::spawn(issuers.run());
        eventually(&mut known, &["a"]).await;
        fs::write(&path, "[{").unwrap();
        assert!(timeout(Duration::from_secs(60), known.changed()).await.is_err());
        fs::write(&path, serde_json::to_vec(&[issuer("z")]).unwrap()).unwrap();
        eventually(&mut known, &["z"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn clusters_join_and_leave_with_the_join_file() {
        let entry = |cluster: &str| {
            let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
            serde_json::json!({"recorder": "vault", "issuers": [{"id": cluster, "cluster": cluster, "publicKey": key}]})
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("join.json");
        let write = |json: serde_json::Value| fs::write(&path, json.to_string()).unwrap();
        write(entry("a"));
        let (issuers, mut known) = Issuers::new(None, Some(List::Join(path.clone())));
        tokio::spawn(issuers.run());
        eventually(&mut known, &["a"]).await;
        write(serde_json::json!([entry("a"), entry("b")]));
        eventually(&mut known, &["a", "b"]).await;
        write(serde_json::json!([entry("b"), entry("b")]));
        assert!(
            timeout(Duration::from_secs(60), known.changed()).await.is_err(),
            "a mistake changed something"
        );
        write(entry("b"));
        eventually(&mut known, &["b"]).await;
    }
}
