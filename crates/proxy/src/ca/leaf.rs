//! The leaf that is served: one certificate for the whole fixed set, replaced before a handshake when it is old or
//! when the API server's addresses have changed. No task and no timer.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use podwitness_runtime::tls::resolver::HotCert;
use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider};

use super::{CaError, PodCa, client_auth::AskOnly};

/// Age in seconds at which a leaf is replaced, well before it expires.
const RENEW: i64 = 12 * 3600;
/// Addresses in one leaf besides loopback; what exceeds them is left out.
const MAX_ADDRESSES: usize = 256;

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
    addresses: Vec<IpAddr>,
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

    /// The TLS configuration, with a leaf that is good at `now` for the API server at `addresses`.
    ///
    /// # Errors
    /// Where no leaf can be minted.
    pub fn serving(&self, addresses: &[IpAddr], now: i64) -> Result<Arc<ServerConfig>, CaError> {
        let wanted = set_of(addresses);
        // A panic while minting leaves the old leaf or none: either is a valid state.
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if !minted.as_ref().is_some_and(|m| m.fresh(&wanted, now)) {
            self.hot.swap(self.ca.mint(&wanted, now)?);
            *minted = Some(Minted { at: now, addresses: wanted });
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
    fn fresh(&self, wanted: &[IpAddr], now: i64) -> bool {
        self.addresses == wanted && (0..RENEW).contains(&now.saturating_sub(self.at))
    }
}

fn set_of(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut set = BTreeSet::new();
    // The first are the most important: the Service comes first.
    for address in addresses {
        if set.len() < MAX_ADDRESSES {
            set.insert(address.to_canonical());
        }
    }
    set.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
    set.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves() -> Leaves {
        let dir = tempfile::tempdir().unwrap();
        Leaves::new(PodCa::load_or_create(dir.path(), &["kubernetes".into()], 0).unwrap()).unwrap()
    }

    fn current(leaves: &Leaves) -> Vec<u8> {
        leaves.hot.current().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_leaf_is_kept_until_it_is_old_or_the_addresses_change() {
        let (leaves, one): (_, IpAddr) = (leaves(), "10.96.0.1".parse().unwrap());
        let serve = |addresses: &[IpAddr], now| {
            leaves.serving(addresses, now).unwrap();
            current(&leaves)
        };
        let first = serve(&[one], 1000);
        assert_eq!(serve(&[one, one], 1000 + RENEW - 1), first);
        let second = serve(&[one], 1000 + RENEW);
        assert_ne!(second, first);
        let third = serve(&[one, "fd00::1".parse().unwrap()], 1001 + RENEW);
        assert_ne!(third, second);
        assert_ne!(serve(&[one, "fd00::1".parse().unwrap()], 5), third, "the clock went back");
    }

    #[test]
    fn a_leaf_has_loopback_and_at_most_so_many_addresses() {
        let service: IpAddr = "10.96.0.1".parse().unwrap();
        let many = (0..500u16).map(|n| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
        let set = set_of(&std::iter::once(service).chain(many).collect::<Vec<_>>());
        assert_eq!(set.len(), MAX_ADDRESSES + 2);
        assert!(set.contains(&service));
        assert!(set.contains(&"127.0.0.1".parse().unwrap()) && set.contains(&"::1".parse().unwrap()));
    }
}
