//! The cluster of the kubeconfig, and its errors in words for people: what failed, and what to do about it.

use std::{error::Error as _, path::PathBuf, time::Duration};

use kube::{
    Api, Client, Config, Resource,
    api::ListParams,
    client::AuthError,
    config::{KubeConfigOptions, KubeconfigError, LoadDataError},
};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::timeout;

/// For each request to the API server.
const LIMIT: Duration = Duration::from_secs(30);
/// Objects of one answer of the API server, and how many there may be at all.
const PAGE: u32 = 500;
const MAX_OBJECTS: usize = 10_000;

/// Why the cluster cannot be asked.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// There is no kubeconfig, or it cannot be used.
    #[error("{0}")]
    Kubeconfig(String),
    /// TLS or the client cannot be set up.
    #[error("cannot set up a client for {server}: {why}")]
    Client {
        /// URL of the API server.
        server: String,
        /// What failed.
        why: String,
    },
    /// A request failed.
    #[error("cannot {what}: {why}")]
    Request {
        /// What was to be done, such as `list grants.podwitness.dev`.
        what: String,
        /// What failed, and a hint.
        why: String,
    },
    /// There is no answer within the limit.
    #[error("cannot {what}: the API server {server} does not answer within {} s", LIMIT.as_secs())]
    Timeout {
        /// What was to be done.
        what: String,
        /// URL of the API server.
        server: String,
    },
    /// More objects than are read.
    #[error("there are more than {MAX_OBJECTS} {0}")]
    TooMany(&'static str),
    /// There is no namespace of this name.
    #[error("there is no namespace {0}; see kubectl get namespaces")]
    NoNamespace(String),
}

/// A client, and what the kubeconfig says besides.
pub struct Cluster {
    client: Client,
    server: String,
    namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig, or else takes the service account of the pod; asks nothing yet.
    ///
    /// # Errors
    /// Where there is neither, or what there is cannot be used.
    pub async fn connect(context: Option<&str>) -> Result<Self, ClusterError> {
        let options = KubeConfigOptions { context: context.map(ToOwned::to_owned), ..Default::default() };
        let config = match Config::from_kubeconfig(&options).await {
            Ok(config) => config,
            Err(error) if context.is_none() => {
                Config::incluster().map_err(|_| ClusterError::Kubeconfig(kubeconfig(&error)))?
            }
            Err(error) => return Err(ClusterError::Kubeconfig(kubeconfig(&error))),
        };
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let failed = |error| ClusterError::Client { server: server.clone(), why: explain(&error) };
        let client = Client::try_from(config).map_err(failed)?;
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        Ok(Self { client, server, namespace })
    }

    /// Namespace of the context, as kubectl takes it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// All objects of a kind; `what` is their resource, such as `grants.podwitness.dev`.
    ///
    /// # Errors
    /// Where they cannot be listed, or are too many.
    pub async fn all<K>(&self, what: &'static str) -> Result<Vec<K>, ClusterError>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client());
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = self.within(&format!("list {what}"), api.list(&params)).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(_) if found.len() >= MAX_OBJECTS => return Err(ClusterError::TooMany(what)),
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// Waits for a request, with a limit.
    ///
    /// # Errors
    /// Where it fails, in words for people.
    pub async fn within<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match timeout(LIMIT, request).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(ClusterError::Request { what: what.to_owned(), why: self.why(&error) }),
            Err(_) => Err(ClusterError::Timeout { what: what.to_owned(), server: self.server.clone() }),
        }
    }

    fn why(&self, error: &kube::Error) -> String {
        match error {
            kube::Error::Service(_) | kube::Error::HyperError(_) => {
                format!("cannot reach the API server {}: {}", self.server, explain(error))
            }
            error => explain(error),
        }
    }
}

/// A failed request in words: never a type or a field of this program.
fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => {
                "the API server does not accept the credentials of the kubeconfig; log in again".to_owned()
            }
            403 => {
                format!("{}; ask for the right, see kubectl witness grants explain --help", status.message)
            }
            404 if status.message.contains("page not found")
                || status.message.contains("could not find the requested") =>
            {
                "the cluster does not have this kind; is Podwitness installed there?".to_owned()
            }
            code if status.message.is_empty() => format!("the API server answers {code}"),
            _ => status.message.clone(),
        },
        kube::Error::Auth(error) => credentials(error),
        // The innermost error says what happened; those around it name parts of the client.
        error => innermost(error),
    }
}

fn credentials(error: &AuthError) -> String {
    match error {
        // Its command line may hold secrets, and is in the kubeconfig.
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            let why = last.map_or_else(String::new, |line| format!(": {}", line.trim()));
            format!("the credential plugin of the kubeconfig fails ({}){why}", out.status)
        }
        AuthError::AuthExecStart(error) => {
            format!("the credential plugin of the kubeconfig cannot be started: {error}")
        }
        AuthError::ReadTokenFile(error, path) => {
            format!("cannot read the token file {}: {error}", path.display())
        }
        error => format!("the kubeconfig's credentials cannot be used: {}", innermost(error)),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    // A service's error may wrap one of the credential plugin.
    let (mut all, mut next) = (vec![error], error.source());
    // Bounded, should an error name itself as its source.
    while let Some(source) = next.filter(|_| all.len() < 32) {
        all.push(source);
        next = source.source();
    }
    if let Some(error) = all.iter().find_map(|error| error.downcast_ref::<AuthError>()) {
        return match error {
            AuthError::AuthExecRun { .. } | AuthError::AuthExecStart(_) | AuthError::ReadTokenFile(..) => {
                credentials(error)
            }
            error => error.source().map_or_else(|| error.to_string(), ToString::to_string),
        };
    }
    all.last().map_or_else(String::new, ToString::to_string)
}

fn kubeconfig(error: &KubeconfigError) -> String {
    let remedy = "set KUBECONFIG, or write ~/.kube/config";
    match error {
        KubeconfigError::FindPath => format!("there is no kubeconfig; {remedy}"),
        KubeconfigError::ReadConfig(error, path) => {
            format!("cannot read the kubeconfig {}: {error}; {remedy}", path.display())
        }
        KubeconfigError::CurrentContextNotSet => {
            "the kubeconfig has no current context; choose one with --context, or kubectl config use-context"
                .to_owned()
        }
        KubeconfigError::LoadContext(name) => {
            format!("the kubeconfig has no context {name}; see kubectl config get-contexts")
        }
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("the kubeconfig has no cluster {name}, which its context names")
        }
        KubeconfigError::LoadCertificateAuthority(error) => load("certificate authority", error),
        KubeconfigError::LoadClientCertificate(error) => load("client certificate", error),
        KubeconfigError::LoadClientKey(error) => load("client key", error),
        error => format!("the kubeconfig cannot be used: {error}"),
    }
}

fn load(what: &str, error: &LoadDataError) -> String {
    let read = |error: &std::io::Error, path: &PathBuf| format!("cannot read {}: {error}", path.display());
    let why = match error {
        LoadDataError::ReadFile(error, path) => read(error, path),
        error => error.to_string(),
    };
    format!("the kubeconfig's {what} cannot be used: {why}")
}

#[cfg(test)]
mod tests {
    use std::{io, os::unix::process::ExitStatusExt as _, process::Output};

    use kube::core::Status;

    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, message: message.to_owned(), ..Status::default() }))
    }

    #[test]
    fn errors_of_requests_are_words_and_no_structs() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let exec = || AuthError::AuthExecRun {
            cmd: "aws --token secret".to_owned(),
            out: Box::new(Output {
                status: std::process::ExitStatus::from_raw(256),
                stdout: b"secret".to_vec(),
                stderr: b"usage\nUnable to locate credentials\n\n".to_vec(),
            }),
        };
        for (error, says) in [
            (api(401, "Unauthorized"), "does not accept the credentials"),
            (
                api(403, "grants.podwitness.dev is forbidden: User \"ana\" cannot list resource \"grants\""),
                "User \"ana\" cannot list resource \"grants\"; ask for the right",
            ),
            (api(404, "404 page not found"), "is Podwitness installed there?"),
            (api(500, ""), "the API server answers 500"),
            (api(500, "etcdserver: request timed out"), "etcdserver: request timed out"),
            (kube::Error::Service(Box::new(refused())), "connection refused"),
            (
                kube::Error::Service(Box::new(exec())),
                "the credential plugin of the kubeconfig fails (exit status: 1)",
            ),
            (kube::Error::Auth(exec()), "Unable to locate credentials"),
            (kube::Error::Auth(AuthError::MissingCommand), "credentials cannot be used"),
        ] {
            let said = explain(&error);
            assert!(said.contains(says), "{said}");
            for debug in ["{", "Some(", "Status", "Error:", "Output", "secret"] {
                assert!(!said.contains(debug), "{debug}: {said}");
            }
        }
    }

    #[test]
    fn errors_of_the_kubeconfig_name_the_remedy() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        for (error, says) in [
            (KubeconfigError::FindPath, "set KUBECONFIG"),
            (
                KubeconfigError::ReadConfig(missing(), "/nowhere/config".into()),
                "kubeconfig /nowhere/config: ",
            ),
            (KubeconfigError::CurrentContextNotSet, "--context"),
            (
                KubeconfigError::LoadContext("prod".into()),
                "has no context prod; see kubectl config get-contexts",
            ),
            (
                KubeconfigError::LoadClientKey(LoadDataError::ReadFile(missing(), "/k".into())),
                "client key cannot be used: cannot read /k: ",
            ),
        ] {
            let said = kubeconfig(&error);
            assert!(said.contains(says) && !said.contains('"'), "{said}");
        }
    }
}
