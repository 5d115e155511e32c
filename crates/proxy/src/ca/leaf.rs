//! The leaf that is served: one certificate for the whole fixed set, replaced before a handshake when it is old or
//! when the API server's names or addresses have changed. No task and no timer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use podwitness_runtime::tls::resolver::HotCert;
use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider};

use super::{CaError, PodCa, client_auth::AskOnly};
use crate::ServerNames;

/// Age in seconds at which a leaf is replaced, well before it expires.
const RENEW: i64 = 12 * 3600;

/// The current leaf of a CA and the TLS configuration that serves it.
pub struct Leaves {
    ca: PodCa,
    hot: Arc<HotCert>,
    tls: Arc<ServerConfig>,
    minted: Mutex<Option<Minted>>,
}

#[derive(Eq, PartialEq)]
struct Minted {
    at: i64,
    names: ServerNames,
}

impl Leaves {
    /// Serves leaves of `ca` with HTTP/2 and HTTP/1.1 (RFC 7301).
    ///
    /// # Errors
    /// Where the TLS library refuses the configuration.
    pub fn new(ca: PodCa) -> Result<Self, CaError> {
        let hot = Arc::new(HotCert::empty());
        let tls = Arc::new(server_config(Arc::clone(&hot))?);
        Ok(Self { ca, hot, tls, minted: Mutex::new(None) })
    }

    /// The TLS configuration, with a leaf that is good at `now` for an API server with these `names`.
    ///
    /// # Errors
    /// Where no leaf can be minted.
    pub fn serving(&self, names: &ServerNames, now: i64) -> Result<Arc<ServerConfig>, CaError> {
        let wanted = with_loopback(names);
        // A panic while minting leaves the old leaf or none: either is a valid state.
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if !minted.as_ref().is_some_and(|m| m.fresh(&wanted, now)) {
            self.hot.swap(self.ca.mint(&wanted, now)?);
            *minted = Some(Minted { at: now, names: wanted });
        }
        Ok(Arc::clone(&self.tls))
    }
}

/// How clients are served, with whichever certificate: HTTP/2 and HTTP/1.1, and certificates of theirs are asked for.
pub(super) fn server_config(certificate: Arc<HotCert>) -> Result<ServerConfig, CaError> {
    let provider = Arc::new(default_provider());
    let mut tls = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AskOnly(provider)))
        .with_cert_resolver(certificate as _);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

impl Minted {
    /// A clock that went backwards makes a leaf that is not yet valid.
    fn fresh(&self, wanted: &ServerNames, now: i64) -> bool {
        self.names == *wanted && (0..RENEW).contains(&now.saturating_sub(self.at))
    }
}

/// Clients that were told of the sidecar's own port ask for it there.
fn with_loopback(names: &ServerNames) -> ServerNames {
    let mut all: ServerNames =
        [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].into_iter().collect();
    all.extend(names);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_names::MAX_ADDRESSES;

    fn leaves() -> Leaves {
        let dir = tempfile::tempdir().unwrap();
        Leaves::new(PodCa::load_or_create(dir.path(), &["kubernetes".into()], 0).unwrap()).unwrap()
    }

    fn current(leaves: &Leaves) -> Vec<u8> {
        leaves.hot.current().unwrap().cert[0].to_vec()
    }

    fn names(dns: &[&str], addresses: &[&str]) -> ServerNames {
        let mut names: ServerNames =
            addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect();
        dns.iter().for_each(|name| names.add_name(name));
        names
    }

    #[test]
    fn a_leaf_is_kept_until_it_is_old_or_the_names_change() {
        let leaves = leaves();
        let serve = |names: &ServerNames, now| {
            leaves.serving(names, now).unwrap();
            current(&leaves)
        };
        let one = names(&[], &["10.96.0.1"]);
        let first = serve(&one, 1000);
        assert_eq!(serve(&names(&[], &["10.96.0.1", "127.0.0.1"]), 1000 + RENEW - 1), first);
        let second = serve(&one, 1000 + RENEW);
        assert_ne!(second, first);
        let third = serve(&names(&[], &["10.96.0.1", "fd00::1"]), 1001 + RENEW);
        assert_ne!(third, second);
        let named = names(&["api.example.org"], &["10.96.0.1", "fd00::1"]);
        let fourth = serve(&named, 1002 + RENEW);
        assert_ne!(fourth, third);
        assert_ne!(serve(&named, 5), fourth, "the clock went back");
    }

    #[test]
    fn loopback_has_its_place_beside_any_number_of_addresses() {
        let many = (0..500_u16).map(|n| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
        let set: Vec<_> = with_loopback(&many.collect()).addresses().collect();
        assert!(set.contains(&"127.0.0.1".parse().unwrap()) && set.contains(&"::1".parse().unwrap()));
        assert!(set.contains(&"10.0.0.0".parse().unwrap()) && set.len() == MAX_ADDRESSES);
    }
}
