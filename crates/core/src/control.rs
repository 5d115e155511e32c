//! Messages of the control API: enrolment and the netmap stream.
//!
//! `POST /v1/enrol` takes [`EnrolRequest`] and answers [`EnrolResponse`]; `GET /v1/netmap` answers NDJSON, one
//! [`Update`] a line; `POST /v1/notice` takes [`NoticeRequest`] and answers nothing; `POST /v1/certificate` takes
//! [`CertificateRequest`] and answers [`CertificateResponse`]. All want `Authorization: Bearer TOKEN` with a
//! service-account token of audience [`crate::inject::TOKEN_AUDIENCE`]; errors are a [`crate::status::Status`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::grant::{AckLevel, Grants};

/// Path of enrolment.
pub const ENROL: &str = "/v1/enrol";
/// Path of the netmap stream.
pub const NETMAP: &str = "/v1/netmap";
/// Path of notices.
pub const NOTICE: &str = "/v1/notice";
/// Path of serving certificates.
pub const CERTIFICATE: &str = "/v1/certificate";
/// Cap on a PKCS#10 request, in bytes of DER: [`ServingNames`] at its caps has room.
pub const MAX_CERTIFICATE_REQUEST: usize = 24 << 10;
/// Cap on one line of the netmap stream, in bytes; a longer one is an error of the stream.
pub const MAX_LINE: usize = 4 << 20;

/// The caller chooses nothing but its key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrolRequest {
    /// WireGuard public key, base64.
    pub public_key: String,
}

/// What a pod learns when it enrols.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolResponse {
    /// Address in the tunnel, derived from the key.
    pub address: Ipv6Addr,
    /// Signed statement of who the pod is ([`crate::assertion::Claims`]).
    pub assertion: String,
    /// Generation of the netmap at this moment.
    pub generation: u64,
}

/// A sidecar asks for a certificate of the cluster's CA, for the names in its netmap ([`Netmap::serving`]).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRequest {
    /// PKCS#10 (RFC 2986) in DER, base64: subject `O=system:nodes, CN=` [`serving_common_name`], an ECDSA key on P-256,
    /// and exactly the subject alternative names of the netmap.
    pub request: String,
}

/// The certificate that was asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateResponse {
    /// PEM, the certificate first.
    pub chain: String,
    /// Unix seconds from which it is valid.
    pub not_before: i64,
    /// Unix seconds until which it is valid.
    pub not_after: i64,
}

/// Names and addresses of the API server's own certificates, each of them once and in order.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServingNames {
    /// DNS names in lower case; the first label may be `*`.
    pub names: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
}

impl ServingNames {
    /// Cap on names, and on addresses; a certificate is sent with every handshake.
    pub const MAX: usize = 64;

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.addresses.is_empty()
    }
}

/// Organisation in the subject of certificates by the signer `kubernetes.io/kubelet-serving`.
pub const SERVING_ORGANIZATION: &str = "system:nodes";
/// How the common name of every certificate begins that a sidecar serves.
pub const SERVING_PREFIX: &str = "system:node:podwitness-";

/// Common name in the subject of a pod's certificate. With a uid it has 59 characters; X.520 allows 64.
#[must_use]
pub fn serving_common_name(pod_uid: &str) -> String {
    format!("{SERVING_PREFIX}{pod_uid}")
}

/// A sidecar tells what people should know of its pod, a replica of a recorder what it takes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NoticeRequest {
    /// What it is.
    pub notice: Notice,
}

/// What becomes an Event on the pod. Its words are the control plane's: a pod says only which.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// A client does not trust the in-pod CA, and does not get through.
    CertificateRefused,
    /// A client does not trust the in-pod CA: what its user sends passes unrecorded for a while.
    SteppedAside,
    /// A session passes unrecorded, because no grant asks for a recording.
    NoGrant,
    /// Connections pass unrecorded, because the namespace has recording suspended.
    Bypassed,
    /// Lines that waited for a recorder were changed or removed in the spool.
    SpoolTampered,
    /// A recording has used up its share of the spool, and output is left out of it.
    SpoolShareFull,
    /// So many recordings are open or wait for a recorder that a session passes unrecorded, or is refused.
    TooManyRecordings,
    /// Clients have so many connections that idle ones are ended for new ones, or new ones and requests are refused.
    ConnectionsExhausted,
    /// Requests are refused because all connections to the API server are in use, or all of one credential.
    UpstreamExhausted,
    /// API events found no room and are lost.
    EventsDropped,
    /// Files of a service-account volume cannot be brought up to date; they are tried again.
    CredentialsOutdated,
    /// Connections pass unrecorded to a server of which it could not be found out whether it is the API server.
    UnknownServer(SocketAddr),
    /// Requests or sessions are refused, because a grant asks for a recording and none can be made.
    RecordingRefused,
    /// A client offers a client certificate, which cannot be relayed, and is refused.
    ClientCertificate,
    /// What a replica of a recorder takes: said when it connects, when it changes, and now and then.
    Recorder(Taking),
}

/// What a replica of a recorder takes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Taking {
    /// Everything.
    Accepting,
    /// Everything, but something is wrong: space runs short, or its bucket fails.
    Degraded,
    /// Everything but what is of pods or namespaces that have more than their share of its volume.
    Limiting,
    /// Nothing new: its volume is nearly full.
    Refusing,
}

impl Taking {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accepting, Self::Degraded, Self::Limiting, Self::Refusing];

    /// The word for it, in a status, in logs and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepting => "accepting",
            Self::Degraded => "degraded",
            Self::Limiting => "limiting",
            Self::Refusing => "refusing",
        }
    }
}

/// One line of the netmap stream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Update {
    /// A full snapshot; replaces every earlier one.
    Netmap(Box<Netmap>),
    /// A renewed assertion.
    Assertion(String),
    /// Nothing new; sent so that a dead connection is noticed.
    Alive {},
}

/// What a sidecar or a recorder needs to know; never shrinks by accident.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Netmap {
    /// Grows with every change within one run of the control plane.
    pub generation: u64,
    /// Id of the cluster: uid of its `kube-system` namespace.
    pub cluster: String,
    /// Recorders that any grant in here names.
    pub recorders: Vec<RecorderPeer>,
    /// Grants whose `dst` fits the pod.
    pub grants: Grants,
    /// Where the API server is reached: its Service and endpoints first, then everything else that leads there.
    pub api_servers: Vec<SocketAddr>,
    /// TCP ports on which API servers themselves listen. Where it is empty, the ports of `api_servers` are meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secure_ports: Vec<u16>,
    /// Keys under which assertions are valid.
    pub issuers: Vec<Issuer>,
    /// PEM roots under which the control API's certificate may stand.
    pub roots: Vec<String>,
    /// Break-glass: Unix seconds until which connections are spliced raw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bypass_until: Option<i64>,
    /// Zone of the pod's node, where the topology is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// For which names the sidecar may have a certificate of the cluster's CA; absent where it may have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<ServingNames>,
}

/// One replica of a recorder.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecorderPeer {
    /// Name of the `Recorder` object.
    pub name: String,
    /// Name of the replica, such as the pod's.
    pub replica: String,
    /// Tags with prefix, such as `tag:podwitness`.
    pub tags: Vec<String>,
    /// WireGuard public key, base64; empty where it is reached outside our tunnel.
    pub public_key: String,
    /// Address in the tunnel.
    pub address: Ipv6Addr,
    /// TCP port of recordings on that address.
    pub port: u16,
    /// UDP address of its WireGuard end.
    pub endpoint: SocketAddr,
    /// What its acknowledgements survive, if it announces that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckLevel>,
    /// TCP address at which it is reached outside our tunnel, by the word of its `Recorder`. Whoever does not know this
    /// field finds a peer without a key, and leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<SocketAddr>,
    /// Zone of its node, where the topology is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl RecorderPeer {
    /// A recorder that is reached outside our tunnel.
    #[must_use]
    pub fn in_plaintext(name: String, tags: Vec<String>, at: SocketAddr) -> Self {
        Self {
            replica: name.clone(),
            name,
            tags,
            public_key: String::new(),
            address: Ipv6Addr::UNSPECIFIED,
            port: at.port(),
            endpoint: at,
            ack: None,
            plaintext: Some(at),
            zone: None,
        }
    }

    /// Where recordings are sent: into the tunnel, unless it is reached outside.
    #[must_use]
    pub fn recordings_at(&self) -> SocketAddr {
        self.plaintext.unwrap_or_else(|| SocketAddr::from((self.address, self.port)))
    }
}

/// A key that signs assertions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// Key id, the JWT's `kid`.
    pub id: String,
    /// Cluster for which it may speak.
    pub cluster: String,
    /// Ed25519 public key, base64 of 32 bytes.
    pub public_key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_that_says_more_than_its_key_is_refused() {
        let text = r#"{"publicKey":"k","tags":["tag:admin"]}"#;
        assert!(serde_json::from_str::<EnrolRequest>(text).is_err());
    }

    #[test]
    fn a_notice_is_one_of_a_few_words() {
        let said: NoticeRequest = serde_json::from_str(r#"{"notice":"stepped-aside"}"#).unwrap();
        assert_eq!(said.notice, Notice::SteppedAside);
        assert!(serde_json::from_str::<NoticeRequest>(r#"{"notice":"all is well"}"#).is_err());
        let of_server = NoticeRequest { notice: Notice::UnknownServer(([192, 0, 2, 7], 6443).into()) };
        let text = serde_json::to_string(&of_server).unwrap();
        assert_eq!(text, r#"{"notice":{"unknown-server":"192.0.2.7:6443"}}"#);
        let of_recorder = NoticeRequest { notice: Notice::Recorder(Taking::Degraded) };
        let text = serde_json::to_string(&of_recorder).unwrap();
        assert_eq!(text, r#"{"notice":{"recorder":"degraded"}}"#);
        assert_eq!(serde_json::from_str::<NoticeRequest>(&text).unwrap(), of_recorder);
    }

    #[test]
    fn lines_of_the_stream_are_told_apart_by_their_key() {
        let line = serde_json::to_string(&Update::Alive {}).unwrap();
        assert_eq!(line, r#"{"alive":{}}"#);
        let back: Update = serde_json::from_str(r#"{"netmap":{"generation":7,"later":true}}"#).unwrap();
        assert!(matches!(back, Update::Netmap(map) if map.generation == 7));
    }

    #[test]
    fn who_does_not_know_of_certificates_finds_a_netmap_as_before() {
        let text = serde_json::to_string(&Netmap::default()).unwrap();
        assert!(!text.contains("serving"), "{text}");
        let names = ServingNames { names: vec!["kubernetes".into()], addresses: vec![[10, 96, 0, 1].into()] };
        let netmap = Netmap { serving: Some(names), ..Netmap::default() };
        let text = serde_json::to_string(&netmap).unwrap();
        assert!(text.contains(r#""serving":{"names":["kubernetes"],"addresses":["10.96.0.1"]}"#), "{text}");
        assert_eq!(serde_json::from_str::<Netmap>(&text).unwrap(), netmap);
    }

    #[test]
    fn a_common_name_has_room_in_a_certificate() {
        let name = serving_common_name("01234567-89ab-cdef-0123-456789abcdef");
        assert!(name.starts_with("system:node:podwitness-") && name.len() <= 64, "{name}");
    }

    #[test]
    fn a_recorder_is_reached_in_the_tunnel_unless_it_says_where_else() {
        let text = r#"{"name":"r","replica":"r-0","tags":[],"publicKey":"k","address":"fd70::1","port":80,
            "endpoint":"10.0.0.9:51820"}"#;
        let before: RecorderPeer = serde_json::from_str(text).unwrap();
        assert_eq!((before.recordings_at(), &before.zone), ("[fd70::1]:80".parse().unwrap(), &None));
        let at = "192.0.2.7:80".parse().unwrap();
        let plain = RecorderPeer::in_plaintext("old".into(), vec![], at);
        let back: RecorderPeer = serde_json::from_str(&serde_json::to_string(&plain).unwrap()).unwrap();
        assert_eq!((back.recordings_at(), back), (at, plain));
    }
}
