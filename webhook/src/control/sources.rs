//! From objects of the cluster to a [`World`](super::world::World): pure, so that it is tested on objects as the API server gives them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::{ResourceExt as _, core::PartialObjectMeta};
use podwitness_core::{
    address,
    allow::Allow,
    control::RecorderPeer,
    inject::{Inject, RECORD_PORT, TUNNEL_PORT},
    labels,
    trust::Trust,
};
use podwitness_crd::{Grant, Recorder, bypass_until};

use super::{
    external::{self, Endpoints},
    pod::Pod,
    registry::Registry,
    world::NamespaceFacts,
};

/// Label of a node that says its zone (well-known labels of Kubernetes).
const ZONE: &str = "topology.kubernetes.io/zone";

/// Namespaces of which anything has to be known: those with a grant tag, a break-glass time or a choice of
/// whose certificates are served.
#[must_use]
pub fn namespaces(objects: &[Arc<PartialObjectMeta<Namespace>>]) -> BTreeMap<String, NamespaceFacts> {
    let facts = objects.iter().map(|object| (object.name_any(), facts(object)));
    facts.filter(|(_, facts)| *facts != NamespaceFacts::default()).collect()
}

fn facts(namespace: &PartialObjectMeta<Namespace>) -> NamespaceFacts {
    let tags = namespace.labels().keys().filter_map(|key| key.strip_prefix(labels::TAG_PREFIX));
    let until = namespace.annotations().get(labels::BYPASS_UNTIL);
    NamespaceFacts {
        tags: tags.map(ToOwned::to_owned).collect(),
        bypass_until: until.and_then(|text| bypass_until(text)),
        trust: namespace.annotations().get(labels::TRUST).and_then(|text| Trust::parse(text)),
    }
}

/// How many namespaces require recording and accept of their pods what Pod Security baseline does not.
#[must_use]
pub fn widened(objects: &[Arc<PartialObjectMeta<Namespace>>]) -> i64 {
    let widens = |namespace: &&Arc<PartialObjectMeta<Namespace>>| {
        let label = namespace.labels().get(labels::INJECT).map(String::as_str);
        let items = namespace.annotations().get(labels::ALLOW).map_or("", String::as_str);
        label == Some(Inject::Required.as_str()) && !Allow::parse(items).0.items().is_empty()
    };
    i64::try_from(objects.iter().filter(widens).count()).unwrap_or(i64::MAX)
}

/// Grants by name.
#[must_use]
pub fn grants(objects: &[Arc<Grant>]) -> Vec<podwitness_core::grant::Grant> {
    let mut grants: Vec<_> = objects.iter().map(|grant| grant.named()).collect();
    grants.sort_by(|a, b| a.name.cmp(&b.name));
    grants
}

/// Zones by name of their nodes, of the nodes that say one.
#[must_use]
pub fn zones(nodes: &[Arc<Node>]) -> BTreeMap<String, String> {
    let zoned = nodes.iter().filter_map(|node| Some((node.name_any(), node.labels().get(ZONE)?.clone())));
    zoned.filter(|(_, zone)| !zone.is_empty()).collect()
}

/// What can take recordings now: replicas that have enrolled and whose pods serve, and recorders outside the cluster.
#[must_use]
pub fn peers(
    recorders: &[Arc<Recorder>],
    registry: &Registry,
    pods: &[Arc<Pod>],
    endpoints: &Endpoints,
    zones: &BTreeMap<String, String>,
) -> Vec<RecorderPeer> {
    let mut peers: Vec<RecorderPeer> = Vec::new();
    for recorder in recorders {
        if let Some(outside) = external::peer(recorder, endpoints) {
            // Why one is none stands in its status.
            peers.extend(outside.ok());
            continue;
        }
        let name = recorder.name_any();
        for (uid, key) in registry.replicas(&name) {
            let pod = pods.iter().find(|pod| pod.uid() == uid && pod.serves());
            peers.extend(pod.and_then(|pod| peer(&name, &recorder.spec.tags, key, pod, zones)));
        }
    }
    peers.sort_by(|a, b| (&a.name, &a.replica).cmp(&(&b.name, &b.replica)));
    peers
}

fn peer(
    name: &str,
    tags: &[String],
    key: &str,
    pod: &Pod,
    zones: &BTreeMap<String, String>,
) -> Option<RecorderPeer> {
    Some(RecorderPeer {
        name: name.to_owned(),
        replica: pod.name().to_owned(),
        tags: tags.to_vec(),
        public_key: key.to_owned(),
        address: address::of_key(&address::parse_key(key).ok()?),
        port: RECORD_PORT,
        endpoint: endpoint(pod)?,
        ack: Some(pod.ack_level()),
        plaintext: None,
        zone: zones.get(&pod.spec.node_name).cloned(),
    })
}

/// UDP address of a replica's WireGuard end.
#[must_use]
pub fn endpoint(pod: &Pod) -> Option<SocketAddr> {
    let ip = pod.status.pod_ip.as_deref()?.parse().ok()?;
    Some(SocketAddr::new(ip, TUNNEL_PORT))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::{
            pod::testing::{pod, replica},
            registry::Request,
        },
        *,
    };

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    fn enrolled() -> Registry {
        let mut registry = Registry::default();
        let sandbox = pod(replica()).sandbox();
        let request =
            Request { uid: "uid-rec", key: KEY, recorder: Some("podwitness"), sandbox, proof: None };
        registry.claim(request).unwrap();
        registry
    }

    fn recorder(name: &str) -> Arc<Recorder> {
        object(
            json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "metadata": {"name": name}, "spec": {}}),
        )
    }

    #[tokio::test]
    async fn a_replica_is_published_while_its_pod_serves() {
        let zones = zones(&[
            object(json!({"metadata": {"name": "n2", "labels": {"topology.kubernetes.io/zone": "z2"}}})),
            object(json!({"metadata": {"name": "n1"}})),
        ]);
        assert_eq!(zones, [("n2".to_owned(), "z2".to_owned())].into());
        let all = |name: &str, pod_json: Value| {
            let pods = [Arc::new(pod(pod_json))];
            peers(&[recorder(name)], &enrolled(), &pods, &Endpoints::default(), &zones)
        };
        let peers_of = |pod_json: Value| all("podwitness", pod_json);
        let found = peers_of(replica());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].endpoint, "10.0.1.9:51820".parse().unwrap());
        assert_eq!(found[0].zone.as_deref(), Some("z2"));
        assert_eq!((found[0].tags[0].as_str(), found[0].public_key.as_str()), ("tag:podwitness", KEY));
        assert_eq!(
            found[0].address,
            "fd70:6f64:7769:66e0:3ef6:9449:47a8:bb44".parse::<std::net::Ipv6Addr>().unwrap()
        );
        let mut unready = replica();
        unready["status"]["conditions"][0]["status"] = json!("False");
        assert!(peers_of(unready).is_empty());
        let mut reborn = replica();
        reborn["metadata"]["uid"] = json!("uid-next");
        assert!(peers_of(reborn).is_empty());
        assert!(all("other", replica()).is_empty());
    }

    #[tokio::test]
    async fn a_replica_that_is_about_to_go_is_published_no_more() {
        let mut going = replica();
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let pods = [Arc::new(pod(going))];
        let zones = BTreeMap::new();
        assert!(
            peers(&[recorder("podwitness")], &enrolled(), &pods, &Endpoints::default(), &zones).is_empty()
        );
    }

    #[tokio::test]
    async fn a_recorder_outside_the_cluster_is_published_without_any_pod() {
        let outside = object(json!({"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder",
            "metadata": {"name": "podwitness"},
            "spec": {"external": {"publicKey": KEY, "endpoint": "203.0.113.9:51820"}}}));
        let pods = [Arc::new(pod(replica()))];
        let found = peers(&[outside], &enrolled(), &pods, &Endpoints::default(), &BTreeMap::new());
        let endpoints: Vec<String> = found.iter().map(|peer| peer.endpoint.to_string()).collect();
        assert_eq!(endpoints, ["203.0.113.9:51820"]);
    }

    #[test]
    fn namespaces_are_known_by_their_tags_their_break_glass_time_and_their_choice_of_certificates() {
        let named = |name: &str, labels: Value, annotations: Value| {
            object(json!({"metadata": {"name": name, "labels": labels, "annotations": annotations}}))
        };
        let found = namespaces(&[
            named("shop", json!({"tag.podwitness.dev/prod": "", "app": "x"}), json!({})),
            named("blog", json!({}), json!({"podwitness.dev/bypass-until": "2027-01-15T08:00:00Z"})),
            named(
                "odd",
                json!({}),
                json!({"podwitness.dev/bypass-until": "tomorrow", "podwitness.dev/trust": "x"}),
            ),
            named("bank", json!({}), json!({"podwitness.dev/trust": "cluster"})),
            named("plain", json!({}), json!({})),
        ]);
        let none = NamespaceFacts::default;
        let expected = [
            ("bank".to_owned(), NamespaceFacts { trust: Some(Trust::Cluster), ..none() }),
            ("blog".to_owned(), NamespaceFacts { bypass_until: Some(1_800_000_000), ..none() }),
            ("shop".to_owned(), NamespaceFacts { tags: vec!["prod".into()], ..none() }),
        ];
        assert_eq!(found, expected.into());
    }

    #[test]
    fn namespaces_that_accept_more_are_counted_where_it_counts() {
        let named = |inject: &str, items: &str| {
            object(json!({"metadata": {"name": "n", "labels": {"podwitness.dev/inject": inject},
                "annotations": {"podwitness.dev/allow": items}}}))
        };
        let found = widened(&[
            named("required", "capability:SYS_TIME"),
            named("required", "what"),
            named("required", ""),
            named("optional", "capability:SYS_TIME"),
            object(json!({"metadata": {"name": "plain"}})),
        ]);
        assert_eq!(found, 1);
    }
}
