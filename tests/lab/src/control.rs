//! A control plane that believes everyone: it enrols any key, signs that it is the one of pod `shop/till`, and says the
//! netmaps that it is told to, with its own issuer in each.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    header::AUTHORIZATION,
};
use podwitness_core::{
    address,
    assertion::{Claims, sign},
    control::{
        CERTIFICATE, CertificateRequest, CertificateResponse, ENROL, EnrolRequest, EnrolResponse, Issuer,
        NOTICE, Netmap, Notice, NoticeRequest, Update,
    },
};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    Authority,
    https::{self, Body, full},
};

/// Name in its certificate.
pub const NAME: &str = "podwitness-control.podwitness-system.svc";
/// Id of its cluster.
pub const CLUSTER: &str = "c-1";

/// A control plane.
pub struct Control {
    authority: Authority,
    issuer: Issuer,
    pkcs8: Vec<u8>,
    netmap: watch::Sender<Netmap>,
    /// The keys that were enrolled, in order.
    pub enrolled: watch::Sender<Vec<Enrolled>>,
    /// What it was told, in order.
    pub told: watch::Sender<Vec<Notice>>,
    /// Who signs the certificates that sidecars ask for; without it there is no such path.
    pub signer: watch::Sender<Option<Arc<Authority>>>,
}

/// A key that was enrolled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolled {
    /// `Authorization` of the request.
    pub authorization: String,
    /// WireGuard public key, base64.
    pub key: String,
}

impl Control {
    /// A control plane that begins with this netmap.
    #[must_use]
    pub fn new(netmap: Netmap) -> Arc<Self> {
        Self::of(CLUSTER, netmap)
    }

    /// The control plane of the cluster of that id.
    #[must_use]
    pub fn of(cluster: &str, netmap: Netmap) -> Arc<Self> {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public_key = STANDARD.encode(pair.public_key().as_ref());
        let control = Self {
            authority: Authority::new("podwitness"),
            issuer: Issuer { id: format!("k-{cluster}"), cluster: cluster.into(), public_key },
            pkcs8: AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec(),
            netmap: watch::Sender::default(),
            enrolled: watch::Sender::default(),
            told: watch::Sender::default(),
            signer: watch::Sender::default(),
        };
        control.publish(netmap);
        Arc::new(control)
    }

    /// The CA of its certificate in PEM.
    #[must_use]
    pub fn root(&self) -> &str {
        self.authority.pem()
    }

    /// Replaces the netmap.
    pub fn publish(&self, netmap: Netmap) {
        self.netmap.send_replace(Netmap { issuers: vec![self.issuer.clone()], ..netmap });
    }

    /// An assertion that pod `shop/till` holds this key.
    #[must_use]
    pub fn assertion(&self, key: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let of = |text: &str| text.to_owned();
        let claims = Claims {
            cluster: self.issuer.cluster.clone(),
            namespace: of("shop"),
            pod: of("till"),
            pod_uid: of("uid-till"),
            node: of("node"),
            service_account: of("default"),
            key: of(key),
            mode: None,
            iat: now,
            exp: now + 3600,
        };
        sign(&claims, &self.issuer.id, &self.pkcs8).unwrap()
    }

    /// Id of its cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.issuer.cluster
    }

    /// An entry of a join file.
    #[must_use]
    pub fn entry(&self, recorder: &str) -> serde_json::Value {
        serde_json::json!({"recorder": recorder, "issuers": [self.issuer]})
    }

    /// Serves until the runtime ends.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let key = self.authority.leaf(&[NAME]);
        https::serve(listener, key, move |request| Arc::clone(&self).answer(request)).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            ENROL => self.enrol(request).await,
            NOTICE => self.notice(request).await,
            CERTIFICATE => self.certify(request).await,
            _ => self.netmaps(),
        }
    }

    async fn notice(&self, request: Request<Incoming>) -> Response<Body> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let NoticeRequest { notice } = serde_json::from_slice(&body).unwrap();
        self.told.send_modify(|all| all.push(notice));
        Response::new(full(Bytes::new()))
    }

    /// Whatever is asked for, for an hour.
    async fn certify(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(signer) = self.signer.borrow().clone() else {
            return Response::builder().status(404).body(full(Bytes::new())).unwrap();
        };
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let CertificateRequest { request } = serde_json::from_slice(&body).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let chain = signer.certify(&STANDARD.decode(request).unwrap());
        let answer = CertificateResponse { chain, not_before: now - 60, not_after: now + 3600 };
        Response::new(full(serde_json::to_vec(&answer).unwrap()))
    }

    async fn enrol(&self, request: Request<Incoming>) -> Response<Body> {
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let EnrolRequest { public_key: key } = serde_json::from_slice(&body).unwrap();
        let address = address::of_key(&address::parse_key(&key).unwrap());
        let answer = EnrolResponse { address, assertion: self.assertion(&key), generation: 1 };
        self.enrolled.send_modify(|all| all.push(Enrolled { authorization, key }));
        Response::new(full(serde_json::to_vec(&answer).unwrap()))
    }

    fn netmaps(&self) -> Response<Body> {
        let mut netmaps = self.netmap.subscribe();
        netmaps.mark_changed();
        let lines = stream::unfold(netmaps, |mut netmaps| async {
            netmaps.changed().await.ok()?;
            let netmap = Box::new(netmaps.borrow_and_update().clone());
            let line = serde_json::to_string(&Update::Netmap(netmap)).unwrap() + "\n";
            Some((Ok(Frame::data(Bytes::from(line))), netmaps))
        });
        Response::new(StreamBody::new(lines).boxed())
    }
}
