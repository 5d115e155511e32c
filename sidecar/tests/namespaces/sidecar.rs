//! The whole sidecar in a pod, with an API server and a control plane in its world.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, MutexGuard, mpsc},
    time::Duration,
};

use podwitness_core::{
    control::Netmap,
    inject::{
        ADMIN_PORT, ApiServerAddresses, ControlAddress, Credentials, Inject, PROBE_PORT, Profile,
        ServiceAccountDir, SidecarEnv, UntilNetmap,
    },
    trust::Trust,
};
use podwitness_lab::control::NAME;
use podwitness_proxy::PodIdentity;
use podwitness_runtime::tls;
use podwitness_sidecar::{
    api_server::ApiServer,
    app,
    config::{Config, Paths},
    kernel::Kernel,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::oneshot,
};
use tokio_rustls::TlsConnector;

use crate::{
    cluster::Cluster,
    lab::{CONTROL, ENDPOINT, Lab, SERVICE, eventually, listen, tunnel_turn},
};

/// A pod's volumes and, while it runs, its sidecar.
pub struct Pod {
    pub lab: Lab,
    pub cluster: Cluster,
    volumes: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A sidecar that runs until it is stopped or dropped.
pub struct Running {
    _runtime: Runtime,
    stop: oneshot::Sender<()>,
    ended: mpsc::Receiver<Result<(), String>>,
}

impl Pod {
    pub fn new(netmap: Netmap) -> Self {
        tls::install_provider();
        let turn = tunnel_turn();
        let lab = Lab::wired();
        let cluster = Cluster::start(&lab.world, netmap);
        let volumes = tempfile::tempdir().unwrap();
        for dir in ["state", "spool", "source", "serviceaccount", "bundle"] {
            fs::create_dir(volumes.path().join(dir)).unwrap();
        }
        let pod = Self { lab, cluster, volumes, _turn: turn };
        fs::write(pod.volume("token"), "ours").unwrap();
        for (name, content) in [("token", "theirs"), ("namespace", "shop"), ("ca.crt", &pod.cluster.ca)] {
            fs::write(pod.volume("source").join(name), content).unwrap();
        }
        pod
    }

    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes.path().join(name)
    }

    pub fn config(&self, inject: Inject) -> Config {
        let control: SocketAddr = CONTROL.parse().unwrap();
        let text = |name: &str| self.volume(name).to_str().unwrap().to_owned();
        Config {
            env: SidecarEnv {
                control: ControlAddress {
                    name: NAME.into(),
                    port: control.port(),
                    addresses: vec![control.ip()],
                },
                control_ca: self.cluster.control.root().to_owned(),
                until_netmap: UntilNetmap::Closed,
                inject,
                profile: Profile::Interface,
                credentials: Credentials::Passthrough,
                service_accounts: vec![ServiceAccountDir::new("app", text("source"), text("serviceaccount"))],
                log_level: "info".into(),
                spool_limit: 1 << 20,
                api_server: ApiServerAddresses::default(),
                ports: podwitness_core::inject::SidecarPorts::default(),
                declared_ports: vec![],
                grace_period: podwitness_core::inject::GRACE_PERIOD,
                trust: Trust::Pod,
            },
            pod: PodIdentity { namespace: "shop".into(), name: "till".into(), ..PodIdentity::default() },
            api_server: ApiServer { host: "10.96.0.1".into(), port: 443 },
            cluster_domain: "cluster.local".into(),
            paths: Paths {
                state: self.volume("state"),
                spool: self.volume("spool"),
                token: self.volume("token"),
                cluster_ca: vec![self.volume("nothing"), self.volume("source").join("ca.crt")],
                identity: self.volume("source"),
                bundle: self.volume("bundle"),
            },
        }
    }

    /// Starts a sidecar and waits until it is ready.
    pub fn start(&self, inject: Inject) -> Running {
        self.start_with(self.config(inject))
    }

    pub fn start_with(&self, config: Config) -> Running {
        // Threads of the runtime, and the privileged one, are made here and so are in the pod.
        let (runtime, kernel) = self.lab.pod.run(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            (runtime, Kernel::start().unwrap())
        });
        let ((stop, stopped), (say, ended)) = (oneshot::channel(), mpsc::sync_channel(1));
        let (ready, is_ready) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            let bound = app::bind(config, kernel, Arc::new(|_| Ok(()))).await.unwrap();
            let readiness = bound.readiness();
            let running = bound.run(async { drop(stopped.await) });
            let announced = async {
                readiness.ready().await;
                ready.send(()).unwrap();
                std::future::pending::<()>().await;
            };
            let outcome = tokio::select! { outcome = running => outcome, () = announced => Ok(()) };
            say.send(outcome.map_err(|error| error.to_string())).unwrap();
        });
        is_ready.recv_timeout(Duration::from_secs(60)).unwrap();
        Running { _runtime: runtime, stop, ended }
    }

    /// What a program in the pod reads from the API server at `to`, trusting the bundle that it finds.
    pub fn get(&self, to: &str, path: &str) -> Result<String, String> {
        self.get_trusting(&fs::read(self.volume("serviceaccount/ca.crt")).unwrap(), to, path)
    }

    /// The same, trusting the first certificate of a bundle of its own.
    pub fn get_trusting(&self, bundle: &[u8], to: &str, path: &str) -> Result<String, String> {
        self.lab.pod.run(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(get(to.parse().unwrap(), path, bundle)).map_err(|error| error.to_string())
        })
    }
}

impl Running {
    pub fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    }
}

/// Only the first certificate of the bundle is trusted: that of the in-pod CA.
async fn get(to: SocketAddr, path: &str, bundle: &[u8]) -> anyhow::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle).take(1).map(Result::unwrap));
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(to).await?;
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(ServerName::from(to.ip()), stream).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nAuthorization: Bearer t\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

pub fn netmap(generation: u64) -> Netmap {
    let api_servers = [SERVICE, ENDPOINT].map(|address| address.parse().unwrap()).into();
    Netmap { generation, cluster: "c".into(), api_servers, ..Netmap::default() }
}

/// Whether a socket of this thread's network namespace listens on that port, whatever its address (proc_pid_net(5)).
fn is_listening(port: u16) -> bool {
    let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    sockets
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|socket| matches!(socket[..], [_, address, _, "0A", ..] if address.ends_with(&local)))
}

fn has_table(lab: &Lab) -> bool {
    lab.pod.nft(&["list", "tables"]).contains("table inet podwitness")
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_ready_sidecar_serves_the_api_server_under_the_in_pod_ca() {
    let pod = Pod::new(netmap(1));
    let running = pod.start(Inject::Required);
    let answer = pod.get(SERVICE, "/version").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("/version for Bearer t"), "{answer}");
    // That address became known with the netmap.
    eventually("the endpoint is intercepted", || pod.get(ENDPOINT, "/version").is_ok());
    assert_eq!(pod.cluster.control.enrolled.borrow().len(), 1);
    running.stop();
    assert!(has_table(&pod.lab), "rules stay when the sidecar ends");
    assert!(pod.get(SERVICE, "/version").is_err(), "a dead sidecar refuses");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_restart_keeps_ca_key_and_netmap_and_needs_no_control_plane() {
    let pod = Pod::new(netmap(1));
    let running = pod.start(Inject::Required);
    eventually("the netmap is kept", || pod.volume("state/netmap.json").exists());
    running.stop();
    let bundle = fs::read(pod.volume("serviceaccount/ca.crt")).unwrap();
    assert_eq!(fs::read(pod.volume("bundle/ca.crt")).unwrap(), bundle);
    let key = fs::read(pod.volume("state/tunnel.key")).unwrap();
    pod.lab.world.ip("addr del 10.96.3.4/32 dev lo");
    let running = pod.start(Inject::Required);
    assert!(pod.get(SERVICE, "/version").is_ok());
    assert!(pod.get(ENDPOINT, "/version").is_ok());
    for file in ["serviceaccount/ca.crt", "bundle/ca.crt"] {
        assert_eq!(fs::read(pod.volume(file)).unwrap(), bundle, "{file}");
    }
    assert_eq!(fs::read(pod.volume("state/tunnel.key")).unwrap(), key);
    running.stop();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_netmap_that_loses_an_address_lets_it_go() {
    let pod = Pod::new(netmap(1));
    let running = pod.start(Inject::Required);
    eventually("the endpoint is intercepted", || pod.get(ENDPOINT, "/version").is_ok());
    pod.cluster.control.publish(Netmap { api_servers: vec![SERVICE.parse().unwrap()], ..netmap(2) });
    eventually("the endpoint is let go", || {
        // Past the sidecar, the API server shows its own certificate, which the in-pod CA did not sign.
        pod.get(ENDPOINT, "/version").is_err_and(|error| error.contains("certificate"))
    });
    running.stop();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn in_an_optional_pod_a_dead_sidecar_opens() {
    let pod = Pod::new(netmap(1));
    let running = pod.start(Inject::Optional);
    assert!(pod.get(SERVICE, "/version").is_ok());
    running.stop();
    eventually("elements expire", || {
        pod.get(SERVICE, "/version").is_err_and(|error| error.contains("certificate"))
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn in_a_required_pod_a_dead_sidecar_refuses_whatever_the_grant() {
    let pod = Pod::new(netmap(1));
    for until_netmap in [UntilNetmap::Open, UntilNetmap::Closed, UntilNetmap::ClosedToAll] {
        for credentials in [Credentials::Passthrough, Credentials::Sealed] {
            let mut config = pod.config(Inject::Required);
            (config.env.until_netmap, config.env.credentials) = (until_netmap, credentials);
            pod.start_with(config).stop();
            let rules = pod.lab.pod.nft(&["list", "ruleset"]);
            assert!(rules.contains("10.96.0.1 . 443") && !rules.contains("timeout"), "{rules}");
            let refused = pod.get(SERVICE, "/version").unwrap_err();
            assert!(!refused.contains("certificate"), "{until_netmap:?}, {credentials:?}: {refused}");
        }
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn an_optional_pod_starts_without_interception_where_it_cannot_be_had() {
    let pod = Pod::new(netmap(1));
    pod.lab.pod.nft(&[crate::proof::IN_FRONT]);
    let running = pod.start(Inject::Optional);
    assert!(pod.get(SERVICE, "/version").is_err_and(|error| error.contains("certificate")));
    running.stop();
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_port_is_another_one_at_each_start_and_that_of_a_dead_sidecar_is_of_no_use() {
    let pod = Pod::new(netmap(1));
    pod.start(Inject::Required).stop();
    let first = redirects_to(&pod.lab);
    // A child of another test has a copy of the sockets between its fork and its exec.
    eventually("the port is free", || pod.lab.pod.run(|| !is_listening(first)));
    assert!(pod.get(SERVICE, "/version").is_err(), "it refuses");
    // What is left of its connections keeps others from the port of IPv4 for a minute.
    let taken = pod.lab.pod.run(|| listen(SocketAddr::new("::1".parse().unwrap(), first), 0));
    let running = pod.start(Inject::Required);
    assert!(pod.get(SERVICE, "/version").is_ok());
    let second = redirects_to(&pod.lab);
    assert_ne!(second, first);
    // Who comes to the port by itself means the API server.
    assert!(pod.get(&format!("127.0.0.1:{second}"), "/version").unwrap().starts_with("HTTP/1.1 200"));
    running.stop();
    drop(taken);
}

/// What is answered to a plain GET from this thread's network namespace.
pub fn ask(to: &str, port: u16, path: &str) -> String {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let mut stream = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
#[ignore = "needs root and network namespaces"]
fn programs_that_hold_its_other_ports_do_not_keep_a_sidecar_from_starting() {
    let pod = Pod::new(netmap(1));
    let is_found = || {
        for (netns, addresses) in [
            (&pod.lab.world, &["10.244.0.5", "fd00:10:244::5"][..]),
            (&pod.lab.pod, &["10.244.0.5", "127.0.0.1", "fd00:10:244::5", "::1"]),
        ] {
            for to in addresses {
                let metrics = netns.run(|| ask(to, ADMIN_PORT, "/metrics"));
                assert!(metrics.contains("podwitness_interception"), "{to}: {metrics}");
                let ready = netns.run(|| ask(to, PROBE_PORT, "/readyz"));
                assert!(ready.starts_with("HTTP/1.1 200 "), "{to}: {ready}");
            }
        }
    };
    let ports = [ADMIN_PORT, PROBE_PORT];
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let taken = ports.map(|port| pod.lab.pod.run(|| listen(any(port), 0)));
    let running = pod.start(Inject::Required);
    is_found();
    assert!(pod.get(SERVICE, "/version").is_ok());
    running.stop();
    drop(taken);
    for port in ports {
        eventually("the port is free", || pod.lab.pod.run(|| !is_listening(port)));
    }
    let running = pod.start(Inject::Required);
    is_found();
    let rules = pod.lab.pod.nft(&["list", "table", "inet", "podwitness"]);
    assert!(!rules.contains("chain arrival"), "{rules}");
    running.stop();
}

/// The port to which the pod's rules lead.
fn redirects_to(lab: &Lab) -> u16 {
    let rules = lab.pod.nft(&["list", "chain", "inet", "podwitness", "output"]);
    let (_, port) = rules.split_once("127.0.0.1:").unwrap();
    port.split_whitespace().next().unwrap().parse().unwrap()
}
