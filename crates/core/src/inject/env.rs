//! The sidecar's environment: written by admission, read by the sidecar.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::{
    ApiServerAddresses, ControlAddress, Credentials, GRACE_PERIOD, Inject, Profile, ServiceAccountDir,
    SidecarPorts, UntilNetmap,
};
use crate::trust::Trust;

/// Prefix of every variable that is not a field of the pod.
pub const PREFIX: &str = "PODWITNESS_";
const CONTROL: &str = "PODWITNESS_CONTROL";
const CONTROL_CA: &str = "PODWITNESS_CONTROL_CA";
const UNTIL_NETMAP: &str = "PODWITNESS_UNTIL_NETMAP";
/// Variable that says how binding injection was when the pod was admitted.
pub const INJECT: &str = "PODWITNESS_INJECT";
const PROFILE: &str = "PODWITNESS_PROFILE";
const CREDENTIALS: &str = "PODWITNESS_CREDENTIALS";
/// Variable with the directories that the sidecar keeps, in the order of their numbers.
pub const SERVICE_ACCOUNTS: &str = "PODWITNESS_SERVICE_ACCOUNTS";
const LOG_LEVEL: &str = "PODWITNESS_LOG_LEVEL";
const SPOOL_LIMIT: &str = "PODWITNESS_SPOOL_LIMIT";
const API_SERVER: &str = "PODWITNESS_API_SERVER";
const PORTS: &str = "PODWITNESS_PORTS";
const DECLARED_PORTS: &str = "PODWITNESS_DECLARED_PORTS";
const GRACE: &str = "PODWITNESS_GRACE_PERIOD";
const TRUST: &str = "PODWITNESS_TRUST";

/// Variable with the pod's namespace.
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// Variable with the pod's name.
pub const POD_NAME: &str = "POD_NAME";
/// Variable with the pod's uid.
pub const POD_UID: &str = "POD_UID";
/// Variable with the pod's service account.
pub const POD_SERVICE_ACCOUNT: &str = "POD_SERVICE_ACCOUNT";
/// Variable with the pod's node.
pub const NODE_NAME: &str = "NODE_NAME";

/// Downward-API fields: variable and field path.
pub const POD_FIELDS: [(&str, &str); 5] = [
    (POD_NAMESPACE, "metadata.namespace"),
    (POD_NAME, "metadata.name"),
    (POD_UID, "metadata.uid"),
    (POD_SERVICE_ACCOUNT, "spec.serviceAccountName"),
    (NODE_NAME, "spec.nodeName"),
];

/// One variable of the injected container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnvVar {
    /// Variable name.
    pub name: &'static str,
    /// Where its value comes from.
    pub value: EnvSource,
}

/// Source of a variable's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EnvSource {
    /// The value itself.
    Literal(String),
    /// A field path of the downward API, such as `metadata.name`.
    Field(&'static str),
}

/// What admission tells the sidecar; immutable once the pod is admitted. The pod's own coordinates come by the
/// downward API and are read with the rest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SidecarEnv {
    /// The control API.
    pub control: ControlAddress,
    /// PEM root under which the control API's certificate stands.
    pub control_ca: String,
    /// What holds before the first netmap.
    pub until_netmap: UntilNetmap,
    /// How binding injection is in this namespace.
    pub inject: Inject,
    /// How the pod's connections are intercepted.
    pub profile: Profile,
    /// What containers hold as token.
    pub credentials: Credentials,
    /// Directories that the sidecar keeps for other containers.
    pub service_accounts: Vec<ServiceAccountDir>,
    /// Log filter of the sidecar.
    pub log_level: String,
    /// Bytes of the spool that may be used: half of the volume's limit, because the kubelet evicts a pod above it.
    pub spool_limit: u64,
    /// Where the API server is, until a netmap says it; empty where admission is of a version that does not say it.
    pub api_server: ApiServerAddresses,
    /// Where it answers probes and metrics; written only where a container declares one of the usual ports.
    pub ports: SidecarPorts,
    /// TCP ports that containers declare, up to [`super::MAX_DECLARED_PORTS`]; written only where there are any.
    pub declared_ports: Vec<u16>,
    /// The pod's `terminationGracePeriodSeconds`; written only where it is not [`GRACE_PERIOD`].
    pub grace_period: u32,
    /// Whether a certificate of the cluster's CA is to be expected; which one it is comes from the control plane.
    pub trust: Trust,
}

/// A variable that is missing or cannot be read.
#[derive(Debug, Eq, Error, PartialEq)]
pub enum EnvError {
    /// The variable is absent.
    #[error("{0} is not set: this program runs as the sidecar that admission injects")]
    Missing(&'static str),
    /// The variable's value does not parse.
    #[error("{name} is not {expected}")]
    Invalid {
        /// Variable name.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl SidecarEnv {
    /// The variables of the injected container, in a fixed order.
    #[must_use]
    pub fn to_env(&self) -> Vec<EnvVar> {
        let literal = |name, value: &str| EnvVar { name, value: EnvSource::Literal(value.to_owned()) };
        let mut vars = vec![
            literal(CONTROL, &control_to_text(&self.control)),
            literal(CONTROL_CA, &self.control_ca),
            literal(UNTIL_NETMAP, self.until_netmap.as_str()),
            literal(INJECT, self.inject.as_str()),
            literal(PROFILE, self.profile.as_str()),
            literal(CREDENTIALS, self.credentials.as_str()),
            literal(SERVICE_ACCOUNTS, &serde_json::json!(self.service_accounts).to_string()),
            literal(LOG_LEVEL, &self.log_level),
            literal(SPOOL_LIMIT, &self.spool_limit.to_string()),
            literal(API_SERVER, &api_server_to_text(&self.api_server)),
        ];
        if self.ports != SidecarPorts::default() {
            vars.push(literal(PORTS, &format!("{},{}", self.ports.admin, self.ports.probe)));
        }
        if !self.declared_ports.is_empty() {
            vars.push(literal(DECLARED_PORTS, &list_to_text(&self.declared_ports)));
        }
        if self.grace_period != GRACE_PERIOD {
            vars.push(literal(GRACE, &self.grace_period.to_string()));
        }
        if self.trust != Trust::Pod {
            vars.push(literal(TRUST, "cluster"));
        }
        vars.extend(POD_FIELDS.map(|(name, path)| EnvVar { name, value: EnvSource::Field(path) }));
        vars
    }

    /// Reads the variables through `get`.
    ///
    /// # Errors
    /// Every variable that is missing or wrong, so that all mistakes are seen at once.
    pub fn from_env(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<EnvError>> {
        let mut errors = Vec::new();
        let control = read(get, CONTROL, "NAME:PORT=IP[,IP…]", control_from_text, &mut errors);
        let control_ca = read(get, CONTROL_CA, "a PEM certificate", |v| Some(v.to_owned()), &mut errors);
        let until_netmap =
            read(get, UNTIL_NETMAP, "open, closed or closed-to-all", UntilNetmap::parse, &mut errors);
        let inject = read(get, INJECT, "required or optional", Inject::parse, &mut errors);
        let profile = read(get, PROFILE, "interface or restricted", Profile::parse, &mut errors);
        let credentials = read(get, CREDENTIALS, "sealed or passthrough", Credentials::parse, &mut errors);
        let service_accounts =
            read(get, SERVICE_ACCOUNTS, "a JSON list", |v| serde_json::from_str(v).ok(), &mut errors);
        let log_level = read(get, LOG_LEVEL, "a log filter", |v| Some(v.to_owned()), &mut errors);
        let spool_limit = read(get, SPOOL_LIMIT, "a number of bytes", |v| v.parse().ok(), &mut errors);
        let expected = "IP:PORT[,…]=IP:PORT[,…]";
        let none = ApiServerAddresses::default();
        let api_server = read_or(get, API_SERVER, none, expected, api_server_from_text, &mut errors);
        let usual = SidecarPorts::default();
        let ports = read_or(get, PORTS, usual, "PORT,PORT", ports_from_text, &mut errors);
        let declared = |text: &str| text.split(',').map(|port| port.parse().ok()).collect();
        let expected = "PORT[,PORT…]";
        let declared_ports = read_or(get, DECLARED_PORTS, Vec::new(), expected, declared, &mut errors);
        let seconds = |text: &str| text.parse().ok();
        let grace_period = read_or(get, GRACE, GRACE_PERIOD, "a number of seconds", seconds, &mut errors);
        let trust = read_or(get, TRUST, Trust::Pod, "cluster or pod", Trust::parse, &mut errors);
        let complete = (|| {
            Some(Self {
                control: control?,
                control_ca: control_ca?,
                until_netmap: until_netmap?,
                inject: inject?,
                profile: profile?,
                credentials: credentials?,
                service_accounts: service_accounts?,
                log_level: log_level?,
                spool_limit: spool_limit?,
                api_server: api_server?,
                ports: ports?,
                declared_ports: declared_ports?,
                grace_period: grace_period?,
                trust: trust?,
            })
        })();
        complete.ok_or(errors)
    }
}

fn read<T>(
    get: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    errors: &mut Vec<EnvError>,
) -> Option<T> {
    let Some(text) = get(name) else {
        errors.push(EnvError::Missing(name));
        return None;
    };
    let value = parse(&text);
    if value.is_none() {
        errors.push(EnvError::Invalid { name, expected });
    }
    value
}

/// The same for a variable that is written only where its value is not `default`.
fn read_or<T>(
    get: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    default: T,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    errors: &mut Vec<EnvError>,
) -> Option<T> {
    if get(name).is_none() { Some(default) } else { read(get, name, expected, parse, errors) }
}

fn ports_from_text(text: &str) -> Option<SidecarPorts> {
    let (admin, probe) = text.split_once(',')?;
    Some(SidecarPorts { admin: admin.parse().ok()?, probe: probe.parse().ok()? })
}

fn list_to_text<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn control_to_text(control: &ControlAddress) -> String {
    format!("{}:{}={}", control.name, control.port, list_to_text(&control.addresses))
}

fn control_from_text(text: &str) -> Option<ControlAddress> {
    let (authority, addresses) = text.split_once('=')?;
    let (name, port) = authority.rsplit_once(':')?;
    let addresses = addresses.split(',').map(|a| a.parse().ok()).collect::<Option<Vec<IpAddr>>>()?;
    Some(ControlAddress { name: name.to_owned(), port: port.parse().ok()?, addresses })
}

fn api_server_to_text(of: &ApiServerAddresses) -> String {
    format!("{}={}", list_to_text(&of.service), list_to_text(&of.endpoints))
}

fn api_server_from_text(text: &str) -> Option<ApiServerAddresses> {
    let list = |text: &str| -> Option<Vec<SocketAddr>> {
        text.split(',').filter(|item| !item.is_empty()).map(|item| item.parse().ok()).collect()
    };
    let (service, endpoints) = text.split_once('=')?;
    Some(ApiServerAddresses { service: list(service)?, endpoints: list(endpoints)? })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn sample() -> SidecarEnv {
        SidecarEnv {
            control: ControlAddress {
                name: "podwitness-control.podwitness-system.svc".into(),
                port: 8444,
                addresses: vec!["10.96.3.4".parse().unwrap(), "fd00::1".parse().unwrap()],
            },
            control_ca: "-----BEGIN CERTIFICATE-----\n".into(),
            until_netmap: UntilNetmap::Closed,
            inject: Inject::Required,
            profile: Profile::Interface,
            credentials: Credentials::Passthrough,
            service_accounts: vec![
                ServiceAccountDir::new("app", "/s/0".into(), "/t/0".into()),
                ServiceAccountDir {
                    volume: "token".into(),
                    default_mode: 0o400,
                    modes: [("bin/run".into(), 0o555)].into(),
                    mount_points: vec!["extra".into()],
                    ..ServiceAccountDir::new("app", "/s/1".into(), "/t/1".into())
                },
            ],
            log_level: "info".into(),
            spool_limit: 1 << 26,
            api_server: ApiServerAddresses {
                service: vec!["10.96.0.1:443".parse().unwrap(), "[fd00::1]:443".parse().unwrap()],
                endpoints: vec!["172.18.0.2:6443".parse().unwrap()],
            },
            ports: SidecarPorts { admin: 15432, probe: 15431 },
            declared_ports: vec![8080, 15430],
            grace_period: 5,
            trust: Trust::Cluster,
        }
    }

    fn literals(env: &SidecarEnv) -> HashMap<&'static str, String> {
        let literal = |var: EnvVar| match var.value {
            EnvSource::Literal(value) => Some((var.name, value)),
            EnvSource::Field(_) => None,
        };
        env.to_env().into_iter().filter_map(literal).collect()
    }

    #[test]
    fn what_admission_writes_the_sidecar_reads() {
        let vars = literals(&sample());
        assert_eq!(SidecarEnv::from_env(&|name| vars.get(name).cloned()), Ok(sample()));
    }

    #[test]
    fn a_sidecar_of_a_pod_that_was_admitted_before_knows_no_addresses() {
        let mut vars = literals(&sample());
        vars.remove(API_SERVER);
        let env = SidecarEnv::from_env(&|name| vars.get(name).cloned()).unwrap();
        assert_eq!(env.api_server, ApiServerAddresses::default());
        for text in ["10.96.0.1:443", "x=", "=10.0.0.1"] {
            vars.insert(API_SERVER, text.into());
            assert!(SidecarEnv::from_env(&|name| vars.get(name).cloned()).is_err(), "{text}");
        }
        vars.insert(API_SERVER, "=".into());
        assert_eq!(SidecarEnv::from_env(&|name| vars.get(name).cloned()).unwrap().api_server, env.api_server);
    }

    #[test]
    fn directories_of_pods_that_were_admitted_before_have_the_usual_modes() {
        let text = r#"[{"container":"app","source":"/s/0","target":"/t/0"}]"#;
        let read: Vec<ServiceAccountDir> = serde_json::from_str(text).unwrap();
        assert_eq!(read, [ServiceAccountDir::new("app", "/s/0".into(), "/t/0".into())]);
    }

    #[test]
    fn what_is_as_usual_is_not_written() {
        let (ports, trust) = (SidecarPorts::default(), Trust::Pod);
        let usual =
            SidecarEnv { ports, declared_ports: vec![], grace_period: GRACE_PERIOD, trust, ..sample() };
        let mut vars = literals(&usual);
        assert!([PORTS, DECLARED_PORTS, GRACE, TRUST].iter().all(|name| !vars.contains_key(name)));
        assert_eq!(SidecarEnv::from_env(&|name| vars.get(name).cloned()), Ok(usual));
        for (name, wrong) in [
            (PORTS, "15430"),
            (PORTS, "1,65536"),
            (DECLARED_PORTS, "80,"),
            (GRACE, "-1"),
            (GRACE, "5s"),
            (TRUST, "everyone"),
        ] {
            vars.insert(name, wrong.into());
            assert!(SidecarEnv::from_env(&|name| vars.get(name).cloned()).is_err(), "{name}={wrong}");
            vars.remove(name);
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let errors = SidecarEnv::from_env(&|name| (name == UNTIL_NETMAP).then(|| "ajar".into())).unwrap_err();
        assert_eq!(errors.len(), 9);
        assert!(
            errors.contains(&EnvError::Invalid {
                name: UNTIL_NETMAP,
                expected: "open, closed or closed-to-all"
            })
        );
    }
}
