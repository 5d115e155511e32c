//! The proxy outside a pod, for trying it with real clients against a real API server.
//!
//! usage: loopback LISTEN API-SERVER CLUSTER-CA STATE-DIR [NETMAP]
//!
//! Listens on LISTEN (such as 127.0.0.1:7443), dials API-SERVER (such as 10.96.0.1:443) and trusts the PEM file
//! CLUSTER-CA. Clients have to trust STATE-DIR/ca.crt. NETMAP is a JSON file with a netmap; recorders in it are dialled
//! without a tunnel. Metrics are printed at the end, which SIGINT or SIGTERM brings.

use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::{FutureExt as _, future::BoxFuture};
use podwitness_core::inject::{Inject, UntilNetmap};
use podwitness_proxy::{
    BoxedStream, Dial, Intercepted, Owners, PodCa, PodIdentity, Proxy, ProxyConfig, Spool, Wiring, api_names,
};
use podwitness_runtime::{
    clock::{Clock as _, SystemClock},
    connection::ConnectionHandle,
    drain::{self, Drain},
    metrics::SharedRegistry,
    telemetry,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

struct Tcp;

impl Dial for Tcp {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxedStream>> {
        async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        }
        .boxed()
    }
}

struct Nobody;

impl Owners for Nobody {
    fn uid(&self, _: SocketAddr, _: SocketAddr) -> Option<u32> {
        None
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (listen, api_server, cluster_ca, state, netmap) = match args.as_slice() {
        [listen, api, ca, state] => (listen, api, ca, state, None),
        [listen, api, ca, state, netmap] => (listen, api, ca, state, Some(netmap)),
        _ => bail!("usage: loopback LISTEN API-SERVER CLUSTER-CA STATE-DIR [NETMAP]"),
    };
    telemetry::init("info,podwitness_proxy=debug", false)?;
    let state = PathBuf::from(state);
    let spool = Spool { dir: state.join("spool"), limit: 256 << 20, seals: None };
    fs::create_dir_all(&spool.dir)?;
    let pod_ca = PodCa::load_or_create(&state, &api_names("cluster.local"), SystemClock.now_unix())?;
    fs::write(state.join("ca.crt"), pod_ca.certificate_pem())?;
    let mut upstream_roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(cluster_ca)? {
        upstream_roots.add(certificate?)?;
    }
    let netmap = netmap
        .map(|file| anyhow::Ok(Arc::new(serde_json::from_str(&fs::read_to_string(file)?)?)))
        .transpose()?;
    let (signal, drain) = Drain::new();
    let wiring = Wiring {
        pod_ca,
        cluster_certificate: Arc::default(),
        upstream_roots,
        netmap: watch::Sender::new(Some(netmap.unwrap_or_default())).subscribe(),
        assertion: watch::Sender::new(None).subscribe(),
        upstream: Arc::new(Tcp),
        recorders: Arc::new(Tcp),
        owners: Arc::new(Nobody),
        notices: mpsc::channel(1).0,
        drain: drain.clone(),
        clock: Arc::new(SystemClock),
    };
    let listen: SocketAddr = listen.parse().context("LISTEN")?;
    let config = ProxyConfig {
        pod: PodIdentity { namespace: "loopback".into(), name: "loopback".into(), ..PodIdentity::default() },
        inject: Inject::Optional,
        until_netmap: UntilNetmap::Open,
        memory: 64 << 20,
        connections_memory: 1 << 30,
        spool: Some(spool),
        api_server: api_server.parse().context("API-SERVER")?,
        api_servers: vec![],
        listeners: vec![listen],
        cluster_domain: "cluster.local".into(),
    };
    let registry = SharedRegistry::new();
    let proxy = registry.with(|registry| Proxy::new(config, wiring, registry))?;
    let listener = TcpListener::bind(listen).await?;
    tokio::select! {
        accepted = accept(&proxy, &listener) => accepted?,
        () = drain::shutdown_signal() => {}
    }
    tracing::info!(drained = ?signal.drain(Duration::from_secs(5)).await, metrics = registry.encode()?, "done");
    Ok(())
}

async fn accept(proxy: &Arc<Proxy>, listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, client) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (proxy, original) = (Arc::clone(proxy), listener.local_addr()?);
        let connection = ConnectionHandle::uncounted();
        tokio::spawn(async move {
            proxy.serve(Intercepted { stream, client, original, connection }).await;
        });
    }
}
