//! Parts of a grant that mean nothing in a cluster: a grant of a Tailscale policy file is accepted as it is, and what
//! has no effect is named.

use std::net::IpAddr;

use super::GrantSpec;

/// Prefixes of a Tailscale `src` that mean nothing here.
const SRC_WITHOUT_EFFECT: [&str; 5] = ["autogroup:", "host:", "ipset:", "svc:", "tag:"];
/// Prefixes of a `dst` that mean pods.
const DST_OF_PODS: [&str; 3] = ["namespace:", "pod:", "tag:"];

/// What of a grant has no effect.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WithoutEffect {
    /// Its parts, such as `src autogroup:member`.
    pub parts: Vec<String>,
    /// No item of `src` can mean a caller whose identity is verified.
    pub nobody: bool,
    /// No item of `dst` can mean a pod.
    pub no_pod: bool,
    /// There is no rule of the Kubernetes capability.
    pub no_rule: bool,
}

impl WithoutEffect {
    /// Looks through a grant.
    #[must_use]
    pub fn of(spec: &GrantSpec) -> Self {
        let src: Vec<&String> = spec.src.iter().filter(|src| !src_means_anybody(src)).collect();
        let dst: Vec<&String> = spec.dst.iter().filter(|dst| !dst_means_pods(dst)).collect();
        let (nobody, no_pod) = (src.len() == spec.src.len(), dst.len() == spec.dst.len());
        let mut parts: Vec<String> = src.into_iter().map(|src| format!("src {src}")).collect();
        parts.extend(dst.into_iter().map(|dst| format!("dst {dst}")));
        parts.extend((!spec.ip.is_empty()).then(|| "ip".to_owned()));
        let impersonates = spec.app.kubernetes.iter().any(|rule| rule.impersonate.is_some());
        parts.extend(impersonates.then(|| "impersonate".to_owned()));
        Self { parts, nobody, no_pod, no_rule: spec.app.kubernetes.is_empty() }
    }

    /// Whether every part has an effect.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.parts.is_empty() && !self.nobody && !self.no_pod && !self.no_rule
    }
}

/// Whether an item of `src` can mean a caller. Addresses do not: a request from a pod has no address of its user.
#[must_use]
pub fn src_means_anybody(src: &str) -> bool {
    let address = src.split('/').next().is_some_and(|text| text.parse::<IpAddr>().is_ok());
    !address && !SRC_WITHOUT_EFFECT.iter().any(|prefix| src.starts_with(prefix))
}

/// Whether an item of `dst` can mean a pod.
#[must_use]
pub fn dst_means_pods(dst: &str) -> bool {
    dst == "*" || DST_OF_PODS.iter().any(|prefix| dst.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> WithoutEffect {
        WithoutEffect::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn parts_without_effect_are_named() {
        let whole = json!({"src": ["ana@example.com", "group:sre", "*"], "dst": ["namespace:shop", "tag:pci", "pod:a/*"],
            "app": {"tailscale.com/cap/kubernetes": [{"recorder": ["tag:a"]}]}});
        assert!(of(whole).is_none());
        let found = of(json!({
            "src": ["autogroup:member", "100.64.0.7", "fd7a::/48", "svc:x", "ana"],
            "dst": ["namespace:shop", "autogroup:internet", "shop"],
            "ip": ["tcp:443"],
            "app": {"tailscale.com/cap/kubernetes": [{"impersonate": {"groups": ["g"]}}]},
        }));
        let parts = [
            "src autogroup:member",
            "src 100.64.0.7",
            "src fd7a::/48",
            "src svc:x",
            "dst autogroup:internet",
            "dst shop",
            "ip",
            "impersonate",
        ];
        assert_eq!(found.parts, parts);
        assert_eq!((found.nobody, found.no_pod, found.no_rule), (false, false, false));
    }

    #[test]
    fn a_grant_that_means_nobody_or_nothing_says_so() {
        let found = of(json!({"src": ["autogroup:member"], "dst": ["10.0.0.1"]}));
        assert_eq!((found.nobody, found.no_pod, found.no_rule), (true, true, true));
        assert!(!found.is_none());
    }
}
