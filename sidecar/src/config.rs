//! The sidecar's configuration: the environment that admission writes, and what the kubelet and the container's mounts
//! add to it. Every mistake is reported at once.

use std::path::PathBuf;

use podwitness_core::inject::{
    self, Credentials, EnvError, NODE_NAME, POD_NAME, POD_NAMESPACE, POD_SERVICE_ACCOUNT, POD_UID, Profile,
    SidecarEnv,
};
use podwitness_proxy::PodIdentity;
use podwitness_runtime::config::{Mistakes, Reader, Strings, parse};
use thiserror::Error;

use crate::api_server::ApiServer;

/// DNS domain of a cluster that has chosen none.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// What admission decided.
    pub env: SidecarEnv,
    /// The pod that this is the sidecar of.
    pub pod: PodIdentity,
    /// The API server as the kubelet names it.
    pub api_server: ApiServer,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Where things lie.
    pub paths: Paths,
}

/// Where things lie in the container.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Private memory volume: keys, last netmap, log socket.
    pub state: PathBuf,
    /// Recordings that no recorder took yet.
    pub spool: PathBuf,
    /// Token for the control plane.
    pub token: PathBuf,
    /// Bundles with the cluster's CA; the first that is there counts.
    pub cluster_ca: Vec<PathBuf>,
    /// The sidecar's own volume of the kubelet, with its token and the cluster's CA.
    pub identity: PathBuf,
    /// Where the bundle of every container is written; absent in a pod that was admitted by an earlier version.
    pub bundle: PathBuf,
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// What admission wrote is not all there.
    #[error("the configuration cannot be used:{}", list(.0))]
    Env(Vec<EnvError>),
    /// What the kubelet adds is not all there.
    #[error(transparent)]
    Pod(#[from] Mistakes),
    /// A later version is needed.
    #[error("this version of the sidecar does not offer {0}")]
    NotOffered(&'static str),
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// All that is missing or wrong in either source.
    pub fn read(strings: &dyn Strings, resolv_conf: &str) -> Result<Self, ConfigError> {
        let env = SidecarEnv::from_env(&|name| strings.get(name)).map_err(ConfigError::Env)?;
        if env.profile == Profile::Restricted {
            return Err(ConfigError::NotOffered("podwitness.dev/profile=restricted"));
        }
        if env.credentials == Credentials::Sealed {
            return Err(ConfigError::NotOffered("podwitness.dev/credentials=sealed"));
        }
        let (pod, api_server) = pod(strings)?;
        let cluster_domain = cluster_domain(resolv_conf).unwrap_or(CLUSTER_DOMAIN).to_owned();
        let paths = Paths::of(&env);
        Ok(Self { env, pod, api_server, cluster_domain, paths })
    }
}

impl Paths {
    fn of(env: &SidecarEnv) -> Self {
        let identity = PathBuf::from(inject::MOUNT_IDENTITY);
        let dirs = [inject::MOUNT_IDENTITY].into_iter();
        let dirs = dirs.chain(env.service_accounts.iter().map(|dir| dir.source.as_str()));
        let dirs = dirs.chain([inject::SERVICE_ACCOUNT_DIR]);
        Self {
            state: inject::MOUNT_STATE.into(),
            spool: inject::MOUNT_SPOOL.into(),
            token: identity.join("token"),
            cluster_ca: dirs.map(|dir| PathBuf::from(dir).join("ca.crt")).collect(),
            identity,
            bundle: inject::MOUNT_CA.into(),
        }
    }
}

fn pod(strings: &dyn Strings) -> Result<(PodIdentity, ApiServer), Mistakes> {
    let mut read = Reader::new(strings);
    let mut field = |name| read.required(name, "a field of the pod, by the downward API", parse::text);
    let (namespace, name, uid) = (field(POD_NAMESPACE), field(POD_NAME), field(POD_UID));
    let (service_account, node) = (field(POD_SERVICE_ACCOUNT), field(NODE_NAME));
    let host = read.required("KUBERNETES_SERVICE_HOST", "the address of the API server", parse::text);
    let port = read.required("KUBERNETES_SERVICE_PORT", "the port of the API server", parse::from_str);
    let all = (|| {
        let pod = PodIdentity {
            namespace: namespace?,
            name: name?,
            uid: uid?,
            node: node?,
            service_account: service_account?,
        };
        Some((pod, ApiServer { host: host?, port: port? }))
    })();
    read.finish(all)
}

/// The domain behind `svc.` in the search list that the kubelet writes (resolv.conf(5)).
fn cluster_domain(resolv_conf: &str) -> Option<&str> {
    let search = resolv_conf.lines().filter_map(|line| line.strip_prefix("search"));
    search
        .flat_map(str::split_whitespace)
        .find_map(|entry| entry.strip_prefix("svc."))
        .map(|d| d.trim_end_matches('.'))
}

fn list(errors: &[EnvError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use podwitness_core::{
        inject::{ApiServerAddresses, ControlAddress, EnvSource, Inject, ServiceAccountDir, UntilNetmap},
        trust::Trust,
    };

    use super::*;

    const RESOLV_CONF: &str =
        "search shop.svc.example.net svc.example.net example.net\nnameserver 10.96.0.10\n";

    fn vars() -> HashMap<String, String> {
        let dir = |n: u8| ServiceAccountDir::new("app", format!("/s/{n}"), "/t".into());
        let env = SidecarEnv {
            control: ControlAddress {
                name: "c".into(),
                port: 1,
                addresses: vec!["10.0.0.1".parse().unwrap()],
            },
            control_ca: "pem".into(),
            until_netmap: UntilNetmap::Open,
            inject: Inject::Required,
            profile: Profile::Interface,
            credentials: Credentials::Passthrough,
            service_accounts: vec![dir(0), dir(1)],
            log_level: "info".into(),
            spool_limit: 1,
            api_server: ApiServerAddresses::default(),
            ports: inject::SidecarPorts::default(),
            declared_ports: vec![],
            grace_period: inject::GRACE_PERIOD,
            trust: Trust::Pod,
        };
        let mut vars: HashMap<_, _> =
            [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        vars.extend(env.to_env().into_iter().map(|var| match var.value {
            EnvSource::Literal(text) => (var.name.to_owned(), text),
            EnvSource::Field(path) => (var.name.to_owned(), path.to_owned()),
        }));
        vars
    }

    fn read(vars: &HashMap<String, String>) -> Result<Config, ConfigError> {
        Config::read(&|name: &str| vars.get(name).cloned(), RESOLV_CONF)
    }

    #[test]
    fn what_admission_and_the_kubelet_write_is_a_configuration() {
        let config = read(&vars()).unwrap();
        assert_eq!(config.pod.name, "metadata.name");
        assert_eq!(config.cluster_domain, "example.net");
        let bundles: Vec<_> = config.paths.cluster_ca.iter().map(|path| path.to_str().unwrap()).collect();
        let default = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        assert_eq!(bundles, ["/var/run/podwitness/identity/ca.crt", "/s/0/ca.crt", "/s/1/ca.crt", default]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut vars = vars();
        vars.remove("KUBERNETES_SERVICE_HOST");
        vars.remove(POD_UID);
        let text = read(&vars).unwrap_err().to_string();
        assert!(text.contains("KUBERNETES_SERVICE_HOST") && text.contains(POD_UID), "{text}");
        vars.retain(|name, _| !name.starts_with("PODWITNESS_"));
        assert_eq!(read(&vars).unwrap_err().to_string().lines().count(), 10);
    }

    #[test]
    fn what_this_version_cannot_do_is_refused() {
        for (name, value) in [("PODWITNESS_PROFILE", "restricted"), ("PODWITNESS_CREDENTIALS", "sealed")] {
            let mut vars = vars();
            vars.insert(name.into(), value.into());
            assert!(matches!(read(&vars), Err(ConfigError::NotOffered(_))));
        }
    }

    #[test]
    fn a_search_list_of_another_kind_names_no_domain() {
        assert_eq!(cluster_domain("nameserver 10.0.0.1\nsearch example.org corp\n"), None);
        assert_eq!(
            cluster_domain("search ns.svc.cluster.local svc.cluster.local. cluster.local"),
            Some("cluster.local")
        );
    }
}
