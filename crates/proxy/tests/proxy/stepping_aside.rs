//! Where injection is optional, interception steps aside for a client that does not take our certificate, and for no
//! other.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::Response;
use podwitness_core::{
    control::{Netmap, Notice},
    grant::Grant,
    inject::Inject,
};
use rustls::RootCertStore;
use tokio::io::DuplexStream;

use crate::harness::*;

/// An API server at an address of its own, which is listed.
const OTHER: &str = "192.0.2.9:6443";

struct Distrusting {
    pod: Pod,
    /// What a client has to trust.
    trusted: RootCertStore,
}

/// A pod in which user 1000 has just refused the certificate of the Service under the name `kubernetes`.
async fn distrusting(inject: Inject, grants: &[Grant]) -> Distrusting {
    let mut setup = Setup::new(Server::new(|_| async { Response::new(full("api")) }));
    setup.inject = inject;
    let api_servers = vec![OTHER.parse().unwrap()];
    setup.netmap = Some(Netmap { grants: grants.to_vec().into(), api_servers, ..Netmap::default() });
    setup.also = vec![OTHER.parse().unwrap()];
    let pod = setup.start();
    let trusted = pod.client_roots.clone();
    let mut distrusting = Distrusting { pod, trusted };
    distrusting.refuses(SERVICE, "kubernetes", &[]).await;
    eventually(|| distrusting.outcome("Handshake") == 1).await;
    distrusting
}

impl Distrusting {
    /// A client that trusts no certificate.
    async fn refuses(&mut self, to: &str, name: &str, alpn: &[&[u8]]) {
        self.pod.client_roots = RootCertStore::empty();
        self.pod.tls_with(to, name, alpn).await.unwrap_err();
        self.pod.client_roots = self.trusted.clone();
    }

    fn outcome(&self, outcome: &str) -> u64 {
        self.pod.metric(&format!("connections_total{{outcome=\"{outcome}\"}}"))
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_client_passes_from_then_on() {
    let mut it = distrusting(Inject::Optional, &[grant(false)]).await;
    it.refuses(SERVICE, "kubernetes", &[]).await;
    eventually(|| it.outcome("Distrusted") == 1).await;
    assert_eq!(it.outcome("Handshake"), 1);
    assert_eq!(it.pod.noticed.try_recv(), Ok(Notice::SteppedAside));
}

#[tokio::test(start_paused = true)]
async fn every_other_client_is_terminated_as_before() {
    let mut it = distrusting(Inject::Optional, &[grant(false)]).await;
    let mut open = Vec::new();
    for (what, user, to, name, alpn) in [
        ("another user", 1001, SERVICE, "kubernetes", &[][..]),
        ("another name", 1000, SERVICE, "kubernetes.default", &[]),
        ("no name", 1000, SERVICE, "10.96.0.1", &[]),
        ("another program", 1000, SERVICE, "kubernetes", &[&b"h2"[..]]),
        ("another server", 1000, OTHER, "kubernetes", &[]),
    ] {
        it.pod.user = user;
        let tls = it.pod.tls_with(to, name, alpn).await;
        open.push(tls.unwrap_or_else(|error| panic!("{what}: {error}")));
    }
    eventually(|| it.outcome("Terminated") == 5).await;
    assert_eq!(it.outcome("Distrusted"), 0);
}

#[tokio::test(start_paused = true)]
async fn where_injection_is_required_or_a_grant_enforces_nothing_passes() {
    for (inject, grants, outcome, count) in
        [(Inject::Required, [grant(false)], "Handshake", 2), (Inject::Optional, [grant(true)], "Refused", 1)]
    {
        let mut it = distrusting(inject, &grants).await;
        it.refuses(SERVICE, "kubernetes", &[]).await;
        eventually(|| it.outcome(outcome) == count).await;
        assert_eq!(it.outcome("Distrusted"), 0);
        assert_eq!(it.pod.noticed.try_recv(), Ok(Notice::CertificateRefused));
    }
}

/// What a client was let pass for says nothing of whether it takes our certificate.
#[tokio::test(start_paused = true)]
async fn a_client_that_passes_for_another_reason_makes_nothing_step_aside() {
    let mut setup = Setup::new(Server::new(|_| async { Response::new(full("api")) }));
    setup.inject = Inject::Optional;
    let held = Arc::new(Mutex::new(Vec::new()));
    setup.elsewhere = Some(Arc::new(move |_: SocketAddr, far: DuplexStream| held.lock().unwrap().push(far)));
    let pod = setup.start();
    let mut tcp = pod.tcp("192.0.2.7:6443");
    tokio::io::AsyncWriteExt::write_all(&mut tcp, &hello("example.org")).await.unwrap();
    eventually(|| pod.metric("connections_total{outcome=\"Unclear\"}") == 1).await;
    let _tls = pod.tls_with(SERVICE, "kubernetes", &[]).await.unwrap();
    assert_eq!(pod.metric("connections_total{outcome=\"Distrusted\"}"), 0);
}
