//! The rules that the init containers of meshes write, before ours and after them, by either backend of iptables.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use podwitness_core::inject::PROBE_PORT;
use podwitness_lab::{
    Netns,
    meshes::{MESHES, Mesh},
};

use crate::lab::{
    ENDPOINT, Lab, Landed, MARK, OTHER, SERVICE, SERVICE_V6, at_sidecar, eventually, rules, targets,
};

const ALL: [&str; 3] = [SERVICE, SERVICE_V6, ENDPOINT];

/// The backends of iptables that this kernel has: it may be built without the older one.
fn backends() -> Vec<&'static str> {
    let netns = Netns::new("backends");
    let has = |backend: &&str| {
        let program = format!("iptables-{backend}");
        let list = ["netns", "exec", &netns.name, &program, "-t", "nat", "-L"];
        *backend == "nft" || Command::new("ip").args(list).output().unwrap().status.success()
    };
    ["nft", "legacy"].into_iter().filter(has).collect()
}

/// Writes rules in both families, as a mesh's init container does.
fn restore(lab: &Lab, backend: &str, mesh: &Mesh) {
    for (program, rules) in [("iptables", mesh.rules), ("ip6tables", mesh.rules_v6().as_str())] {
        let program = format!("{program}-{backend}-restore");
        let mut child = Command::new("ip")
            .args(["netns", "exec", &lab.pod.name, &program])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {error}");
    }
}

fn comes_to_us_past_the_mesh(lab: &Lab, what: &str) {
    for address in ALL {
        assert_eq!(lab.lands(address, None), at_sidecar(address), "{what}");
        assert_eq!(lab.lands(address, Some(MARK)), Landed::World, "{what}: {address} by ourselves");
    }
    // The mesh's own proxy is not there.
    assert!(lab.connect(OTHER, None).is_err(), "{what}: what is the mesh's stays the mesh's");
}

#[test]
#[ignore = "needs root, network namespaces and iptables"]
fn the_api_servers_traffic_is_ours_beside_every_mesh_in_either_order() {
    for mesh in &MESHES {
        let name = mesh.name;
        for backend in backends() {
            let after = Lab::new();
            after.install(&rules(), &ALL);
            restore(&after, backend, mesh);
            comes_to_us_past_the_mesh(&after, &format!("{name} after us, {backend}"));
            after.rules(|socket| rules().refresh(socket, &targets(&ALL)).unwrap());
            comes_to_us_past_the_mesh(&after, &format!("{name} after us, renewed, {backend}"));

            let before = Lab::new();
            restore(&before, backend, mesh);
            assert!(
                before.connect(SERVICE, None).is_err(),
                "{name}, {backend}: the mesh takes it without us"
            );
            before.install(&rules(), &ALL);
            comes_to_us_past_the_mesh(&before, &format!("{name} before us, {backend}"));
        }
    }
}

/// Answers one word to each client of a port of the pod.
fn answer(lab: &Lab, port: u16, word: &'static str) {
    let listener = lab.pod.run(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.write_all(word.as_bytes()));
        }
    });
}

#[test]
#[ignore = "needs root, network namespaces and iptables"]
fn a_mesh_does_not_take_the_kubelets_probe_of_the_sidecar() {
    for mesh in &MESHES {
        for backend in backends() {
            let lab = Lab::new();
            for (port, word) in [(mesh.inbound, "mesh"), (PROBE_PORT, "sidecar"), (8000, "app")] {
                answer(&lab, port, word);
            }
            lab.install(&rules(), &ALL);
            restore(&lab, backend, mesh);
            let comes = |port: u16| {
                lab.world.run(|| {
                    let mut word = String::new();
                    let mut stream = TcpStream::connect(("10.244.0.5", port)).unwrap();
                    stream.read_to_string(&mut word).unwrap();
                    word
                })
            };
            assert_eq!(
                (comes(PROBE_PORT).as_str(), comes(8000).as_str()),
                ("sidecar", "mesh"),
                "{}, {backend}",
                mesh.name
            );
        }
    }
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_sidecar_repairs_what_an_init_container_has_done_to_its_rules() {
    let pod = crate::sidecar::Pod::new(crate::sidecar::netmap(1));
    let running = pod.start(podwitness_core::inject::Inject::Required);
    assert!(pod.get(SERVICE, "/version").is_ok());
    for done in [
        // What is left of the table takes renewals.
        "flush chain inet podwitness output",
        "delete table inet podwitness",
        "flush ruleset",
    ] {
        pod.lab.pod.nft(&[done]);
        eventually(done, || pod.get(SERVICE, "/version").is_ok());
    }
    // What stands in front of the rules is not repaired; once it is gone, connections come again.
    pod.lab.pod.nft(&[crate::proof::IN_FRONT]);
    assert!(pod.get(SERVICE, "/version").is_err());
    pod.lab.pod.nft(&["delete table ip front"]);
    eventually("nothing stands in front", || pod.get(SERVICE, "/version").is_ok());
    running.stop();
}
