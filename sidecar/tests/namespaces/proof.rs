//! The proof of interception: it holds where connections land at our listener, and fails where they pass us by.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use podwitness_runtime::{connection::ConnectionLimiter, quota::QuotaMetrics};
use podwitness_sidecar::{
    kernel::{
        Kernel,
        rules::Rules,
        selftest::{Probe, SelftestError},
    },
    listen::Listener,
    memory::places,
};
use tokio::runtime::Builder;

use crate::lab::{Lab, SERVICE, rules, targets};

/// A table in front of ours that ends translation for the API server's address, as a socket load balancer would.
pub const IN_FRONT: &str = "add table ip front; add chain ip front output { type nat hook output priority -102; }; \
                            add rule ip front output ip daddr 10.96.0.1 dnat to ip daddr";

/// With rules that redirect to the listener, or none.
fn prove(lab: &Lab, redirected: bool) -> Result<SocketAddr, SelftestError> {
    lab.pod.run(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kernel = Kernel::start().unwrap();
            let (listener, probe) =
                (Listener::bind(&kernel, vec![]).await.unwrap(), Arc::new(Probe::default()));
            if redirected {
                let rules = Rules { mark: kernel.mark(), listener: listener.port(), ..rules() };
                kernel.install(Arc::new(rules), Arc::new(targets(&[SERVICE]))).await.unwrap();
            }
            let limiter = ConnectionLimiter::with(places(0), QuotaMetrics::default());
            let handle = |_| std::future::ready(());
            tokio::select! {
                protected = probe.run(SERVICE.parse().unwrap()) => protected,
                () = listener.serve(limiter, Arc::clone(&probe), std::future::pending, handle) => {
                    panic!("the listener has ended")
                }
            }
        })
    })
}

#[test]
#[ignore = "needs root and network namespaces"]
fn the_listener_takes_no_port_that_a_container_declares() {
    let lab = Lab::wired();
    // Linux draws odd ports for listeners, as long as there are any.
    let declared: Vec<u16> = (0..=u16::MAX).filter(|port| port % 4 == 1).collect();
    let port = lab.pod.run(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kernel = Kernel::start().unwrap();
            Listener::bind(&kernel, declared).await.unwrap().port()
        })
    });
    assert_ne!(port % 4, 1);
}

#[test]
#[ignore = "needs root and network namespaces"]
fn interception_is_proven_where_it_works_and_only_there() {
    let lab = Lab::wired();
    let _server = lab.world.run(|| TcpListener::bind(SERVICE).unwrap());
    let bypassed = prove(&lab, false);
    assert!(matches!(bypassed, Err(SelftestError::Bypassed { translated: None, .. })), "no rules yet");
    assert_eq!(prove(&lab, true).unwrap(), SERVICE.parse().unwrap());
    lab.pod.nft(&[IN_FRONT]);
    // Past the listener, but not past the filter of frames: nothing leaves the pod unrecorded.
    assert!(matches!(prove(&lab, true), Err(SelftestError::Connect { .. })));
}
