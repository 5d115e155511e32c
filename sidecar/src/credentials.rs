//! The directories of credentials that other containers read in place of the kubelet's: token, namespace and CA
//! bundle, copied from the kubelet's originals as they change, with the in-pod CA in front of the cluster's.
//!
//! Invariant: a reader sees one whole generation of files (room `atomic`); every bundle that names the cluster's CA
//! still does so, so that a client which is not intercepted goes on working. Tokens with another audience, and
//! whatever else a volume holds, are copied as they are, with the permissions that the kubelet would give. A copy that
//! fails is tried again until it succeeds; one that goes on failing is an Event on the pod, because tokens expire.

mod atomic;
mod bundle;
mod source;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use podwitness_core::{control::Notice, inject::ServiceAccountDir};
use podwitness_runtime::readiness::BlockReady;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use atomic::Content;

/// How often the kubelet's originals are looked at; the kubelet itself takes up to a minute.
const PERIOD: Duration = Duration::from_secs(5);
/// The same, until all directories were written once.
const FIRST_PERIOD: Duration = Duration::from_millis(200);
/// How long copies fail before it is told, and for how long that stands.
const TOLD_AFTER: Duration = Duration::from_secs(10);
const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// Name under which a bundle with the cluster's CA lies in a service-account volume.
const CA_FILE: &str = "ca.crt";

/// A directory that could not be copied.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The original cannot be read.
    #[error(
        "cannot read the credentials of container {container} in {path}; has the kubelet set up its volume?"
    )]
    Read {
        /// Whose they are.
        container: String,
        /// Directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bundle of every container cannot be kept.
    #[error("cannot keep the CA bundle of the pod's containers: {0}")]
    Bundle(PathBuf, #[source] io::Error),
    /// The copy cannot be written.
    #[error(
        "cannot write the credentials of container {container} to {path}; is its volume full, or the sidecar's memory?"
    )]
    Write {
        /// Whose they are.
        container: String,
        /// Directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// All directories of one pod.
#[derive(Debug)]
pub struct Credentials {
    dirs: Vec<ServiceAccountDir>,
    pod_ca: String,
    bundle: Option<Bundle>,
    /// Generations of the originals as they were when everything was last copied.
    copied: Option<Vec<PathBuf>>,
}

/// Copies that fail, and when that was told.
#[derive(Debug, Default)]
struct Failure {
    since: Option<Instant>,
    told: Option<Instant>,
    logged: String,
}

impl Failure {
    /// Takes note of an outcome: logs an error when it is new, and says whether the pod's Event is due.
    fn note(&mut self, outcome: &Result<(), CredentialsError>) -> bool {
        let Err(error) = outcome else {
            *self = Self { told: self.told, ..Self::default() };
            return false;
        };
        let text = chain(error);
        if text != self.logged {
            tracing::warn!("credentials are not up to date: {text}");
            self.logged = text;
        }
        let now = Instant::now();
        let lasts = now.duration_since(*self.since.get_or_insert(now)) >= TOLD_AFTER;
        let due = lasts && self.told.is_none_or(|told| now.duration_since(told) >= TOLD_AGAIN);
        if due {
            self.told = Some(now);
        }
        due
    }
}

/// The bundle that every container has, also one without a token.
#[derive(Debug)]
struct Bundle {
    /// Where the kubelet keeps the cluster's CA for the sidecar.
    source: PathBuf,
    /// Where it is written.
    target: PathBuf,
}

impl Credentials {
    /// The directories, and the in-pod CA in PEM.
    #[must_use]
    pub const fn new(dirs: Vec<ServiceAccountDir>, pod_ca: String) -> Self {
        Self { dirs, pod_ca, bundle: None, copied: None }
    }

    /// The same, which also keeps in `target` a bundle of the in-pod CA and of what is in `ca.crt` of `source`.
    #[must_use]
    pub fn with_bundle(self, source: PathBuf, target: PathBuf) -> Self {
        Self { bundle: Some(Bundle { source, target }), ..self }
    }

    /// Copies whatever there is, then every change, for as long as it runs. Readiness is held back until all
    /// directories were written once. An error is logged when it is new, not at each attempt; where copies fail for
    /// longer, `notices` is told. Copying does not wait for that: where it is full, it is told later.
    pub async fn follow(mut self, block: BlockReady, notices: mpsc::Sender<Notice>) {
        let (mut block, mut failure) = (Some(block), Failure::default());
        loop {
            // The task fails only if the runtime is going down.
            let work = tokio::task::spawn_blocking(move || {
                let outcome = self.copy_changes();
                (self, outcome)
            });
            let Ok((this, outcome)) = work.await else { return };
            self = this;
            if failure.note(&outcome) && notices.try_send(Notice::CredentialsOutdated).is_err() {
                failure.told = None;
            }
            if outcome.is_ok() {
                drop(block.take());
            }
            sleep(if block.is_some() { FIRST_PERIOD } else { PERIOD }).await;
        }
    }

    /// Copies every directory if any of the originals changed. Touches the file system only.
    ///
    /// # Errors
    /// The first directory that cannot be read or written; its copy stays as it was, the others are written.
    pub fn copy_changes(&mut self) -> Result<(), CredentialsError> {
        let generations: Option<Vec<_>> = self.sources().map(source::generation).collect();
        if generations.is_some() && generations == self.copied {
            return Ok(());
        }
        let cluster = self.cluster_certificates();
        let copied = self.dirs.iter().map(|dir| self.copy(dir, &cluster));
        let outcomes: Vec<_> = copied.chain(self.bundle.iter().map(|bundle| self.write(bundle))).collect();
        outcomes.into_iter().collect::<Result<(), _>>()?;
        self.copied = generations;
        Ok(())
    }

    fn copy(&self, dir: &ServiceAccountDir, cluster: &[CertificateDer<'_>]) -> Result<(), CredentialsError> {
        let container = || dir.container.clone();
        let mut files = source::read(dir.source.as_ref()).map_err(|source| CredentialsError::Read {
            container: container(),
            path: dir.source.clone().into(),
            source,
        })?;
        for (name, content) in &mut files {
            let is_ca = name.file_name().is_some_and(|name| name == CA_FILE);
            bundle::put_first(content, &self.pod_ca, |certificate| is_ca || cluster.contains(certificate));
        }
        atomic::write(dir.target.as_ref(), &Content { files: &files, dir }).map_err(|source| {
            CredentialsError::Write { container: container(), path: dir.target.clone().into(), source }
        })
    }

    fn sources(&self) -> impl Iterator<Item = &Path> {
        let bundle = self.bundle.iter().map(|bundle| bundle.source.as_path());
        self.dirs.iter().map(|dir| Path::new(&dir.source)).chain(bundle)
    }

    fn write(&self, bundle: &Bundle) -> Result<(), CredentialsError> {
        let Bundle { source, target } = bundle;
        let content = source::read_file(&source.join(CA_FILE));
        let mut content = content.map_err(|error| CredentialsError::Bundle(source.clone(), error))?;
        bundle::put_first(&mut content, &self.pod_ca, |_| true);
        let files = [(CA_FILE.into(), content)].into();
        // Its files have the usual permissions, and nothing is mounted within it.
        let dir = ServiceAccountDir::new("", String::new(), String::new());
        atomic::write(target, &Content { files: &files, dir: &dir })
            .map_err(|error| CredentialsError::Bundle(target.clone(), error))
    }

    /// The certificates of the cluster's CA: those of every original's own `ca.crt`.
    fn cluster_certificates(&self) -> Vec<CertificateDer<'static>> {
        let bundles = self.sources().map(|source| source.join(CA_FILE));
        bundles
            .filter_map(|path| source::read_file(&path).ok())
            .flat_map(|pem| bundle::certificates(&pem))
            .collect()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

#[cfg(test)]
mod tests;
