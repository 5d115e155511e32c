//! What answers at an address that is not known to be the API server's: a handshake of the sidecar's own.
//!
//! An address list is never complete: a node answers on addresses of which no object tells. So before a connection to a
//! redirected port is passed on raw, the server is asked for its certificate, once by the name that the client asks for
//! and once by the API server's own, because an API server can have other certificates for other names. Nothing but the
//! handshake is sent: no certificate, no token, no request.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use moka::future::Cache;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::Semaphore,
    time::{Duration, Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{Dial, ca::CaError};

/// How long a server has for its certificate.
const LIMIT: Duration = Duration::from_secs(1);
/// How long an answer holds.
const FRESH: Duration = Duration::from_secs(60);
/// How long it holds that there was none in time.
const UNCLEAR_FOR: Duration = Duration::from_secs(5);
/// Servers remembered; the least used give way.
const MAX_KNOWN: u64 = 1024;
/// Servers asked at a time; who has to wait for longer than [`LIMIT`] has no answer.
const AT_ONCE: usize = 16;
/// Addresses found to be the API server's for which leaves are made.
const MAX_FOUND: usize = 32;
/// Longest name of a host (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// A name that every API server's certificate has.
const API_NAME: &str = "kubernetes.default.svc";

/// What answers at an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServerKind {
    /// An API server of this cluster, whose certificate bears this name.
    ApiServer(ServerName<'static>),
    /// A server with another certificate.
    Other,
    /// Something that does not speak TLS, or nothing.
    NoTls,
    /// Not to be told in time.
    Unclear,
}

/// Asks servers, and remembers what they answered.
pub(crate) struct ServerProbe {
    known: Cache<(SocketAddr, Option<String>), (ServerKind, Instant)>,
    found: Mutex<Vec<IpAddr>>,
    turns: Semaphore,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// That of every handshake, but for what looks at the certificate.
    tls: ClientConfig,
    dial: Arc<dyn Dial>,
}

impl ServerProbe {
    /// For API servers whose certificates stand under `roots`.
    ///
    /// # Errors
    /// Where the TLS library refuses its configuration.
    pub(crate) fn new(roots: RootCertStore, dial: Arc<dyn Dial>) -> Result<Self, CaError> {
        let provider = Arc::new(default_provider());
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        // A resumed session shows no certificate.
        tls.resumption = Resumption::disabled();
        Ok(Self {
            known: Cache::builder().max_capacity(MAX_KNOWN).time_to_live(FRESH).build(),
            found: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            roots: Arc::new(roots),
            provider,
            tls,
            dial,
        })
    }

    /// What answers at `to` to a client that asks for `name`; `names` are those of the API server.
    pub(super) async fn ask(
        &self,
        to: SocketAddr,
        name: Option<&str>,
        names: impl FnOnce() -> Vec<ServerName<'static>>,
    ) -> ServerKind {
        let name = name.filter(|name| name.len() <= MAX_NAME).map(str::to_ascii_lowercase);
        let asking = async {
            let answer = self.look(to, name.as_deref(), names()).await;
            tracing::debug!(%to, name, ?answer, "a server was asked for its certificate");
            if matches!(answer, ServerKind::ApiServer(_)) {
                self.remember(to.ip());
            }
            (answer, Instant::now())
        };
        let is_old = |(answer, at): &(ServerKind, Instant)| {
            *answer == ServerKind::Unclear && at.elapsed() > UNCLEAR_FOR
        };
        let entry = self.known.entry((to, name.clone())).or_insert_with_if(asking, is_old);
        Box::pin(entry).await.into_value().0
    }

    /// Addresses that were found to be the API server's.
    pub(super) fn found(&self) -> Vec<IpAddr> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, ip: IpAddr) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() < MAX_FOUND && !found.contains(&ip) {
            found.push(ip);
        }
    }

    async fn look(&self, to: SocketAddr, name: Option<&str>, names: Vec<ServerName<'static>>) -> ServerKind {
        let deadline = Instant::now() + LIMIT;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.turns.acquire()).await else {
            return ServerKind::Unclear;
        };
        let names: Arc<[ServerName<'static>]> = names.into();
        let nameless = || ServerName::from(to.ip());
        let asked = name.and_then(|name| ServerName::try_from(name.to_owned()).ok()).unwrap_or_else(nameless);
        let own = ServerName::try_from(API_NAME).unwrap_or_else(|_| nameless());
        let (asked, own) = tokio::join!(
            self.handshake(to, asked, &names, deadline),
            self.handshake(to, own, &names, deadline)
        );
        if matches!(own, ServerKind::ApiServer(_)) { own } else { asked }
    }

    async fn handshake(
        &self,
        to: SocketAddr,
        name: ServerName<'static>,
        names: &Arc<[ServerName<'static>]>,
        deadline: Instant,
    ) -> ServerKind {
        let seen = Arc::new(CertificateObserver {
            names: Arc::clone(names),
            roots: Arc::clone(&self.roots),
            provider: Arc::clone(&self.provider),
            answer: Mutex::default(),
        });
        let outcome = timeout_at(deadline, self.connect(to, name, Arc::clone(&seen))).await;
        let answer = seen.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A certificate counts however the handshake ended.
        answer.unwrap_or(match outcome {
            Ok(_) => ServerKind::NoTls,
            Err(_) => ServerKind::Unclear,
        })
    }

    async fn connect(
        &self,
        to: SocketAddr,
        name: ServerName<'static>,
        seen: Arc<CertificateObserver>,
    ) -> io::Result<()> {
        let mut config = self.tls.clone();
        config.dangerous().set_certificate_verifier(seen);
        let stream = self.dial.dial(to).await?;
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        tls.shutdown().await
    }
}

/// Looks at a certificate and accepts it: nothing is said on this connection.
#[derive(Debug)]
struct CertificateObserver {
    names: Arc<[ServerName<'static>]>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    answer: Mutex<Option<ServerKind>>,
}

impl CertificateObserver {
    fn judge(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> ServerKind {
        let Ok(certificate) = ParsedCertificate::try_from(own) else { return ServerKind::Other };
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain =
            verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, others, now, algorithms);
        // What is wrong with an API server's certificate in another way, such as its age, makes it no other server.
        if matches!(chain, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))) {
            return ServerKind::Other;
        }
        let named = self.names.iter().find(|name| verify_server_name(&certificate, name).is_ok());
        named.map_or(ServerKind::Other, |name| ServerKind::ApiServer(name.clone()))
    }
}

impl ServerCertVerifier for CertificateObserver {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let answer = self.judge(end_entity, intermediates, now);
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
