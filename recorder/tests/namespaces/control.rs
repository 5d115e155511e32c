//! A control plane that believes everyone: enrols any key, publishes one issuer, and signs what a test wants.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podwitness_core::{
    address,
    assertion::{Claims, sign},
    control::{ENROL, EnrolRequest, EnrolResponse, Issuer, Netmap, Update},
};
use podwitness_tunnel::PublicKey;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;

pub const NAME: &str = "podwitness-control.podwitness-system.svc";

pub struct Control {
    pub root: String,
    issuer: Issuer,
    pkcs8: Vec<u8>,
    acceptor: TlsAcceptor,
    /// The key that was enrolled last.
    pub enrolled: watch::Sender<Option<PublicKey>>,
}

impl Control {
    pub fn new() -> Arc<Self> {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public_key = STANDARD.encode(pair.public_key().as_ref());
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        Arc::new(Self {
            root: authority.pem(),
            issuer: Issuer { id: "k".into(), cluster: "c-1".into(), public_key },
            pkcs8,
            acceptor: acceptor(&authority),
            enrolled: watch::Sender::new(None),
        })
    }

    /// An assertion that pod `shop/till` holds this key.
    pub fn assertion(&self, key: &PublicKey) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let of = |text: &str| text.to_owned();
        let claims = Claims {
            cluster: of("c-1"),
            namespace: of("shop"),
            pod: of("till"),
            pod_uid: of("uid-till"),
            node: of("node"),
            service_account: of("default"),
            key: key.to_string(),
            iat: now,
            exp: now + 600,
        };
        sign(&claims, &self.issuer.id, &self.pkcs8).unwrap()
    }

    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _): (_, SocketAddr) = listener.accept().await.unwrap();
            let control = Arc::clone(&self);
            tokio::spawn(async move {
                let stream = control.acceptor.accept(stream).await.unwrap();
                let service = service_fn(|request| {
                    let control = Arc::clone(&control);
                    async move { Ok::<_, Infallible>(control.answer(request).await) }
                });
                let http = http2::Builder::new(TokioExecutor::new());
                // The recorder ends when its test does.
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        if request.uri().path() == ENROL {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let EnrolRequest { public_key } = serde_json::from_slice(&body).unwrap();
            let key: PublicKey = public_key.parse().unwrap();
            let address = address::of_key(key.as_bytes());
            let answer = EnrolResponse { address, assertion: self.assertion(&key), generation: 1 };
            self.enrolled.send_replace(Some(key));
            return Response::new(Full::from(serde_json::to_vec(&answer).unwrap()).boxed());
        }
        let netmap = Netmap { generation: 1, issuers: vec![self.issuer.clone()], ..Netmap::default() };
        let line = serde_json::to_string(&Update::Netmap(Box::new(netmap))).unwrap() + "\n";
        let lines = stream::iter([Ok(Frame::data(Bytes::from(line)))]).chain(stream::pending());
        Response::new(BodyExt::boxed(StreamBody::new(lines)))
    }
}

fn acceptor(authority: &CertifiedIssuer<'_, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
