//! Whose certificates a sidecar serves: those of its pod's own CA only, or also one of the cluster's CA.
//!
//! With a certificate of the cluster's CA a sidecar can pose as the API server towards any client of the cluster, not
//! only towards those of its pod. So the cluster's administrators decide, for the installation and for namespaces, and the
//! author of a pod cannot.

use crate::inject::Inject;

/// Whose certificates the sidecars of a namespace serve: value of the annotation [`crate::labels::TRUST`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Those of the pod's own CA.
    Pod,
    /// Also one of the cluster's CA, to clients that ask for a name which it bears.
    Cluster,
}

/// The setting of the installation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TrustSetting {
    /// `pod`: no sidecar has a certificate of the cluster's CA.
    #[default]
    Pod,
    /// `namespace`: those of namespaces with the annotation have.
    Namespace,
    /// `cluster`: those of pods for which injection is required have, unless the annotation says `pod`.
    Cluster,
}

impl Trust {
    /// The value of the annotation; an unknown one says nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pod" => Some(Self::Pod),
            "cluster" => Some(Self::Cluster),
            _ => None,
        }
    }
}

impl TrustSetting {
    /// The value of the setting.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pod" => Some(Self::Pod),
            "namespace" => Some(Self::Namespace),
            "cluster" => Some(Self::Cluster),
            _ => None,
        }
    }

    /// Whether a pod may have a certificate of the cluster's CA, by what its namespace says and by how binding its
    /// injection is. Where injection is optional, other containers of a pod can reach its sidecar's key, so that the
    /// namespace has to say it.
    #[must_use]
    pub fn is_cluster(self, namespace: Option<Trust>, inject: Inject) -> bool {
        match (self, namespace) {
            (Self::Pod, _) | (Self::Namespace, None) => false,
            (Self::Namespace | Self::Cluster, Some(trust)) => trust == Trust::Cluster,
            (Self::Cluster, None) => inject == Inject::Required,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installation_offers_and_the_namespace_chooses() {
        use Inject::{Optional, Required};
        let (pod, cluster) = (Some(Trust::Pod), Some(Trust::Cluster));
        for (setting, namespace, inject, expected) in [
            ("pod", None, Required, false),
            ("pod", cluster, Required, false),
            ("namespace", None, Required, false),
            ("namespace", pod, Required, false),
            ("namespace", cluster, Required, true),
            ("namespace", cluster, Optional, true),
            ("cluster", None, Required, true),
            ("cluster", None, Optional, false),
            ("cluster", pod, Required, false),
            ("cluster", cluster, Optional, true),
        ] {
            let setting = TrustSetting::parse(setting).unwrap();
            assert_eq!(
                setting.is_cluster(namespace, inject),
                expected,
                "{setting:?} {namespace:?} {inject:?}"
            );
        }
    }

    #[test]
    fn what_is_not_known_says_nothing() {
        for text in ["", "Cluster", "cluster ", "yes"] {
            assert_eq!((Trust::parse(text), TrustSetting::parse(text)), (None, None), "{text:?}");
        }
        assert_eq!((Trust::parse("pod"), Trust::parse("cluster")), (Some(Trust::Pod), Some(Trust::Cluster)));
    }
}
