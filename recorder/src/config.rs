//! Settings of both roles, from the environment; a flag of the command line stands above its variable.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use podwitness_core::{
    grant::AckLevel,
    inject::{CONTROL_PORT, ControlAddress, MOUNT_IDENTITY, TUNNEL_PORT},
};
use podwitness_runtime::config::{Mistake, Mistakes, Reader, Strings, parse};

use crate::store::SpaceLimits;

pub mod s3;

use s3::S3Config;

/// Variable of `--listen-plain`.
pub const LISTEN_PLAIN: &str = "PODWITNESS_LISTEN_PLAIN";
/// Variable of `--issuers`.
pub const ISSUERS: &str = "PODWITNESS_ISSUERS";
/// Variable of `--join`.
pub const JOIN: &str = "PODWITNESS_JOIN";

/// What `--help` says about the environment.
pub const HELP: &str = "\
Settings come from the environment:
  PODWITNESS_STORE               directory of recordings [/data/recordings]
  PODWITNESS_LOG                 log filter [info]
  PODWITNESS_LOG_FORMAT          text or json [text]
  PODWITNESS_DRAIN               how long uploads may go on at shutdown [25s]
  PODWITNESS_S3_BUCKET           bucket that recordings are shipped to and shown from; without it there is none
  PODWITNESS_S3_ENDPOINT         host or URL of the endpoint, if it is not that of AWS
  PODWITNESS_S3_REGION           region [us-east-1]
  PODWITNESS_S3_PREFIX           what keys begin with
  PODWITNESS_S3_PATH_STYLE       name the bucket in the path, not in the host [true with an endpoint]
  PODWITNESS_S3_CA_FILE          PEM roots of the endpoint
  PODWITNESS_S3_SSE              encryption by the endpoint: AES256 or aws:kms
  PODWITNESS_S3_SSE_KMS_KEY      id of the key
  PODWITNESS_S3_CREDENTIALS_DIR  directory with files AWS_ACCESS_KEY_ID and so on, read again; without it those
                                 variables, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN
  PODWITNESS_S3_KEEP_LOCAL       how long files stay on the volume once they are in the bucket [24h]
ingest:
  PODWITNESS_ADMIN               address of health and metrics [[::]:8080]
  PODWITNESS_HEALTH              address of health for a kubelet's probes, if there is one
  PODWITNESS_CONTROL             NAME[:PORT][=IP,...] of the control API, of a replica in a cluster, or
  PODWITNESS_JOIN                join file, of a recorder outside; without either there is no tunnel
  PODWITNESS_ENDPOINT            HOST:PORT at which pods reach a recorder outside, for the printed manifest
  PODWITNESS_CONTROL_CA          PEM root of the control API, or
  PODWITNESS_CONTROL_CA_FILE     a file that holds it
  PODWITNESS_TOKEN               file of the token to enrol with [/var/run/podwitness/identity/token]
  PODWITNESS_STATE               private directory that keeps the tunnel's key over a restart; required to join
  PODWITNESS_ISSUERS             file that names further issuers of assertions, beside PODWITNESS_CONTROL
  PODWITNESS_TUNNEL_PORT         UDP port of WireGuard [51820]
  PODWITNESS_LISTEN_PLAIN        address of a listener for clients that bring their own tunnel
  PODWITNESS_ACK                 what an acknowledgement survives: process, volume, or object with a bucket [process]
  PODWITNESS_UPLOAD_LIMIT        cap on one upload [16Gi]
  PODWITNESS_FREE_SPACE          what stays free on the volume [128Mi]
  PODWITNESS_SIZE_LIMIT          what the volume may hold, where the file system does not say: an emptyDir's sizeLimit
  PODWITNESS_EVICTION_RESERVE    percentage of the file system that stays free besides, because kubelets evict pods
                                 below it [0%]
  PODWITNESS_SHARES              whether a pod or namespace that has most of the volume is refused before others [true]
view:
  PODWITNESS_LISTEN              address of the viewer, on loopback [127.0.0.1:8081]";

/// What both roles need.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Common {
    /// Directory of recordings.
    pub store: PathBuf,
    /// Log filter.
    pub log: String,
    /// Log as JSON.
    pub json: bool,
    /// How long uploads may go on at shutdown.
    pub drain: Duration,
    /// The bucket, where there is one.
    pub s3: Option<S3Config>,
}

/// Settings of `ingest`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IngestConfig {
    /// What both roles need.
    pub common: Common,
    /// Address of health and metrics.
    pub admin: SocketAddr,
    /// Address of health for probes.
    pub health: Option<SocketAddr>,
    /// How to come to a tunnel, if there is to be one.
    pub tunnel: Option<TunnelConfig>,
    /// File that names further issuers.
    pub issuers: Option<PathBuf>,
    /// Address of the plain listener.
    pub plain: Option<SocketAddr>,
    /// What an acknowledgement survives.
    pub ack: AckLevel,
    /// Cap on one upload.
    pub upload_bytes: u64,
    /// What bounds the volume.
    pub space: SpaceLimits,
}

/// How ingest comes to a tunnel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TunnelConfig {
    /// How it becomes known to those who send.
    pub way: Way,
    /// Where the key is kept.
    pub state: Option<PathBuf>,
    /// UDP port.
    pub port: u16,
}

/// How a recorder becomes known to pods, and pods to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Way {
    /// A replica in a cluster enrols.
    Enrol(Enrolment),
    /// A recorder outside is named by an admin, and has a join file.
    Join(Joining),
}

/// How a replica enrols.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolment {
    /// The control API.
    pub control: ControlAddress,
    /// Its root.
    pub root: Root,
    /// File of the token.
    pub token: PathBuf,
}

/// How a recorder outside joins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Joining {
    /// The join file.
    pub file: PathBuf,
    /// HOST:PORT at which pods reach it, if somebody has said.
    pub endpoint: Option<String>,
}

/// Where the root of the control API comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// The root itself.
    Pem(String),
    /// A file that holds it.
    File(PathBuf),
}

/// Settings of `view`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ViewConfig {
    /// What both roles need.
    pub common: Common,
    /// Address of the viewer.
    pub listen: SocketAddr,
}

impl IngestConfig {
    /// Reads the settings.
    ///
    /// # Errors
    /// Every setting that is missing or wrong.
    pub fn read(strings: &dyn Strings) -> Result<Self, Mistakes> {
        let mut read = Reader::new(strings);
        let common = Common::read(&mut read);
        let admin =
            read.or("PODWITNESS_ADMIN", ADDRESS, (Ipv6Addr::UNSPECIFIED, 8080).into(), parse::from_str);
        let health = read.optional("PODWITNESS_HEALTH", ADDRESS, parse::from_str);
        let plain = read.optional(LISTEN_PLAIN, ADDRESS, parse::from_str);
        let tunnel = TunnelConfig::read(&mut read, plain.flatten().is_none());
        let issuers = read.optional(ISSUERS, "a file", path);
        let ack = read.or(ACK, LEVELS, AckLevel::Process, ack_level);
        let upload_bytes = read.or("PODWITNESS_UPLOAD_LIMIT", SIZE, 16 << 30, parse::bytes);
        let space = space(&mut read);
        let complete = (|| {
            Some(Self {
                common: common?,
                admin: admin?,
                health: health?,
                tunnel: tunnel?,
                issuers: issuers?,
                plain: plain?,
                ack: ack?,
                upload_bytes: upload_bytes?,
                space: space?,
            })
        })();
        let config: Self = read.finish(complete)?;
        if config.ack == AckLevel::Object && config.common.s3.is_none() {
            return Err(Mistakes(vec![Mistake::Invalid { name: ACK, expected: LEVELS }]));
        }
        Ok(config)
    }
}

impl TunnelConfig {
    /// The inner option is absent where there is to be no tunnel, which is a mistake if it is `needed`.
    fn read(read: &mut Reader<'_>, needed: bool) -> Option<Option<Self>> {
        let join = read.optional(JOIN, "a file", path)?;
        let way = match join {
            Some(file) => Some(Way::Join(Joining::read(read, file)?)),
            None => Enrolment::read(read, needed)?.map(Way::Enrol),
        };
        let Some(way) = way else { return Some(None) };
        // What an admin has named has to keep its key.
        let state = match way {
            Way::Join(_) => read.required(STATE, "a directory that stays", path).map(Some),
            Way::Enrol(_) => read.optional(STATE, "a directory", path),
        }?;
        let port = read.or("PODWITNESS_TUNNEL_PORT", "a UDP port", TUNNEL_PORT, parse::from_str);
        Some(Some(Self { way, state, port: port? }))
    }
}

impl Enrolment {
    fn read(read: &mut Reader<'_>, needed: bool) -> Option<Option<Self>> {
        let control = if needed {
            read.required(CONTROL, "NAME[:PORT][=IP,...], or else PODWITNESS_JOIN a file", control).map(Some)
        } else {
            read.optional(CONTROL, AUTHORITY, control)
        }?;
        let Some(control) = control else { return Some(None) };
        let pem = read.optional("PODWITNESS_CONTROL_CA", "a PEM certificate", parse::text)?;
        let root = match pem {
            Some(pem) => Some(Root::Pem(pem)),
            None => read.required("PODWITNESS_CONTROL_CA_FILE", "a file", path).map(Root::File),
        };
        let token = read.or("PODWITNESS_TOKEN", "a file", PathBuf::from(MOUNT_IDENTITY).join("token"), path);
        Some(Some(Self { control, root: root?, token: token? }))
    }
}

impl Joining {
    fn read(read: &mut Reader<'_>, file: PathBuf) -> Option<Self> {
        // Each says whom to believe; two words would have to be compared.
        for beside in [CONTROL, ISSUERS] {
            read.optional(beside, "absent where PODWITNESS_JOIN is set", |_| None::<()>)?;
        }
        let endpoint = read.optional("PODWITNESS_ENDPOINT", "HOST:PORT", authority)?;
        Some(Self { file, endpoint })
    }
}

impl ViewConfig {
    /// Reads the settings.
    ///
    /// # Errors
    /// Every setting that is missing or wrong.
    pub fn read(strings: &dyn Strings) -> Result<Self, Mistakes> {
        let mut read = Reader::new(strings);
        let common = Common::read(&mut read);
        let default = ([127, 0, 0, 1], 8081).into();
        let listen = read.or("PODWITNESS_LISTEN", "a loopback address with port", default, loopback);
        let complete = common.zip(listen).map(|(common, listen)| Self { common, listen });
        read.finish(complete)
    }
}

impl Common {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let store = read.or("PODWITNESS_STORE", "a directory", "/data/recordings".into(), path);
        let log = read.or("PODWITNESS_LOG", "a log filter", "info".to_owned(), parse::text);
        let json = read.or("PODWITNESS_LOG_FORMAT", "text or json", false, |text| match text {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        });
        let drain = Duration::from_secs(25);
        let drain = read.or("PODWITNESS_DRAIN", "a time such as 25s", drain, parse::duration);
        let s3 = S3Config::read(read);
        Some(Self { store: store?, log: log?, json: json?, drain: drain?, s3: s3? })
    }
}

fn space(read: &mut Reader<'_>) -> Option<SpaceLimits> {
    let floor = read.or("PODWITNESS_FREE_SPACE", SIZE, 128 << 20, parse::bytes);
    let size_limit = read.optional("PODWITNESS_SIZE_LIMIT", SIZE, parse::bytes);
    let reserve = read.or("PODWITNESS_EVICTION_RESERVE", "a percentage such as 10%", 0, parse::percent);
    let shares = read.or("PODWITNESS_SHARES", "true or false", true, parse::flag);
    Some(SpaceLimits { floor: floor?, size_limit: size_limit?, eviction_percent: reserve?, shares: shares? })
}

const ACK: &str = "PODWITNESS_ACK";
const LEVELS: &str = "process, volume, or object with a bucket";
const ADDRESS: &str = "an address with port, such as [::]:8080";
const AUTHORITY: &str = "NAME[:PORT][=IP,...]";
const CONTROL: &str = "PODWITNESS_CONTROL";
const STATE: &str = "PODWITNESS_STATE";
const SIZE: &str = "a size such as 128Mi";

fn path(text: &str) -> Option<PathBuf> {
    Some(text.into())
}

/// Nobody but `kubectl port-forward` and the pod itself may reach the viewer.
fn loopback(text: &str) -> Option<SocketAddr> {
    text.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback())
}

fn ack_level(text: &str) -> Option<AckLevel> {
    match text {
        "object" => Some(AckLevel::Object),
        "process" => Some(AckLevel::Process),
        "volume" => Some(AckLevel::Volume),
        _ => None,
    }
}

/// A host or address with a port; what is in it goes into YAML between quotes.
fn authority(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let fits = !host.is_empty() && host.chars().all(named) && port.parse::<u16>().is_ok();
    fits.then(|| text.to_owned())
}

/// The form of a sidecar's variable, in which port and addresses may be left out where there is a DNS.
fn control(text: &str) -> Option<ControlAddress> {
    let (authority, addresses) = text.split_once('=').unwrap_or((text, ""));
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (authority, CONTROL_PORT),
    };
    let addresses = addresses.split(',').filter(|address| !address.is_empty());
    let addresses = addresses.map(|address| address.parse().ok()).collect::<Option<Vec<IpAddr>>>()?;
    (!name.is_empty()).then(|| ControlAddress { name: name.to_owned(), port, addresses })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn env(pairs: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> + use<> {
        let pairs: HashMap<_, _> = pairs.iter().copied().collect();
        move |name| pairs.get(name).map(|value| (*value).to_owned())
    }

    #[test]
    fn in_a_cluster_little_has_to_be_said() {
        let config = IngestConfig::read(&env(&[
            ("PODWITNESS_CONTROL", "podwitness-control.podwitness-system.svc"),
            ("PODWITNESS_CONTROL_CA_FILE", "/ca/ca.crt"),
        ]))
        .unwrap();
        let tunnel = config.tunnel.unwrap();
        let Way::Enrol(enrolment) = tunnel.way else { panic!("it enrols") };
        assert_eq!(
            (enrolment.control.port, tunnel.port, enrolment.control.addresses.len()),
            (8444, 51820, 0)
        );
        assert_eq!((config.plain, config.ack), (None, AckLevel::Process));
        assert_eq!(config.common.store, PathBuf::from("/data/recordings"));
    }

    #[test]
    fn a_recorder_needs_a_way_in() {
        assert_eq!(IngestConfig::read(&env(&[])).unwrap_err().0.len(), 1);
        let plain = IngestConfig::read(&env(&[(LISTEN_PLAIN, "127.0.0.1:80")])).unwrap();
        assert_eq!((plain.tunnel, plain.plain.unwrap().port()), (None, 80));
    }

    #[test]
    fn outside_a_cluster_a_file_and_a_place_for_the_key_are_enough() {
        let joined = |pairs: &[(&'static str, &'static str)]| {
            let all = [&[(JOIN, "/etc/podwitness/join.json"), (STATE, "/state")], pairs].concat();
            IngestConfig::read(&env(&all))
        };
        let tunnel = joined(&[("PODWITNESS_ENDPOINT", "vault.example:4500")]).unwrap().tunnel.unwrap();
        let file = "/etc/podwitness/join.json".into();
        let expected = Joining { file, endpoint: Some("vault.example:4500".into()) };
        assert_eq!((tunnel.way, tunnel.state), (Way::Join(expected), Some("/state".into())));
        assert!(IngestConfig::read(&env(&[(JOIN, "/j")])).is_err(), "without a place for the key");
        assert!(joined(&[(CONTROL, "control.example")]).is_err());
        assert!(joined(&[(ISSUERS, "/issuers")]).is_err());
        for endpoint in ["vault.example", "vault\": x:1", ":1", "vault:70000"] {
            assert!(joined(&[("PODWITNESS_ENDPOINT", endpoint)]).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mistakes = IngestConfig::read(&env(&[
            ("PODWITNESS_CONTROL", "c=not-an-ip"),
            ("PODWITNESS_ACK", "tape"),
            ("PODWITNESS_FREE_SPACE", "much"),
            ("PODWITNESS_DRAIN", "25"),
        ]));
        assert_eq!(mistakes.unwrap_err().0.len(), 4);
    }

    #[test]
    fn a_volume_is_bounded_by_what_is_said_of_it() {
        let space = |pairs: &[(&'static str, &'static str)]| {
            let all = [&[(LISTEN_PLAIN, "127.0.0.1:80")], pairs].concat();
            IngestConfig::read(&env(&all)).map(|config| config.space)
        };
        assert_eq!(space(&[]).unwrap(), SpaceLimits::floor(128 << 20));
        let said = [
            ("PODWITNESS_FREE_SPACE", "1Mi"),
            ("PODWITNESS_SIZE_LIMIT", "33554432"),
            ("PODWITNESS_EVICTION_RESERVE", "15%"),
            ("PODWITNESS_SHARES", "false"),
        ];
        let expected =
            SpaceLimits { floor: 1 << 20, size_limit: Some(32 << 20), eviction_percent: 15, shares: false };
        assert_eq!(space(&said).unwrap(), expected);
        for wrong in ["10", "100%", "-1%", "10 %", "1Gi"] {
            assert!(space(&[("PODWITNESS_EVICTION_RESERVE", wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_acknowledged_as_in_a_bucket_only_where_there_is_one() {
        let without = [(LISTEN_PLAIN, "127.0.0.1:80"), (ACK, "object")];
        assert_eq!(IngestConfig::read(&env(&without)).unwrap_err().0.len(), 1);
        let bucket = [("PODWITNESS_S3_BUCKET", "audit"), ("PODWITNESS_S3_CREDENTIALS_DIR", "/c")];
        let with = IngestConfig::read(&env(&[&without[..], &bucket].concat())).unwrap();
        assert_eq!(with.ack, AckLevel::Object);
    }

    #[test]
    fn the_control_api_is_named_as_in_a_sidecar() {
        let address = control("c.ns.svc:1=10.0.0.1,fd00::1").unwrap();
        assert_eq!((address.name.as_str(), address.port, address.addresses.len()), ("c.ns.svc", 1, 2));
        for wrong in ["", ":1", "c:port", "c:1=x", "c:70000"] {
            assert_eq!(control(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_viewer_stays_on_loopback() {
        assert!(ViewConfig::read(&env(&[("PODWITNESS_LISTEN", "[::1]:8081")])).is_ok());
        assert!(ViewConfig::read(&env(&[("PODWITNESS_LISTEN", "0.0.0.0:8081")])).is_err());
    }
}
