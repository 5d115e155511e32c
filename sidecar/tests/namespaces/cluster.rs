//! A cluster as a pod sees it: an API server and a control plane, each on its address and under its own CA.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use podwitness_core::{
    address,
    control::{ENROL, EnrolRequest, EnrolResponse, Netmap, Update},
};
use podwitness_runtime::{
    drain::{Drain, Signal},
    http::{Limits, serve_connection},
    tls::{listener, resolver::HotCert, server_config},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer, sign::CertifiedKey};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::watch,
};

use crate::{
    lab::{CONTROL, ENDPOINT, SERVICE},
    netns::Netns,
};

/// Name in the control plane's certificate.
pub const CONTROL_NAME: &str = "podwitness-control.podwitness-system.svc";

pub struct Cluster {
    /// PEM of the CA of the API server, and of the control plane's.
    pub ca: String,
    pub control_ca: String,
    pub control: Arc<Control>,
    runtime: Runtime,
    signal: Signal,
}

/// What the control plane says and has heard.
pub struct Control {
    netmap: watch::Sender<Netmap>,
    keys: Mutex<Vec<String>>,
}

impl Cluster {
    /// An API server in `world`, and a control plane that begins with `netmap`.
    pub fn start(world: &Netns, netmap: Netmap) -> Self {
        let control = Arc::new(Control { netmap: watch::Sender::new(netmap), keys: Mutex::default() });
        let runtime =
            world.run(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
        let (api, of_control) = (Authority::new("kubernetes"), Authority::new("podwitness"));
        let (signal, _) = Drain::new();
        let cluster =
            Self { ca: api.pem.clone(), control_ca: of_control.pem.clone(), control, runtime, signal };
        for address in [SERVICE, ENDPOINT] {
            let ip = address.parse::<SocketAddr>().unwrap().ip().to_string();
            cluster.serve(address, api.leaf(&["kubernetes", &ip]), |request| async move { answer(&request) });
        }
        let control = Arc::clone(&cluster.control);
        cluster.serve(CONTROL, of_control.leaf(&[CONTROL_NAME]), move |request| {
            Arc::clone(&control).answer(request)
        });
        cluster
    }

    fn serve<F>(
        &self,
        address: &str,
        key: CertifiedKey,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = Response<BoxBody<Bytes, Infallible>>> + Send + 'static,
    {
        let address: SocketAddr = address.parse().unwrap();
        // Made on a worker, whose namespace is the world.
        let bound = self.runtime.spawn(async move { TcpListener::bind(address).await.unwrap() });
        let bound = self.runtime.block_on(bound).unwrap();
        let config = server_config(Arc::new(HotCert::new(key))).unwrap();
        let drain = self.signal.watch();
        let handler = {
            let drain = drain.clone();
            move |stream, _| {
                let (answer, drain) = (answer.clone(), drain.clone());
                async move {
                    let service = service_fn(move |request| {
                        let answered = answer(request);
                        async move { Ok::<_, Infallible>(answered.await) }
                    });
                    let _ = serve_connection(stream, service, &Limits::default(), &drain).await;
                }
            }
        };
        self.runtime.spawn(listener::serve(bound, config, drain, 100, handler));
    }
}

impl Control {
    /// Replaces the netmap.
    pub fn publish(&self, netmap: Netmap) {
        self.netmap.send_replace(netmap);
    }

    /// Keys that were enrolled.
    pub fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        if request.uri().path() == ENROL {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let EnrolRequest { public_key } = serde_json::from_slice(&body).unwrap();
            let address = address::of_key(&address::parse_key(&public_key).unwrap());
            self.keys.lock().unwrap().push(public_key);
            let answer = EnrolResponse { address, assertion: "an.assertion.".into(), generation: 1 };
            return Response::new(Full::from(serde_json::to_vec(&answer).unwrap()).boxed());
        }
        let netmaps = stream::unfold(self.netmap.subscribe(), |mut netmaps| async {
            netmaps.changed().await.ok()?;
            let netmap = netmaps.borrow_and_update().clone();
            Some((netmap, netmaps))
        });
        let first = stream::iter([self.netmap.borrow().clone()]);
        let lines = first.chain(netmaps).map(|netmap| {
            let line = serde_json::to_string(&Update::Netmap(Box::new(netmap))).unwrap() + "\n";
            Ok(Frame::data(Bytes::from(line)))
        });
        Response::new(BodyExt::boxed(StreamBody::new(lines)))
    }
}

/// Says which path was asked for and whether with a token.
fn answer(request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let bearer = request.headers().get("authorization").map_or("nobody", |value| value.to_str().unwrap());
    Response::new(Full::from(format!("{} for {bearer}", request.uri().path())).boxed())
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn leaf(&self, names: &[&str]) -> CertifiedKey {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap();
        CertifiedKey::new(vec![certificate.der().clone()], key)
    }
}
