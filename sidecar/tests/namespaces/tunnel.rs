//! The tunnel's interface belongs to the sidecar: nothing else of the pod speaks into it or is reached through it.

use std::{io, net::UdpSocket, time::Duration};

use socket2::SockRef;

use crate::lab::{Lab, MARK, SERVICE, eventually, rules};

const POD: &str = "fd70:6f64:7769::1";
const RECORDER: &str = "fd70:6f64:7769::2";

/// A lab whose pod has an interface of the tunnel's name.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.pod.ip(&format!("link add podwitness0 type veth peer name tunnel netns {}", lab.world.name));
    for (netns, device, address) in [(&lab.pod, "podwitness0", POD), (&lab.world, "tunnel", RECORDER)] {
        netns.ip(&format!("addr add {address}/64 dev {device} nodad"));
        // As on WireGuard, nobody asks for neighbours; one link address at both ends takes their place.
        netns.ip(&format!("link set {device} address 02:00:00:00:00:01 arp off up"));
    }
    lab.install(&rules(), &[SERVICE]);
    lab
}

fn udp(address: &str, mark: Option<u32>) -> UdpSocket {
    let socket = UdpSocket::bind(format!("[{address}]:0")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark).unwrap();
    }
    socket
}

#[test]
#[ignore = "needs root and network namespaces"]
fn only_marked_packets_leave_through_the_tunnel() {
    let lab = lab();
    let recorder = lab.world.run(|| udp(RECORDER, None));
    let to = recorder.local_addr().unwrap();
    let (stranger, ours) = lab.pod.run(|| (udp(POD, None), udp(POD, Some(MARK))));
    assert_eq!(stranger.send_to(b"theirs", to).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    ours.send_to(b"ours", to).unwrap();
    let mut buffer = [0; 16];
    let (len, _) = recorder.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"ours");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn only_answers_come_in_through_the_tunnel() {
    let lab = lab();
    let (recorder, intruder) = lab.world.run(|| (udp(RECORDER, None), udp(RECORDER, None)));
    let ours = lab.pod.run(|| udp(POD, Some(MARK)));
    ours.send_to(b"question", recorder.local_addr().unwrap()).unwrap();
    recorder.recv_from(&mut [0; 16]).unwrap();
    // Both take the same wire, so that the answer comes second if both come.
    intruder.send_to(b"unasked", ours.local_addr().unwrap()).unwrap();
    recorder.send_to(b"answer", ours.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let (len, _) = ours.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"answer");
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_pod_is_no_router_into_the_tunnel() {
    let lab = lab();
    lab.pod.sysctl("net.ipv6.conf.all.forwarding", "1");
    lab.world.ip("addr add fd00:99::1/128 dev lo nodad");
    lab.world.ip("-6 route add fd70:6f64:7769::99/128 via fd00:10:244::5");
    lab.pod.ip("-6 route add fd70:6f64:7769::99/128 dev podwitness0");
    lab.pod.nft(&[
        "add table ip6 count; add chain ip6 count forward { type filter hook forward priority 10; }; \
         add rule ip6 count forward counter",
    ]);
    let sender = lab.world.run(|| udp("fd00:99::1", None));
    let pod = lab.pod.run(|| udp("fd00:10:244::5", None));
    pod.set_nonblocking(true).unwrap();
    // Both go the same way; the second arrives, so that the first was there before it.
    eventually("the pod is reached", || {
        sender.send_to(b"through", "[fd70:6f64:7769::99]:80").unwrap();
        sender.send_to(b"to", pod.local_addr().unwrap()).unwrap();
        pod.recv_from(&mut [0; 16]).is_ok()
    });
    let counted = lab.pod.nft(&["list", "table", "ip6", "count"]);
    assert!(counted.contains("packets 0 "), "{counted}");
}
