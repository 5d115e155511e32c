//! Everything that netmaps are made of, as one immutable snapshot, and the netmap of one pod out of it.
//!
//! Invariant: a pod learns only what concerns it: the grants whose `dst` fits it, and the recorders that those name.
//! A recorder learns whom to believe, and nothing about grants or other recorders.

use std::collections::{BTreeMap, BTreeSet};

use podwitness_core::{
    control::{Issuer, Netmap, RecorderPeer, ServingNames},
    grant::{Grant, PodTarget, dst_fits},
    inject::Inject,
    trust::{Trust, TrustSetting},
};

use super::{addresses::Found, role::Role};

/// A snapshot of all that netmaps are made of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct World {
    /// Id of the cluster.
    pub cluster: String,
    /// Every grant, by name.
    pub grants: Vec<Grant>,
    /// Every replica that can take recordings.
    pub recorders: Vec<RecorderPeer>,
    /// Namespaces of which anything has to be known.
    pub namespaces: BTreeMap<String, NamespaceFacts>,
    /// Where API servers are reached.
    pub api_servers: Found,
    /// Keys that sign assertions.
    pub issuers: Vec<Issuer>,
    /// PEM roots of the control API's certificate.
    pub roots: Vec<String>,
    /// Zones by name of their nodes.
    pub zones: BTreeMap<String, String>,
    /// Which pods may have a certificate of the cluster's CA.
    pub trust: TrustSetting,
    /// For which names; `None` until they are known.
    pub serving: Option<ServingNames>,
}

/// What labels and annotations say about a namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NamespaceFacts {
    /// Grant tags, without prefix.
    pub tags: Vec<String>,
    /// Unix seconds until which connections are spliced raw.
    pub bypass_until: Option<i64>,
    /// Whose certificates its sidecars serve, where it says so.
    pub trust: Option<Trust>,
}

/// A world under its number.
#[derive(Clone, Debug)]
pub struct Published {
    /// Grows with each world.
    pub generation: u64,
    /// The world.
    pub world: World,
}

impl Published {
    /// The netmap of the pod `namespace/pod` on a node.
    #[must_use]
    pub fn netmap(&self, role: &Role, namespace: &str, pod: &str, node: &str) -> Netmap {
        let mut netmap = match role {
            Role::Sidecar => {
                let zone = self.world.zones.get(node).cloned();
                Netmap { zone, ..self.world.of_sidecar(namespace, pod) }
            }
            Role::Recorder(_) => self.world.common(),
        };
        netmap.generation = self.generation;
        netmap
    }
}

impl World {
    /// For which names a pod of a namespace may have a certificate of the cluster's CA, by how binding its injection is;
    /// `None` of a recorder.
    #[must_use]
    pub fn serving(&self, namespace: &str, mode: Option<Inject>) -> Option<&ServingNames> {
        let own = self.namespaces.get(namespace).and_then(|facts| facts.trust);
        self.serving.as_ref().filter(|_| mode.is_some_and(|mode| self.trust.is_cluster(own, mode)))
    }

    fn of_sidecar(&self, namespace: &str, pod: &str) -> Netmap {
        let facts = self.namespaces.get(namespace);
        let tags = facts.map_or(&[][..], |facts| facts.tags.as_slice());
        let target = PodTarget { namespace, name: Some(pod), tags };
        let grants: Vec<Grant> =
            self.grants.iter().filter(|grant| dst_fits(&grant.spec, target)).cloned().collect();
        let recorders = self.recorders_of(&grants);
        Netmap {
            recorders,
            grants: grants.into(),
            api_servers: self.api_servers.addresses.clone(),
            secure_ports: self.api_servers.secure_ports.clone(),
            bypass_until: facts.and_then(|facts| facts.bypass_until),
            ..self.common()
        }
    }

    fn recorders_of(&self, grants: &[Grant]) -> Vec<RecorderPeer> {
        let wanted: BTreeSet<&str> = grants
            .iter()
            .flat_map(|grant| &grant.spec.app.kubernetes)
            .flat_map(|rule| &rule.recorder)
            .map(String::as_str)
            .collect();
        let named = |peer: &&RecorderPeer| peer.tags.iter().any(|tag| wanted.contains(tag.as_str()));
        self.recorders.iter().filter(named).cloned().collect()
    }

    fn common(&self) -> Netmap {
        Netmap {
            cluster: self.cluster.clone(),
            issuers: self.issuers.clone(),
            roots: self.roots.clone(),
            ..Netmap::default()
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use serde_json::json;

    use super::*;

    /// A grant from its name, its `dst` and the tag of its recorder.
    pub fn grant(name: &str, dst: &str, tag: &str) -> Grant {
        let app = json!({"tailscale.com/cap/kubernetes": [{"recorder": [tag]}]});
        Grant {
            name: name.into(),
            spec: serde_json::from_value(json!({"src": ["*"], "dst": [dst], "app": app})).unwrap(),
        }
    }

    /// A replica from its name and tag.
    pub fn peer(replica: &str, tag: &str) -> RecorderPeer {
        RecorderPeer {
            name: "r".into(),
            replica: replica.into(),
            tags: vec![tag.into()],
            public_key: replica.into(),
            address: "fd70::1".parse().unwrap(),
            port: 80,
            endpoint: "10.0.0.9:51820".parse().unwrap(),
            ack: None,
            plaintext: None,
            zone: None,
        }
    }

    /// A world with two grants, two recorders and a tagged namespace.
    pub fn world() -> World {
        let issuer = Issuer { id: "i".into(), cluster: "c".into(), public_key: "k".into() };
        World {
            cluster: "c".into(),
            grants: vec![grant("all", "*", "tag:a"), grant("prod", "tag:prod", "tag:b")],
            recorders: vec![peer("ra", "tag:a"), peer("rb", "tag:b")],
            namespaces: [(
                "shop".to_owned(),
                NamespaceFacts { tags: vec!["prod".into()], bypass_until: Some(7), trust: None },
            )]
            .into(),
            api_servers: Found { addresses: vec!["10.96.0.1:443".parse().unwrap()], ..Found::default() },
            issuers: vec![issuer],
            roots: vec!["PEM".into()],
            zones: [("n1".to_owned(), "z1".to_owned())].into(),
            trust: TrustSetting::Pod,
            serving: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    fn names(netmap: &Netmap) -> (Vec<&str>, Vec<&str>) {
        let grants = netmap.grants.iter().map(|grant| grant.name.as_str()).collect();
        (grants, netmap.recorders.iter().map(|peer| peer.replica.as_str()).collect())
    }

    #[test]
    fn a_pod_learns_the_grants_that_fit_it_and_the_recorders_they_name() {
        let published = Published { generation: 3, world: world() };
        let tagged = published.netmap(&Role::Sidecar, "shop", "till", "n1");
        assert_eq!(tagged.zone.as_deref(), Some("z1"));
        assert_eq!(names(&tagged), (vec!["all", "prod"], vec!["ra", "rb"]));
        assert_eq!((tagged.generation, tagged.bypass_until), (3, Some(7)));
        assert_eq!((tagged.api_servers.len(), tagged.issuers.len(), tagged.roots.len()), (1, 1, 1));
        let plain = published.netmap(&Role::Sidecar, "blog", "web", "n2");
        assert_eq!(plain.zone, None);
        assert_eq!(names(&plain), (vec!["all"], vec!["ra"]));
        assert_eq!(plain.bypass_until, None);
    }

    #[test]
    fn names_for_a_certificate_are_those_of_pods_that_may_have_one() {
        let names = ServingNames { names: vec!["kubernetes".into()], ..ServingNames::default() };
        let mut world = World { trust: TrustSetting::Cluster, serving: Some(names), ..world() };
        let bank = NamespaceFacts { trust: Some(Trust::Pod), ..NamespaceFacts::default() };
        world.namespaces.insert("bank".into(), bank);
        assert!(world.serving("shop", Some(Inject::Required)).is_some());
        assert!(world.serving("elsewhere", Some(Inject::Required)).is_some());
        for (namespace, mode) in
            [("shop", Some(Inject::Optional)), ("bank", Some(Inject::Required)), ("shop", None)]
        {
            assert_eq!(world.serving(namespace, mode), None, "{namespace} {mode:?}");
        }
        let unknown = World { serving: None, ..world };
        assert_eq!(unknown.serving("shop", Some(Inject::Required)), None);
    }

    #[test]
    fn a_recorder_learns_only_whom_to_believe() {
        let published = Published { generation: 3, world: world() };
        let netmap = published.netmap(&Role::Recorder("r".into()), "shop", "till", "n1");
        assert_eq!(names(&netmap), (vec![], vec![]));
        assert_eq!((netmap.cluster.as_str(), netmap.issuers.len(), netmap.api_servers.len()), ("c", 1, 0));
    }
}
