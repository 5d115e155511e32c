//! What the proxy counts. Labels are reasons and results, never names.

use podwitness_runtime::quota::QuotaMetrics;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Counters of one proxy.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    connections: Family<ByConnection, Counter>,
    raw_ended: Family<ByConnection, Counter>,
    requests: Family<ByRequest, Counter>,
    upgrades: Family<ByUpgrade, Counter>,
    unrecorded_ended: Family<ByUpgrade, Counter>,
    reviews: Family<ByReview, Counter>,
    oversize: Counter,
    idle_ended: Counter,
    memory: QuotaMetrics,
    /// Open connections to the API server.
    pub(crate) upstream_open: Gauge,
    upstream_opened: Family<ByOpened, Counter>,
    upstream_evicted: Counter,
    upstream_refused: Counter,
}

/// What became of an intercepted connection.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Connection {
    /// TLS was terminated.
    Terminated,
    /// Passed on raw: none of ours.
    Foreign,
    /// Closed with an alert: no ClientHello in time, although meant for the API server.
    Plain,
    /// Passed on raw: recording is suspended for the namespace.
    Bypass,
    /// Passed on raw: its user does not take our certificate, and the namespace lets interception step aside.
    Distrusted,
    /// Passed on raw: what answers there could not be found out.
    Unclear,
    /// Closed: the policy refuses what cannot be looked into.
    Refused,
    /// Closed: the client said nothing in time, or left.
    Silent,
    /// Closed: there is no memory for it.
    NoMemory,
    /// Closed: no handshake; the client may not trust the in-pod CA.
    Handshake,
}

/// What became of an ordinary request.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Request {
    /// The API server answered.
    Forwarded,
    /// Answered by the proxy, because of what it asks or how.
    Refused,
    /// The API server could not be reached or did not answer.
    Failed,
}

/// What an upgrade is for.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Purpose {
    /// A command in a container.
    Exec,
    /// The main process of a container.
    Attach,
    /// Ports of a pod.
    PortForward,
    /// A session through a node's kubelet.
    Node,
    /// Events of a watch, or a log.
    Event,
    /// Whatever a proxied service or an aggregated API speaks.
    Opaque,
    /// A path that cannot be read.
    Unknown,
}

/// What became of an upgrade.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Upgrade {
    /// Relayed and recorded.
    Recorded,
    /// Relayed; no grant asks for a recording.
    NoGrant,
    /// Relayed, although a grant asks for a recording that cannot be made.
    Unrecorded,
    /// Relayed; it is no session.
    NoSession,
    /// Refused by the policy.
    Refused,
    /// The API server did not switch protocols.
    Declined,
    /// The API server could not be reached.
    Failed,
}

/// Whence an identity came.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Review {
    /// The API server said so.
    Verified,
    /// It did not; the credential's claims were taken.
    Claimed,
}

/// What became of an attempt to connect to the API server.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Opened {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
    /// Nothing.
    Failed,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByConnection {
    outcome: Connection,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByRequest {
    outcome: Request,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByUpgrade {
    purpose: Purpose,
    outcome: Upgrade,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByReview {
    outcome: Review,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByOpened {
    outcome: Opened,
}

impl Metrics {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            connections,
            raw_ended,
            requests,
            upgrades,
            unrecorded_ended,
            reviews,
            oversize,
            idle_ended,
            memory,
            ..
        } = metrics.clone();
        let registry = registry.sub_registry_with_prefix("podwitness_proxy");
        registry.register("connections", "Intercepted connections by what became of them", connections);
        registry.register(
            "raw_connections_ended",
            "Connections passed on raw that were ended because they are no longer allowed, by why they passed",
            raw_ended,
        );
        registry.register("requests", "Ordinary requests by what became of them", requests);
        registry.register("upgrades", "Upgrades by purpose and by what became of them", upgrades);
        registry.register(
            "unrecorded_sessions_ended",
            "Sessions that passed unrecorded and were ended because they may no longer, by purpose and by why they passed",
            unrecorded_ended,
        );
        registry.register("identity_reviews", "Callers by how their identity was found", reviews);
        registry.register(
            "oversize_requests",
            "Requests refused for the length of their target or head",
            oversize,
        );
        registry.register(
            "idle_connections_ended",
            "Connections of clients that were ended after 90 s without a request",
            idle_ended,
        );
        let QuotaMetrics { used, revoked, refused_total, refused_per_key: _ } = memory;
        registry.register("memory_bytes", "Memory that connections and requests may take by now", used);
        registry.register(
            "memory_evicted",
            "Idle connections and requests that were ended for memory",
            revoked,
        );
        registry.register("memory_refused", "How often no memory was found for one", refused_total);
        metrics.register_upstream(registry);
        metrics
    }

    fn register_upstream(&self, registry: &mut Registry) {
        let Self { upstream_open, upstream_opened, upstream_evicted, upstream_refused, .. } = self.clone();
        registry.register("upstream_connections", "Open connections to the API server", upstream_open);
        registry.register("upstream_connects", "Attempts to connect to the API server", upstream_opened);
        registry.register(
            "upstream_evicted",
            "Idle connections to the API server that were ended for those of other credentials",
            upstream_evicted,
        );
        registry.register(
            "upstream_refused",
            "Requests refused because all connections to the API server were in use",
            upstream_refused,
        );
    }

    pub(crate) fn connection(&self, outcome: Connection) {
        self.connections.get_or_create(&ByConnection { outcome }).inc();
    }

    pub(crate) fn raw_ended(&self, outcome: Connection) {
        self.raw_ended.get_or_create(&ByConnection { outcome }).inc();
    }

    pub(crate) fn request(&self, outcome: Request) {
        self.requests.get_or_create(&ByRequest { outcome }).inc();
    }

    pub(crate) fn upgrade(&self, purpose: Purpose, outcome: Upgrade) {
        self.upgrades.get_or_create(&ByUpgrade { purpose, outcome }).inc();
    }

    pub(crate) fn unrecorded_ended(&self, purpose: Purpose, outcome: Upgrade) {
        self.unrecorded_ended.get_or_create(&ByUpgrade { purpose, outcome }).inc();
    }

    pub(crate) fn review(&self, outcome: Review) {
        self.reviews.get_or_create(&ByReview { outcome }).inc();
    }

    /// Of memory, of which one key has all.
    pub(crate) fn memory(&self) -> QuotaMetrics {
        let QuotaMetrics { refused_total, .. } = &self.memory;
        QuotaMetrics { refused_per_key: refused_total.clone(), ..self.memory.clone() }
    }

    pub(crate) fn oversize(&self) {
        self.oversize.inc();
    }

    pub(crate) fn idle_ended(&self) {
        self.idle_ended.inc();
    }

    pub(crate) fn upstream_evicted(&self) {
        self.upstream_evicted.inc();
    }

    pub(crate) fn upstream_refused(&self) {
        self.upstream_refused.inc();
    }

    pub(crate) fn opened(&self, outcome: Opened) {
        self.upstream_opened.get_or_create(&ByOpened { outcome }).inc();
    }
}
