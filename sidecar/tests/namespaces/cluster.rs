//! A cluster as a pod sees it: an API server and a control plane, each on its address and under its own CA.

use std::{net::SocketAddr, sync::Arc};

use hyper::{Request, Response, body::Incoming};
use podwitness_core::control::Netmap;
use podwitness_lab::{
    Authority, Control, Netns,
    https::{self, Body, full},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use crate::lab::{CONTROL, ENDPOINT, SERVICE};

pub struct Cluster {
    /// PEM of the CA of the API server.
    pub ca: String,
    /// That CA.
    pub api: Arc<Authority>,
    pub control: Arc<Control>,
    runtime: Runtime,
}

impl Cluster {
    /// An API server in `world`, and a control plane that begins with `netmap`.
    pub fn start(world: &Netns, netmap: Netmap) -> Self {
        let runtime =
            world.run(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
        let api = Arc::new(Authority::new("kubernetes"));
        let control = Control::new(netmap);
        let cluster = Self { ca: api.pem().to_owned(), api: Arc::clone(&api), control, runtime };
        for address in [SERVICE, ENDPOINT] {
            let ip = address.parse::<SocketAddr>().unwrap().ip().to_string();
            let answer = |request| async move { answer(&request) };
            let serving = https::serve(cluster.bind(address), api.leaf(&["kubernetes", &ip]), answer);
            cluster.runtime.spawn(serving);
        }
        cluster.runtime.spawn(Arc::clone(&cluster.control).serve(cluster.bind(CONTROL)));
        cluster
    }

    /// Made on a worker, whose namespace is the world.
    fn bind(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        let bound = self.runtime.spawn(async move { TcpListener::bind(address).await.unwrap() });
        self.runtime.block_on(bound).unwrap()
    }
}

/// Says which path was asked for and whether with a token.
fn answer(request: &Request<Incoming>) -> Response<Body> {
    let bearer = request.headers().get("authorization").map_or("nobody", |value| value.to_str().unwrap());
    Response::new(full(format!("{} for {bearer}", request.uri().path())))
}
