//! Names and addresses that a certificate of the API server bears.
//!
//! A cluster's API server is called by more names than those of its Service: by that of a load balancer, of a node, of
//! the cluster itself. Its own certificate says which, and what is served in its place bears the same.
//!
//! Bounds: [`MAX_NAMES`] names and [`MAX_ADDRESSES`] addresses; the first ones stay.

use std::{collections::BTreeSet, net::IpAddr};

use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// DNS names in one set; more are left out.
pub const MAX_NAMES: usize = 128;
/// Addresses in one set; more are left out.
pub const MAX_ADDRESSES: usize = 256;

/// Subject alternative names (RFC 5280 §4.2.1.6) of a server: DNS names in small letters, wildcards among them, and
/// addresses in their canonical form.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerNames {
    dns: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl ServerNames {
    /// Those of a certificate; none where it cannot be read. Whether it is to be believed is the caller's affair.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        let mut names = Self::default();
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return names };
        let Ok(Some(alternatives)) = parsed.subject_alternative_name() else { return names };
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.add_name(name),
                GeneralName::IPAddress(bytes) => names.add_addresses(address(bytes)),
                _ => {}
            }
        }
        names
    }

    /// Adds a DNS name, which may begin with `*.`; what is none is left out.
    pub fn add_name(&mut self, name: &str) {
        let host = name.strip_prefix("*.").unwrap_or(name);
        let is_name = DnsName::try_from(host).is_ok() && host.parse::<IpAddr>().is_err();
        if is_name && self.dns.len() < MAX_NAMES {
            self.dns.insert(name.to_ascii_lowercase());
        }
    }

    /// Adds addresses.
    pub fn add_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if self.addresses.len() < MAX_ADDRESSES {
                self.addresses.insert(address.to_canonical());
            }
        }
    }

    /// Adds what another set has.
    pub fn extend(&mut self, other: &Self) {
        other.dns.iter().for_each(|name| self.add_name(name));
        self.add_addresses(other.addresses.iter().copied());
    }

    /// The DNS names, sorted.
    pub fn dns(&self) -> impl Iterator<Item = &str> {
        self.dns.iter().map(String::as_str)
    }

    /// The addresses, sorted.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }

    /// Whether a client that asks for `name` finds it here (RFC 6125 §6.4: a wildcard stands for one label).
    #[must_use]
    pub fn covers(&self, name: &ServerName<'_>) -> bool {
        match name {
            ServerName::DnsName(name) => {
                let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
                let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
                self.dns.contains(&name) || parent.is_some_and(|parent| self.dns.contains(&parent))
            }
            ServerName::IpAddress(ip) => self.addresses.contains(&IpAddr::from(*ip).to_canonical()),
            _ => false,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.addresses.is_empty()
    }
}

impl FromIterator<IpAddr> for ServerNames {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut names = Self::default();
        names.add_addresses(addresses);
        names
    }
}

/// An address as a certificate holds it: 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::generate_simple_self_signed(names).unwrap().cert.der().clone()
    }

    fn covers(names: &ServerNames, name: &str) -> bool {
        names.covers(&ServerName::try_from(name.to_owned()).unwrap())
    }

    #[test]
    fn a_certificates_names_and_addresses_are_read() {
        let names = ServerNames::of_certificate(&certificate(&[
            "Kubernetes.default.svc",
            "api.shop.example.org",
            "*.clusters.example.org",
            "10.96.0.1",
            "fd00::1",
        ]));
        let dns: Vec<_> = names.dns().collect();
        assert_eq!(dns, ["*.clusters.example.org", "api.shop.example.org", "kubernetes.default.svc"]);
        let expected: Vec<IpAddr> = vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(names.addresses().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn names_are_found_as_clients_look_for_them() {
        let names = ServerNames::of_certificate(&certificate(&[
            "*.clusters.example.org",
            "api.example.org",
            "10.96.0.1",
        ]));
        for name in ["api.example.org", "API.example.org", "one.clusters.example.org", "10.96.0.1"] {
            assert!(covers(&names, name), "{name}");
        }
        for name in
            ["example.org", "clusters.example.org", "a.b.clusters.example.org", "10.96.0.2", "fd00::1"]
        {
            assert!(!covers(&names, name), "{name}");
        }
        assert!(!covers(&ServerNames::default(), "localhost"));
    }

    #[test]
    fn more_than_there_is_room_for_is_left_out_and_the_first_stay() {
        let mut names = ServerNames::default();
        for n in 0..1000_u16 {
            names.add_name(&format!("a{n}.example.org"));
            names.add_addresses([IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]])]);
        }
        assert_eq!((names.dns().count(), names.addresses().count()), (MAX_NAMES, MAX_ADDRESSES));
        assert!(covers(&names, "a0.example.org") && covers(&names, "10.0.0.0"));
        let more: ServerNames = [IpAddr::from([192, 0, 2, 7])].into_iter().collect();
        names.extend(&more);
        assert!(!covers(&names, "192.0.2.7"));
    }

    #[test]
    fn what_is_no_name_is_left_out() {
        let mut names = ServerNames::default();
        for name in ["", "*", "*.", "a b", "a..b", "*.*.b", "-a.b", "10.96.0.1", "é.org", "a/b"] {
            names.add_name(name);
        }
        assert!(names.is_empty(), "{names:?}");
        names.add_addresses([[0_u8; 4].as_slice(), &[0; 16]].into_iter().filter_map(address));
        assert_eq!(names.addresses().count(), 2);
        assert_eq!([&[][..], &[0; 3], &[0; 5], &[0; 17]].into_iter().filter_map(address).count(), 0);
    }

    proptest! {
        #[test]
        fn no_certificate_makes_it_panic(
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8), cut in any::<usize>(),
        ) {
            let mut der = certificate(&["kubernetes", "*.example.org", "10.96.0.1"]).to_vec();
            for (at, byte) in changes {
                let at = at % der.len();
                der[at] = byte;
            }
            der.truncate(cut % (der.len() * 2));
            let names = ServerNames::of_certificate(&der.into());
            prop_assert!(names.dns().count() <= MAX_NAMES);
        }
    }
}
