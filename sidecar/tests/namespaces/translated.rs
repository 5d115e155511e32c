//! A node that translates the API server's Service address in the socket, before any packet is made.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use podwitness_core::{
    control::Netmap,
    inject::{ADMIN_PORT, Inject, UntilNetmap},
};

use crate::{
    lab::{ENDPOINT, SERVICE, eventually},
    sidecar::{Pod, ask},
};

const TRANSLATE: &str = include_str!("translate.py");

/// An endpoint that the API server has later, on a port of its own.
const LATER: &str = "172.18.0.9:7443";

/// Tells the process of the inner test which cgroup is its own.
const CGROUP: &str = "PODWITNESS_TEST_CGROUP";

/// A cgroup without a process, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where this machine has no cgroups of version 2.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            matches!(fields[..], [_, _, "cgroup2", ..]).then(|| PathBuf::from(fields[1]))
        })?;
        let path = mount.join(format!("podwitness-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

/// Holds the translation of the Service's address into that of an endpoint, in place of the one before.
struct Translation(Child);

impl Translation {
    fn attach(cgroup: &Path, endpoint: &str) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", TRANSLATE]).arg(cgroup).args([SERVICE, endpoint]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "attached\n");
        Self(child)
    }
}

impl Drop for Translation {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root, network namespaces and python3"]
fn a_pod_starts_where_the_node_translates_and_control_is_away() {
    let Some(cgroup) = Cgroup::new() else { return };
    let _translation = Translation::attach(&cgroup.0, ENDPOINT);
    // A process of its own, because a cgroup is one of a process.
    let mut within = Command::new(env::current_exe().unwrap());
    within.args(["--ignored", "--exact", "translated::within_the_cgroup", "--nocapture"]);
    let output = within.env(CGROUP, &cgroup.0).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "a part of the test before it"]
fn within_the_cgroup() {
    let Ok(cgroup) = env::var(CGROUP) else { return };
    fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").unwrap();
    let pod = Pod::new(Netmap::default());
    pod.lab.world.ip("addr del 10.96.3.4/32 dev lo");
    let mut config = pod.config(Inject::Required);
    // Nothing says which endpoints there are.
    assert!(config.env.api_server.endpoints.is_empty());
    config.env.until_netmap = UntilNetmap::Open;
    let running = pod.start_with(config);
    let redirected = || pod.lab.pod.nft(&["list", "set", "inet", "podwitness", "api4"]);
    assert!(redirected().contains("172.18.0.2 . 6443"), "{}", redirected());
    // Clients are translated, too.
    let answer = pod.get(SERVICE, "/version").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A later proof meets another endpoint: it is redirected, and the rules are not to blame.
    let _endpoint = pod.lab.world.run(|| TcpListener::bind(LATER).unwrap());
    let _translation = Translation::attach(Path::new(&cgroup), LATER);
    eventually("another endpoint is redirected", || redirected().contains("172.18.0.9 . 7443"));
    let metrics = pod.lab.pod.run(|| ask("127.0.0.1", ADMIN_PORT, "/metrics"));
    for metric in ["podwitness_rules_repaired_total 0", "podwitness_interception 1"] {
        assert!(metrics.contains(metric), "{metrics}");
    }
    running.stop();
}
