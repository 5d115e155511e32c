use http_body_util::BodyExt as _;
use podwitness_core::control::{Notice, Taking};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::lab::{Lab, PATIENCE, RECORDER, RECORDER_V6, Sidecar, ask};

const CAST: &str = "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1700000000,\"podwitness\":{\"session\":\"s1\",\
                    \"cluster\":\"c-1\",\"namespace\":\"shop\",\"pod\":\"till\",\"podUID\":\"uid-till\"}}\n[1,\"o\",\"x\"]\n";

#[test]
#[ignore = "needs root and network namespaces"]
fn a_recording_goes_through_the_tunnel_to_a_file_under_its_pods_name() {
    let lab = Lab::new();
    lab.pod.block_on(async {
        let recorder = lab.ready().await;
        let sidecar = Sidecar::open(recorder).await;
        let (ours, other) = (lab.assertion(&sidecar.key), lab.assertion(&recorder));

        // A stranger is served nothing, and another's assertion does not help it.
        let mut sender = sidecar.connect().await;
        assert_eq!(ask(&mut sender, "HEAD", None, "").await.status(), 403);
        assert_eq!(ask(&mut sender, "POST", None, CAST).await.status(), 403);
        assert_eq!(ask(&mut sender, "POST", Some(&other), CAST).await.status(), 403);
        assert!(lab.casts().is_empty());

        let answer = ask(&mut sender, "POST", Some(&ours), CAST).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["podwitness-ack"], "process");
        let acks = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(acks.ends_with(format!("{{\"ack\":{}}}\n", CAST.len()).as_bytes()), "{acks:?}");
        assert_eq!(ask(&mut sender, "HEAD", None, "").await.status(), 200);
        // It is admitted, and still reads nothing.
        assert_eq!(ask(&mut sender, "GET", Some(&ours), "").await.status(), 405);

        let mut told = lab.control.told.subscribe();
        let well = Notice::Recorder(Taking::Accepting);
        timeout(PATIENCE, told.wait_for(|all| all.contains(&well)))
            .await
            .expect("it says what it takes")
            .unwrap();
    });
    let [cast] = lab.casts().try_into().unwrap();
    assert!(cast.ends_with("c-1/shop/till/s1.0.cast"), "{cast:?}");
    assert_eq!(std::fs::read_to_string(cast).unwrap(), CAST);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_restarted_recorder_keeps_its_key_and_takes_the_same_pod_again() {
    let mut lab = Lab::new();
    let first = lab.pod.block_on(async { lab.ready().await });
    assert!(lab.stop());
    lab.control.enrolled.send_replace(Vec::new());
    lab.start();
    lab.pod.block_on(async {
        assert_eq!(lab.ready().await, first);
        let sidecar = Sidecar::open(first).await;
        let assertion = lab.assertion(&sidecar.key);
        assert_eq!(ask(&mut sidecar.connect().await, "HEAD", Some(&assertion), "").await.status(), 200);
    });
}

#[test]
#[ignore = "needs root and network namespaces"]
fn nothing_but_health_answers_outside_the_tunnel() {
    let lab = Lab::new();
    let open = lab.pod.block_on(async {
        lab.ready().await;
        let mut open = Vec::new();
        for host in [RECORDER, RECORDER_V6] {
            for port in (1..=1024).chain([8080, 8081, 8443, 8444, 51820]) {
                if let Ok(Ok(_)) = timeout(PATIENCE, TcpStream::connect((host, port))).await {
                    open.push((host, port));
                }
            }
        }
        open
    });
    assert_eq!(open, [(RECORDER, 8080), (RECORDER_V6, 8080)]);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn whoever_reaches_the_tunnels_address_by_another_way_is_told_nothing() {
    let lab = Lab::new();
    let key = lab.pod.block_on(async { lab.ready().await });
    let address = podwitness_tunnel::address(&key);
    lab.pod.ip(&format!("-6 route add {address}/128 via {RECORDER_V6}"));
    lab.pod.block_on(async {
        let connected = timeout(PATIENCE, TcpStream::connect((address, 80))).await.unwrap();
        // Either the kernel does not let it in, or the recorder hangs up on it.
        let Ok(mut stream) = connected else { return };
        let _ = stream.write_all(b"HEAD /v2/record HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it hangs up");
        assert!(answer.is_empty(), "{answer:?}");
    });
}
