//! Pods that expect a certificate of the cluster's CA: what clients see while there is one, and while there is none.

use std::sync::Arc;

use podwitness_core::{
    control::{Netmap, ServingNames},
    inject::{Inject, SidecarEnv},
    trust::Trust,
};
use podwitness_sidecar::config::Config;

use crate::{
    lab::{ENDPOINT, SERVICE, eventually},
    sidecar::{Pod, netmap},
};

/// That of a pod whose admission said that a certificate is to be expected.
fn config(pod: &Pod) -> Config {
    let config = pod.config(Inject::Required);
    Config { env: SidecarEnv { trust: Trust::Cluster, ..config.env }, ..config }
}

/// What a client that knows only the cluster's CA reads, as one with the kubelet's own volume.
fn ask(pod: &Pod) -> Result<String, String> {
    pod.get_trusting(pod.cluster.ca.as_bytes(), SERVICE, "/version")
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_client_that_trusts_only_the_clusters_ca_is_served_also_after_a_restart_without_a_control_plane() {
    let names = ServingNames { names: vec!["kubernetes".into()], addresses: vec![[10, 96, 0, 1].into()] };
    let pod = Pod::new(Netmap { serving: Some(names), ..netmap(1) });
    pod.cluster.control.signer.send_replace(Some(Arc::clone(&pod.cluster.api)));
    let running = pod.start_with(config(&pod));
    let answer = ask(&pod).unwrap();
    assert!(answer.ends_with("/version for Bearer t"), "{answer}");
    // The certificate is not for that address, and the in-pod CA serves.
    eventually("the endpoint is intercepted", || pod.get(ENDPOINT, "/version").is_ok());
    eventually("the netmap is kept", || pod.volume("state/netmap.json").exists());
    running.stop();
    pod.lab.world.ip("addr del 10.96.3.4/32 dev lo");
    let running = pod.start_with(config(&pod));
    assert!(ask(&pod).is_ok());
    running.stop();
}

/// The reason why admission replaces token volumes also where a certificate of the cluster's CA is to be expected.
#[test]
#[ignore = "needs root and network namespaces"]
fn while_there_is_no_certificate_only_clients_of_the_replaced_volume_get_through() {
    let pod = Pod::new(netmap(1));
    let running = pod.start_with(config(&pod));
    eventually("the in-pod CA serves", || pod.get(SERVICE, "/version").is_ok());
    let refused = ask(&pod).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    running.stop();
}
