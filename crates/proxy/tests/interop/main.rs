//! Other TLS libraries in their strictest mode accept the in-pod CA and its leaves, and refuse a name that is not
//! among them. Each speaks to a real listener.
#![cfg(test)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use podwitness_proxy::{PodCa, ServerNames, api_names, ca::Leaves};
use podwitness_runtime::clock::{Clock as _, SystemClock};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use tokio_rustls::TlsAcceptor;

const GOOD: [&str; 6] = [
    "kubernetes",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "api.example.net",
    "one.clusters.example.net",
];
const BAD: [&str; 2] = ["example.org", "kubernetes.example.org"];

/// A listener that serves leaves, and the CA's certificate in a file.
async fn listener(dir: &Path) -> (SocketAddr, PathBuf) {
    let now = SystemClock.now_unix();
    let ca = PodCa::load_or_create(dir, &api_names("cluster.local"), now).unwrap();
    let file = dir.join("ca.crt");
    std::fs::write(&file, ca.certificate_pem()).unwrap();
    let mut names: ServerNames = [IpAddr::from([10, 96, 0, 1])].into_iter().collect();
    ["api.example.net", "*.clusters.example.net"].into_iter().for_each(|name| names.add_name(name));
    let tls = Leaves::new(ca).unwrap().serving(&names, now).unwrap();
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = TlsAcceptor::from(tls.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = tls.accept(stream).await else { return };
                let _ = stream.write_all(b"hello\n").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, file)
}

/// Runs `client ADDRESS CA NAME` for every name; it must succeed for the good ones alone.
async fn accepts(client: impl Fn(&str, &Path, &str) -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let (address, ca) = listener(dir.path()).await;
    for (name, good) in GOOD.map(|name| (name, true)).into_iter().chain(BAD.map(|name| (name, false))) {
        let mut command = client(&address.to_string(), &ca, name);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.success(), good, "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs openssl"]
async fn openssl_accepts_the_leaf_in_strict_mode() {
    accepts(|address, ca, name| {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-connect", address, "-x509_strict", "-verify_return_error", "-CAfile"])
            .arg(ca);
        let check = if name.parse::<IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
        command.args([check, name]).stdin(std::process::Stdio::null());
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs python3"]
async fn python_accepts_the_leaf_in_strict_mode() {
    accepts(|address, ca, name| {
        let mut command = Command::new("python3");
        command.arg(source("verify.py")).arg(address).arg(ca).arg(name);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs go"]
async fn go_accepts_the_leaf() {
    accepts(|address, ca, name| {
        let mut command = Command::new("go");
        command.arg("run").arg(source("verify.go")).arg(address).arg(ca).arg(name);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs java"]
async fn java_accepts_the_leaf() {
    accepts(|address, ca, name| {
        let mut command = Command::new("java");
        command.arg(source("Verify.java")).arg(address).arg(ca).arg(name);
        command
    })
    .await;
}
