//! Settings of both roles, from the environment.

use std::{net::SocketAddr, time::Duration};

use podwitness_core::{
    inject::{CONTROL_PORT, HEALTH_PORT},
    labels::SYSTEM_NAMESPACE,
    trust::TrustSetting,
};
use podwitness_runtime::{
    admin::AdminAddresses,
    config::{Mistakes, Reader, Strings, parse},
};

use crate::{
    admit::{Amount, Amounts},
    control::addresses::{self, Given},
};

/// What `--help` says about the environment.
pub const HELP: &str = "\
Settings come from the environment:
  POD_NAMESPACE                  namespace of the installation [podwitness-system]
  PODWITNESS_ADMIN               address of health and metrics [[::]:8080]
  PODWITNESS_HEALTH              address of health for the kubelet's probes [[::]:8082]
  PODWITNESS_LOG                 log filter [info]
  PODWITNESS_LOG_FORMAT          text or json [text]
  PODWITNESS_DRAIN               how long requests in flight may take at shutdown [25s]
  PODWITNESS_TRUST               whose certificates sidecars serve: pod (those of their own CA), namespace (also one of
                                 the cluster's CA where the Namespace says so), cluster (also one of the cluster's CA
                                 where injection is required); the last two want manifests/trust-cluster [pod]
admit:
  PODWITNESS_LISTEN              address of the webhook [[::]:8443]
  PODWITNESS_SIDECAR_IMAGE       image of the injected sidecar (required)
  PODWITNESS_IMAGE_PULL_SECRETS  names of pull secrets to add to injected pods, separated by commas
  PODWITNESS_SPOOL_SIZE          size limit of the spool volume, of which half is used [512Mi]
  PODWITNESS_NODE_TUN            always, or never where every node's kernel has WireGuard: whether sidecars mount the
                                 node's /dev/net (hostPath), which WireGuard in user space needs [always]
  PODWITNESS_SIDECAR_CPU_REQUEST, PODWITNESS_SIDECAR_CPU_LIMIT, PODWITNESS_SIDECAR_MEMORY_REQUEST,
  PODWITNESS_SIDECAR_MEMORY_LIMIT  what a sidecar has where no annotation of its pod or Namespace says otherwise
                                 [20m, none, 32Mi, 128Mi; limits at least 100m and 64Mi]
control:
  PODWITNESS_LISTEN              address of the control API [[::]:8444]
  PODWITNESS_SIDECAR_IMAGE       images of sidecars that may enrol, separated by commas; tags do not matter (required)
  PODWITNESS_RECORDER_IMAGE      image of recorders whose Recorder names none (required)
  PODWITNESS_EVICTION_RESERVE    percentage of a node's file system below which its kubelet evicts pods, and which
                                 recorders on it leave free: nodefs.available [10%]
  PODWITNESS_API_SERVERS         where else the API server is reached: names or addresses, with a port where it is
                                 neither 443 nor its own, or networks (CIDR, 64 addresses at most), separated by commas";

/// What both roles need.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Common {
    /// Namespace of the installation.
    pub namespace: String,
    /// AdminAddresses of health and metrics.
    pub admin: AdminAddresses,
    /// Log filter.
    pub log: String,
    /// Log as JSON.
    pub json: bool,
    /// How long requests in flight may take at shutdown.
    pub drain: Duration,
    /// Whose certificates sidecars serve.
    pub trust: TrustSetting,
}

/// Settings of `admit`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdmitConfig {
    /// What both roles need.
    pub common: Common,
    /// Address of the webhook.
    pub listen: SocketAddr,
    /// Image of the injected sidecar.
    pub image: String,
    /// Pull secrets added to injected pods.
    pub pull_secrets: Vec<String>,
    /// Size limit of the spool volume in bytes.
    pub spool_size: u64,
    /// Whether sidecars get the node's `/dev/net`, for WireGuard in user space.
    pub node_tun: bool,
    /// What a sidecar has where no annotation says otherwise.
    pub amounts: Amounts,
}

/// Settings of `control`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControlConfig {
    /// What both roles need.
    pub common: Common,
    /// Address of the control API.
    pub listen: SocketAddr,
    /// Images of sidecars that may enrol; tags do not matter.
    pub images: Vec<String>,
    /// Image of recorders whose Recorder names none.
    pub recorder_image: String,
    /// Percentage of a node's file system below which its kubelet evicts pods.
    pub eviction_percent: u8,
    /// Where the API server is reached besides what objects say.
    pub api_servers: Vec<Given>,
}

impl AdmitConfig {
    /// Reads the settings.
    ///
    /// # Errors
    /// Every setting that is missing or wrong.
    pub fn read(strings: &dyn Strings) -> Result<Self, Mistakes> {
        let mut read = Reader::new(strings);
        let common = Common::read(&mut read);
        let listen = listen(&mut read, 8443);
        let image = read.required("PODWITNESS_SIDECAR_IMAGE", "an image reference", parse::text);
        let pull_secrets =
            read.or("PODWITNESS_IMAGE_PULL_SECRETS", "names separated by commas", Vec::new(), names);
        let spool_size =
            read.or("PODWITNESS_SPOOL_SIZE", "a size of at least 1Mi, such as 512Mi", 512 << 20, spool);
        let node_tun = read.or("PODWITNESS_NODE_TUN", "always or never", true, |text| match text {
            "always" => Some(true),
            "never" => Some(false),
            _ => None,
        });
        let amounts = amounts(&mut read);
        let complete = (|| {
            Some(Self {
                amounts: amounts?,
                common: common?,
                listen: listen?,
                image: image?,
                pull_secrets: pull_secrets?,
                spool_size: spool_size?,
                node_tun: node_tun?,
            })
        })();
        read.finish(complete)
    }
}

impl ControlConfig {
    /// Reads the settings.
    ///
    /// # Errors
    /// Every setting that is missing or wrong.
    pub fn read(strings: &dyn Strings) -> Result<Self, Mistakes> {
        let mut read = Reader::new(strings);
        let common = Common::read(&mut read);
        let listen = listen(&mut read, CONTROL_PORT);
        let images = read.required("PODWITNESS_SIDECAR_IMAGE", "image references separated by commas", names);
        let recorder_image = read.required("PODWITNESS_RECORDER_IMAGE", "an image reference", parse::text);
        let eviction =
            read.or("PODWITNESS_EVICTION_RESERVE", "a percentage such as 10%", EVICTION, parse::percent);
        let what = "names, addresses or networks of up to 64 addresses, separated by commas";
        let api_servers = read.or("PODWITNESS_API_SERVERS", what, Vec::new(), addresses::parse);
        let complete = (|| {
            Some(Self {
                common: common?,
                listen: listen?,
                images: images?,
                recorder_image: recorder_image?,
                eviction_percent: eviction?,
                api_servers: api_servers?,
            })
        })();
        read.finish(complete)
    }
}

impl Common {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let namespace = read.or("POD_NAMESPACE", "a namespace", SYSTEM_NAMESPACE.to_owned(), parse::text);
        let admin = read.or("PODWITNESS_ADMIN", ADDRESS, unspecified(8080), parse::from_str);
        let health = read.or("PODWITNESS_HEALTH", ADDRESS, unspecified(HEALTH_PORT), parse::from_str);
        let admin = admin.zip(health).map(|(admin, health)| AdminAddresses { admin, health: Some(health) });
        let log = read.or("PODWITNESS_LOG", "a log filter", "info".to_owned(), parse::text);
        let json = read.or("PODWITNESS_LOG_FORMAT", "text or json", false, |text| match text {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        });
        let drain = read.or("PODWITNESS_DRAIN", "a time such as 25s", DRAIN, parse::duration);
        let trust = read.or(
            "PODWITNESS_TRUST",
            "pod, namespace or cluster",
            TrustSetting::default(),
            TrustSetting::parse,
        );
        Some(Self {
            namespace: namespace?,
            admin: admin?,
            log: log?,
            json: json?,
            drain: drain?,
            trust: trust?,
        })
    }
}

const ADDRESS: &str = "an address with port, such as [::]:8443";
const DRAIN: Duration = Duration::from_secs(25);
/// The default of kubelets (`evictionHard` of `KubeletConfiguration`).
const EVICTION: u8 = 10;

fn listen(read: &mut Reader<'_>, port: u16) -> Option<SocketAddr> {
    read.or("PODWITNESS_LISTEN", ADDRESS, unspecified(port), parse::from_str)
}

fn unspecified(port: u16) -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, port).into()
}

fn amounts(read: &mut Reader<'_>) -> Option<Amounts> {
    let default = Amounts::default();
    let names = ["PODWITNESS_SIDECAR_CPU_REQUEST", "PODWITNESS_SIDECAR_CPU_LIMIT"];
    let what = ["a CPU quantity of at least 1m", "none, or a CPU quantity of at least 100m and its request"];
    let cpu = amount(read, names, what, default.cpu, Amount::of_cpu);
    let names = ["PODWITNESS_SIDECAR_MEMORY_REQUEST", "PODWITNESS_SIDECAR_MEMORY_LIMIT"];
    let what = ["a size of at least 16Mi", "a size of at least 64Mi and its request"];
    let memory = amount(read, names, what, default.memory, Amount::of_memory);
    Some(Amounts { cpu: cpu?, memory: memory? })
}

fn amount(
    read: &mut Reader<'_>,
    [request_name, limit_name]: [&'static str; 2],
    [request_what, limit_what]: [&'static str; 2],
    default: Amount,
    said: impl Fn(Option<&str>, Option<&str>) -> Option<Amount>,
) -> Option<Amount> {
    let request = read.optional(request_name, request_what, parse::text)?;
    let alone = read.or(request_name, request_what, default, |request| said(Some(request), None))?;
    read.or(limit_name, limit_what, alone, |limit| said(request.as_deref(), Some(limit)))
}

fn names(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

fn spool(text: &str) -> Option<u64> {
    parse::bytes(text).filter(|bytes| *bytes >= 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn an_image_is_all_that_admission_has_to_be_told() {
        let config = AdmitConfig::read(&env(&[("PODWITNESS_SIDECAR_IMAGE", "r.example/s:1")])).unwrap();
        assert_eq!(config.common.namespace, SYSTEM_NAMESPACE);
        assert_eq!((config.listen.port(), config.image.as_str()), (8443, "r.example/s:1"));
        assert!(config.node_tun);
    }

    #[test]
    fn kubelets_are_taken_to_have_their_default_threshold() {
        let images = [("PODWITNESS_SIDECAR_IMAGE", "s"), ("PODWITNESS_RECORDER_IMAGE", "r")];
        let read = |more: &[(&'static str, &'static str)]| {
            let all = [&images[..], more].concat();
            let find =
                |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            ControlConfig::read(&find).unwrap().eviction_percent
        };
        assert_eq!((read(&[]), read(&[("PODWITNESS_EVICTION_RESERVE", "0%")])), (10, 0));
    }

    #[test]
    fn an_installation_says_what_its_sidecars_have() {
        let read = |pairs: &'static [(&'static str, &'static str)]| {
            let all = [&[("PODWITNESS_SIDECAR_IMAGE", "s")][..], pairs].concat();
            let find =
                |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            AdmitConfig::read(&find).map(|config| config.amounts)
        };
        let Amounts { cpu, memory } = read(&[]).unwrap();
        assert_eq!((cpu.request, cpu.limit, cpu.explicit), (20, None, false));
        assert_eq!((memory.request, memory.limit, memory.explicit), (32 << 20, Some(128 << 20), false));
        let Amounts { cpu, memory } = read(&[
            ("PODWITNESS_SIDECAR_CPU_REQUEST", "50m"),
            ("PODWITNESS_SIDECAR_CPU_LIMIT", "1"),
            ("PODWITNESS_SIDECAR_MEMORY_REQUEST", "200Mi"),
        ])
        .unwrap();
        assert_eq!((cpu.request, cpu.limit, cpu.explicit), (50, Some(1000), true));
        assert_eq!((memory.request, memory.limit), (200 << 20, Some(200 << 20)));
        let crossed = &[("PODWITNESS_SIDECAR_CPU_REQUEST", "2"), ("PODWITNESS_SIDECAR_CPU_LIMIT", "1")];
        assert_eq!(read(crossed).unwrap_err().0.len(), 1);
        assert_eq!(read(&[("PODWITNESS_SIDECAR_CPU_LIMIT", "none")]).unwrap().cpu.limit, None);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let strings = env(&[
            ("PODWITNESS_LISTEN", "8443"),
            ("PODWITNESS_ADMIN", "here"),
            ("PODWITNESS_HEALTH", "there"),
            ("PODWITNESS_LOG_FORMAT", "xml"),
            ("PODWITNESS_IMAGE_PULL_SECRETS", "a,,b"),
            ("PODWITNESS_SPOOL_SIZE", "1Ki"),
            ("PODWITNESS_NODE_TUN", "no"),
            ("PODWITNESS_SIDECAR_CPU_REQUEST", "much"),
            ("PODWITNESS_SIDECAR_MEMORY_LIMIT", "63Mi"),
            ("PODWITNESS_EVICTION_RESERVE", "10"),
            ("PODWITNESS_API_SERVERS", "10.0.0.0/8"),
            ("PODWITNESS_TRUST", "everyone"),
        ]);
        assert_eq!(AdmitConfig::read(&strings).unwrap_err().0.len(), 11);
        assert_eq!(ControlConfig::read(&strings).unwrap_err().0.len(), 9);
    }
}
