//! The names and addresses of the API server's own certificates, learned by handshakes.
//!
//! API servers can have a certificate each, and another for a name that is asked for. So each of the first addresses is
//! asked twice, and what they bear is put together. Nothing but the handshake is sent. A server that does not answer
//! keeps the names that it had, so that certificates do not change when one restarts.
//!
//! Only a certificate that bears the API server's own name counts: what leads to an API server can lead to another server
//! beside it, which may have a certificate of the cluster's CA for names of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use podwitness_core::control::ServingNames;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, DnsName, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    parse_x509_certificate,
};

use super::{
    super::addresses::Found,
    chain::{ChainError, ClusterCa},
    request::ip,
};

/// For one handshake.
const LIMIT: Duration = Duration::from_secs(3);
/// Servers that are asked at a time.
const AT_ONCE: usize = 4;
/// Addresses that are asked: the Service and what is behind it come first.
const MAX_SERVERS: usize = 16;
/// How often servers are asked.
const AGAIN: Duration = Duration::from_secs(300);
/// The same while nothing is known.
const AGAIN_FIRST: Duration = Duration::from_secs(5);
/// The name that every API server's certificate bears, and no other.
const API_NAME: &str = "kubernetes.default.svc";

/// Learns the names.
pub struct Learner {
    /// Under which the certificates stand.
    pub ca: ClusterCa,
    /// Where API servers are reached.
    pub addresses: watch::Receiver<Option<Arc<Found>>>,
    /// Where names go.
    pub names: watch::Sender<Option<Arc<ServingNames>>>,
    /// Told when they change.
    pub tell: Arc<Notify>,
}

impl Learner {
    /// Learns for as long as it runs.
    pub async fn run(mut self) {
        let mut known = BTreeMap::new();
        loop {
            let servers: Vec<SocketAddr> = self
                .addresses
                .borrow_and_update()
                .iter()
                .flat_map(|found| found.addresses.clone())
                .take(MAX_SERVERS)
                .collect();
            match ask_all(&self.ca, &servers).await {
                Ok(found) => known.extend(found),
                Err(error) => {
                    tracing::warn!(%error, "the names of the API server's certificate are not known");
                }
            }
            known.retain(|server, _| servers.contains(server));
            self.publish(&merge(known.values()));
            let pause = if known.is_empty() { AGAIN_FIRST } else { AGAIN };
            tokio::select! {
                Ok(()) = self.addresses.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// None at all are an accident: what was known stays.
    fn publish(&self, found: &ServingNames) {
        if found.is_empty() {
            return;
        }
        let changed = self.names.send_if_modified(|before| {
            let is_new = before.as_deref() != Some(found);
            if is_new {
                *before = Some(Arc::new(found.clone()));
            }
            is_new
        });
        if changed {
            tracing::info!(names = ?found.names, addresses = ?found.addresses, "names of the API server's certificates");
            self.tell.notify_one();
        }
    }
}

async fn ask_all(
    ca: &ClusterCa,
    servers: &[SocketAddr],
) -> Result<BTreeMap<SocketAddr, ServingNames>, ChainError> {
    let roots = Arc::new(ca.roots().await?);
    let asked = stream::iter(servers.to_vec()).map(move |server| {
        let roots = Arc::clone(&roots);
        async move { Some((server, ask(server, &roots).await?)) }
    });
    Ok(asked.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await)
}

/// What a server's certificates bear, asked for by its address and by the API server's name.
async fn ask(server: SocketAddr, roots: &Arc<RootCertStore>) -> Option<ServingNames> {
    let by_address = handshake(server, ServerName::from(server.ip()), roots);
    let name = ServerName::try_from(API_NAME).ok()?;
    let (by_address, by_name) = tokio::join!(by_address, handshake(server, name, roots));
    let found: Vec<ServingNames> = by_address.into_iter().chain(by_name).collect();
    (!found.is_empty()).then(|| merge(found.iter()))
}

async fn handshake(
    server: SocketAddr,
    name: ServerName<'static>,
    roots: &Arc<RootCertStore>,
) -> Option<ServingNames> {
    let provider = Arc::new(default_provider());
    let seen = Arc::new(NameObserver {
        roots: Arc::clone(roots),
        provider: Arc::clone(&provider),
        names: Mutex::default(),
    });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let verifier = Arc::clone(&seen) as Arc<dyn ServerCertVerifier>;
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // A resumed session shows no certificate.
    config.resumption = Resumption::disabled();
    let connect = async {
        let stream = TcpStream::connect(server).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(drop)
    };
    match timeout(LIMIT, connect).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%server, %error, "a server's certificate is not known");
            return None;
        }
        Err(_) => return None,
    }
    let names = seen.names.lock().unwrap_or_else(PoisonError::into_inner).take();
    names.filter(|found| found.names.iter().any(|name| name == API_NAME))
}

/// Each once, in order, within the caps.
fn merge<'a>(all: impl Iterator<Item = &'a ServingNames> + Clone) -> ServingNames {
    let names: BTreeSet<&String> = all.clone().flat_map(|found| &found.names).collect();
    let addresses: BTreeSet<_> = all.flat_map(|found| found.addresses.iter().copied()).collect();
    if names.len() > ServingNames::MAX || addresses.len() > ServingNames::MAX {
        tracing::warn!(
            names = names.len(),
            addresses = addresses.len(),
            "the API server's certificates bear more than {} names or addresses; the others are left out",
            ServingNames::MAX
        );
    }
    ServingNames {
        names: names.into_iter().take(ServingNames::MAX).cloned().collect(),
        addresses: addresses.into_iter().take(ServingNames::MAX).collect(),
    }
}

/// What a certificate bears. Names that no client could ask for are left out.
fn names_of(certificate: &CertificateDer<'_>) -> Option<ServingNames> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let mut found = ServingNames::default();
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(all) = extension.parsed_extension() else { continue };
        for name in &all.general_names {
            match name {
                GeneralName::DNSName(name) if is_name(name) => found.names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => found.addresses.extend(ip(bytes)),
                _ => {}
            }
        }
    }
    Some(merge(std::iter::once(&found)))
}

/// A DNS name, of which the first label may be a wildcard.
fn is_name(name: &str) -> bool {
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok() && !name.ends_with('.')
}

/// Takes down the names of a certificate that stands under the cluster's CA, whatever they are.
#[derive(Debug)]
struct NameObserver {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    names: Mutex<Option<ServingNames>>,
}

impl ServerCertVerifier for NameObserver {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names_of(end_entity);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
