//! A recorder at a public address, and clusters that share it, each behind a router that masquerades.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use podwitness_core::control::Netmap;
use podwitness_lab::{Control, Netns};
use podwitness_tunnel::{PrivateKey, PublicKey};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::lab::{PATIENCE, Sidecar, ask, find, get};

const PUBLIC: &str = "198.51.100.1";
const ENDPOINT: &str = "198.51.100.1:51820";
/// Both clusters use these, and know nothing of each other.
const POD: &str = "10.1.0.2";
const ROUTER: &str = "10.1.0.1";

/// The recorder and the net before it.
struct Outside {
    net: Netns,
    dir: TempDir,
    child: Child,
    key: PublicKey,
    manifest: String,
}

/// A cluster with one pod.
struct Cluster {
    control: Arc<Control>,
    router: Netns,
    pod: Netns,
}

impl Outside {
    fn new(clusters: &[&Cluster]) -> Self {
        let net = Netns::new("net");
        net.ip("link add net0 type bridge");
        net.ip(&format!("addr add {PUBLIC}/24 dev net0"));
        net.ip("link set net0 up");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        write(&dir, clusters);
        let mut child = start(&net, &dir);
        let manifest = printed(child.stdout.take().unwrap());
        let key = manifest.lines().find_map(|line| line.trim().strip_prefix("publicKey: "));
        let key = key.unwrap().parse().unwrap();
        Self { net, dir, child, key, manifest }
    }

    /// Brings a router onto the net, under the last number of its address there.
    fn connect(&self, cluster: &Cluster, number: u8) {
        let port = format!("port{number}");
        cluster.router.ip(&format!("link add out type veth peer name {port} netns {}", self.net.name));
        cluster.router.ip(&format!("addr add 198.51.100.{number}/24 dev out"));
        cluster.router.ip("link set out up");
        self.net.ip(&format!("link set {port} master net0 up"));
    }

    fn is_ready(&self) {
        self.net.block_on(async {
            let ready = async {
                while get("127.0.0.1:8080".parse().unwrap(), "/readyz")
                    .await
                    .is_none_or(|(code, _)| code != 200)
                {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, ready).await.expect("the recorder becomes ready");
        });
    }

    /// Kills it and starts it again.
    fn again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = start(&self.net, &self.dir);
    }

    fn metrics(&self) -> String {
        self.net.block_on(async { get("127.0.0.1:8080".parse().unwrap(), "/metrics").await.unwrap().1 })
    }

    fn casts(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find(&self.dir.path().join("recordings"), &mut found);
        found.sort();
        found
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Cluster {
    fn new(id: &str) -> Self {
        let (router, pod) = (Netns::new("rt"), Netns::new("pod"));
        pod.ip(&format!("link add eth0 type veth peer name in netns {}", router.name));
        for (netns, address, device) in [(&pod, POD, "eth0"), (&router, ROUTER, "in")] {
            netns.ip(&format!("addr add {address}/24 dev {device}"));
            netns.ip(&format!("link set {device} up"));
        }
        pod.ip(&format!("route add default via {ROUTER}"));
        router.sysctl("net.ipv4.ip_forward", "1");
        router
            .nft(&["add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; \
             add rule ip nat post oifname out counter masquerade"]);
        // Nothing that was not asked for comes in.
        router.nft(&[
            "add table ip edge; add chain ip edge passing { type filter hook forward priority 0; }; \
             add rule ip edge passing iifname out ct state new drop",
        ]);
        Self { control: Control::of(id, Netmap::default()), router, pod }
    }

    /// Records as this cluster's pod with the assertion that `asserting` signs for its key: the status.
    fn records(&self, recorder: PublicKey, asserting: impl Fn(&PublicKey) -> Option<String> + Sync) -> u16 {
        self.pod.block_on(async {
            let sidecar = Sidecar::open_at(recorder, ENDPOINT).await;
            let assertion = asserting(&sidecar.key);
            let answer = ask(&mut sidecar.connect().await, "POST", assertion.as_deref(), &self.cast()).await;
            let status = answer.status().as_u16();
            // To its end, so that what was sent is in the store.
            let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
            let _ = sidecar.tunnel.close().await;
            status
        })
    }

    fn cast(&self) -> String {
        let header = serde_json::json!({"version": 2, "width": 80, "height": 24, "timestamp": 1_700_000_000,
            "podwitness": {"session": "s1", "cluster": self.control.cluster(), "namespace": "shop", "pod": "till",
                "podUID": "uid-till"}});
        format!("{header}\n[1,\"o\",\"of {}\"]\n", self.control.cluster())
    }
}

fn write(dir: &TempDir, clusters: &[&Cluster]) {
    let entries: Vec<_> = clusters.iter().map(|cluster| cluster.control.entry("vault")).collect();
    fs::write(dir.path().join("join.json"), serde_json::to_vec(&entries).unwrap()).unwrap();
}

fn start(net: &Netns, dir: &TempDir) -> Child {
    let path = |name: &str| dir.path().join(name);
    Command::new("ip")
        .args(["netns", "exec", &net.name, env!("CARGO_BIN_EXE_podwitness-recorder"), "ingest", "--join"])
        .arg(path("join.json"))
        .env("PODWITNESS_STATE", path("state"))
        .env("PODWITNESS_STORE", path("recordings"))
        .env("PODWITNESS_ENDPOINT", ENDPOINT)
        .env("PODWITNESS_DRAIN", "1s")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The manifest, which ends with the endpoint.
fn printed(stdout: ChildStdout) -> String {
    let mut text = String::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.unwrap();
        text += &line;
        text.push('\n');
        if line.contains("endpoint:") {
            break;
        }
    }
    text
}

#[test]
#[ignore = "needs root and network namespaces"]
fn two_clusters_share_a_recorder_outside_and_a_third_is_served_nothing() {
    let (one, two, foreign) = (Cluster::new("c-one"), Cluster::new("c-two"), Cluster::new("c-foreign"));
    let outside = Outside::new(&[&one, &two]);
    for (cluster, number) in [(&one, 2), (&two, 3), (&foreign, 4)] {
        outside.connect(cluster, number);
    }
    outside.is_ready();
    assert!(outside.manifest.contains(&format!("endpoint: \"{ENDPOINT}\"")), "{}", outside.manifest);

    // A stranger, and whoever borrows the assertion of another key, are served nothing.
    let someone = PrivateKey::generate().unwrap().public();
    assert_eq!(one.records(outside.key, |_| None), 403);
    assert_eq!(two.records(outside.key, |_| Some(one.control.assertion(&someone.to_string()))), 403);
    assert_eq!(foreign.records(outside.key, |key| Some(foreign.control.assertion(&key.to_string()))), 403);
    assert!(outside.casts().is_empty());
    let metrics = outside.metrics();
    assert!(metrics.contains("podwitness_recorder_refused_total{reason=\"unknown_issuer\"} 1"), "{metrics}");

    for cluster in [&one, &two] {
        assert_eq!(
            cluster.records(outside.key, |key| Some(cluster.control.assertion(&key.to_string()))),
            200
        );
        let counted = cluster.router.nft(&["list", "table", "ip", "nat"]);
        assert!(!counted.contains("packets 0 "), "nothing was masqueraded: {counted}");
    }
    let casts = outside.casts();
    for (cast, cluster) in casts.iter().zip([&one, &two]) {
        assert!(cast.ends_with(format!("{}/shop/till/s1.0.cast", cluster.control.cluster())), "{cast:?}");
        assert_eq!(fs::read_to_string(cast).unwrap(), cluster.cast());
    }
    assert_eq!(casts.len(), 2);

    // A cluster joins and another leaves while the recorder runs.
    write(&outside.dir, &[&one, &foreign]);
    let begun = Instant::now();
    while foreign.records(outside.key, |key| Some(foreign.control.assertion(&key.to_string()))) != 200 {
        assert!(begun.elapsed() < PATIENCE, "the join file is not read again");
    }
    assert_eq!(two.records(outside.key, |key| Some(two.control.assertion(&key.to_string()))), 403);
    assert_eq!(outside.casts().len(), 3);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recorder_that_was_killed_is_reached_by_the_first_dial_to_the_next() {
    let cluster = Cluster::new("c-one");
    let mut outside = Outside::new(&[&cluster]);
    outside.connect(&cluster, 2);
    outside.is_ready();
    cluster.pod.block_on(async {
        let sidecar = Sidecar::open_at(outside.key, ENDPOINT).await;
        drop(sidecar.connect().await);
        outside.again();
        outside.is_ready();
        // No netmap says that it is another process, and WireGuard would see it after 15 s. A sidecar waits for 5 s.
        timeout(Duration::from_secs(5), sidecar.connect()).await.expect("it is reached");
    });
}
