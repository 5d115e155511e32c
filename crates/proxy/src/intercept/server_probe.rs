//! What answers at an address that is not known to be the API server's: a handshake of the sidecar's own.
//!
//! An address list is never complete: a node answers on addresses of which no object tells. So before a connection to a
//! redirected port is passed on raw, the server is asked for its certificate, once by the name that the client asks for
//! and once by the API server's own, because an API server can have other certificates for other names. Nothing but the
//! handshake is sent: no certificate, no token, no request.
//!
//! The same handshake tells by which names and addresses an API server is called, for which leaves are made. It is looked
//! at anew with each answer, so that what changes there is served within a minute.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

use crate::{Dial, ServerNames, ca::CaError};

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
/// API servers whose names and addresses are remembered, by the name that was asked for; the one for which no client
/// has come for the longest time gives way.
const MAX_SERVERS: usize = 32;
/// Certificates of a chain that may be out of date.
const MAX_DATES: usize = 4;
/// Longest name of a host (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// A name that every API server's certificate has.
const API_NAME: &str = "kubernetes.default.svc";

/// What answers at an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ServerKind {
    /// An API server of this cluster.
    ApiServer {
        /// A name that its certificate bears: what was asked for, where it does.
        name: ServerName<'static>,
        /// Everything that it bears.
        names: Arc<ServerNames>,
    },
    /// A server with another certificate.
    Other,
    /// Something that does not speak TLS, or nothing.
    NoTls,
    /// Not to be told in time.
    Unclear,
}

impl ServerKind {
    const fn is_api_server(&self) -> bool {
        matches!(self, Self::ApiServer { .. })
    }
}

/// Asks servers, and remembers what they answered.
pub(crate) struct ServerProbe {
    known: Cache<(SocketAddr, Option<String>), (ServerKind, Instant)>,
    servers: Mutex<Vec<ApiServer>>,
    turns: Semaphore,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// That of every handshake, but for what looks at the certificate.
    tls: ClientConfig,
    dial: Arc<dyn Dial>,
}

/// An API server that has shown its certificate.
#[derive(Debug)]
struct ApiServer {
    to: SocketAddr,
    /// For what name it was asked; it may have a certificate for each.
    asked: Option<String>,
    names: Arc<ServerNames>,
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
            servers: Mutex::default(),
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
            (answer, Instant::now())
        };
        let is_old = |(answer, at): &(ServerKind, Instant)| {
            *answer == ServerKind::Unclear && at.elapsed() > UNCLEAR_FOR
        };
        let entry = self.known.entry((to, name.clone())).or_insert_with_if(asking, is_old);
        let (answer, _) = Box::pin(entry).await.into_value();
        if let ServerKind::ApiServer { names, .. } = &answer {
            self.remember(ApiServer { to, asked: name, names: Arc::clone(names) });
        }
        answer
    }

    /// Adds the names and addresses of every API server that has shown its certificate, and where it did.
    pub(super) fn add_names(&self, names: &mut ServerNames) {
        for server in self.lock().iter() {
            names.add_addresses([server.to.ip()]);
            names.extend(&server.names);
        }
    }

    /// The one whose client is waiting is always remembered.
    fn remember(&self, server: ApiServer) {
        let mut servers = self.lock();
        servers.retain(|known| (known.to, &known.asked) != (server.to, &server.asked));
        if servers.len() >= MAX_SERVERS {
            servers.remove(0);
        }
        servers.push(server);
    }

    /// Each change leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Vec<ApiServer>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
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
        // The name that was asked for names it best.
        match (asked, own) {
            (ServerKind::ApiServer { name, names }, ServerKind::ApiServer { names: others, .. }) => {
                let mut names = Arc::unwrap_or_clone(names);
                names.extend(&others);
                ServerKind::ApiServer { name, names: Arc::new(names) }
            }
            (asked, own) if own.is_api_server() && !asked.is_api_server() => own,
            (asked, _) => asked,
        }
    }

    async fn handshake(
        &self,
        to: SocketAddr,
        name: ServerName<'static>,
        names: &Arc<[ServerName<'static>]>,
        deadline: Instant,
    ) -> ServerKind {
        let seen = Arc::new(CertificateObserver {
            wanted: [name.clone(), ServerName::from(to.ip())],
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

/// By whom a chain of certificates is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chain {
    /// By the cluster's CA, whether it is in date or not.
    OfCluster,
    /// By the cluster's CA or not: something else is wrong with it.
    Odd,
    /// By another CA, perhaps one of the same name.
    OfAnother,
}

/// Looks at a certificate and accepts it: nothing is said on this connection.
#[derive(Debug)]
struct CertificateObserver {
    /// The name that was asked for, and the address: one of both names the server from now on, where it bears it.
    wanted: [ServerName<'static>; 2],
    /// What the certificate of an API server may bear, one of them at least.
    names: Arc<[ServerName<'static>]>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    answer: Mutex<Option<ServerKind>>,
}

impl CertificateObserver {
    fn judge(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> ServerKind {
        let Ok(certificate) = ParsedCertificate::try_from(own) else { return ServerKind::Other };
        let chain = self.chain(&certificate, others, now);
        let bears = |name: &&ServerName<'static>| verify_server_name(&certificate, name).is_ok();
        let Some(named) = self.names.iter().find(bears).filter(|_| chain != Chain::OfAnother) else {
            return ServerKind::Other;
        };
        let name = self.wanted.iter().find(bears).unwrap_or(named);
        let names = match chain {
            Chain::OfCluster => ServerNames::of_certificate(own),
            // What has not been proven is not said on.
            _ => ServerNames::default(),
        };
        ServerKind::ApiServer { name: name.clone(), names: Arc::new(names) }
    }

    /// What is wrong with an API server's certificate in another way than its signature, such as its age, makes it no
    /// other server. Its dates are looked at first, and would hide whose it is.
    fn chain(
        &self,
        certificate: &ParsedCertificate<'_>,
        others: &[CertificateDer<'_>],
        mut now: UnixTime,
    ) -> Chain {
        use CertificateError::{
            BadEncoding, BadSignature, ExpiredContext, NotValidYetContext, UnknownIssuer,
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        for _ in 0..MAX_DATES {
            let verified =
                verify_server_cert_signed_by_trust_anchor(certificate, &self.roots, others, now, algorithms);
            now = match verified {
                Ok(()) => return Chain::OfCluster,
                Err(Error::InvalidCertificate(ExpiredContext { not_after, .. })) => not_after,
                Err(Error::InvalidCertificate(NotValidYetContext { not_before, .. })) => not_before,
                Err(Error::InvalidCertificate(UnknownIssuer | BadSignature | BadEncoding)) => {
                    return Chain::OfAnother;
                }
                Err(_) => return Chain::Odd,
            };
        }
        Chain::Odd
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
