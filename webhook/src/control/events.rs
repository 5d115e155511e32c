//! Events on pods, and what they say.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType},
};
use podwitness_core::control::{Notice, Taking};

use super::{certificates::CertificateError, pod::Pod, registry::Claimed};
pub use crate::events::Publisher;
use crate::events::{self, EventQueue};

const REPORTER: &str = "podwitness-control";

/// Where Events are handed in. Clones are the same.
#[derive(Clone, Debug)]
pub struct Events(EventQueue);

/// Both ends.
#[must_use]
pub fn channel(client: Client) -> (Events, Publisher) {
    let (queue, publisher) = events::channel(client, REPORTER);
    (Events(queue), publisher)
}

impl Events {
    /// The pod has another key than before.
    pub fn key_replaced(&self, pod: &Pod, how: Claimed) {
        let note = match how {
            Claimed::NewSandbox => "the pod enrolled another tunnel key in a new sandbox",
            _ => "the pod enrolled another tunnel key and proved to hold the one before",
        };
        self.hand_in(EventType::Normal, "TunnelKeyReplaced", "Enrol", note, pod);
    }

    /// Somebody with the pod's token wanted another key to be the pod's.
    pub fn key_refused(&self, pod: &Pod) {
        let note = "a second tunnel key was refused; a container that holds the pod's podwitness.dev token asked for it";
        self.hand_in(EventType::Warning, "TunnelKeyRefused", "Enrol", note, pod);
    }

    /// What the pod says of itself.
    pub fn noticed(&self, pod: &Pod, notice: Notice) {
        let (type_, reason, note) = in_words(notice);
        self.hand_in(type_, reason, "Record", &note, pod);
    }

    /// The pod's sidecar asked for a certificate of the cluster's CA and gets none.
    pub fn no_certificate(&self, pod: &Pod, error: &CertificateError) {
        let note = format!(
            "this pod's witness gets no certificate of the cluster's CA, so that clients which trust only that CA do not trust it: {error}"
        );
        self.hand_in(EventType::Warning, "NoClusterCertificate", "Certify", &note, pod);
    }

    fn hand_in(&self, type_: EventType, reason: &str, action: &str, note: &str, pod: &Pod) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        self.0.hand_in(event, reference(pod));
    }
}

/// Type, reason and text of an Event.
#[expect(clippy::too_many_lines, reason = "a table")]
fn in_words(notice: Notice) -> (EventType, &'static str, Cow<'static, str>) {
    let (type_, reason, note) = match notice {
        Notice::CertificateRefused => (
            EventType::Warning,
            "CertificateRefused",
            "a client does not trust the certificate of this pod's witness and cannot reach the API server. Its kubeconfig trusts this pod after: cluster=$(kubectl config view --minify -o 'jsonpath={.contexts[0].context.cluster}'); kubectl config set-cluster \"$cluster\" --certificate-authority=/var/run/podwitness/ca/ca.crt. Other clients read that file in place of a CA of their own. With the option trust: cluster of the installation there is nothing to change",
        ),
        Notice::SteppedAside => (
            EventType::Warning,
            "PassesUnrecorded",
            "a client does not trust the certificate of this pod's witness, so that what it sends to this address of the API server passes unrecorded for 10 minutes: let it read certificate-authority /var/run/podwitness/ca/ca.crt (kubectl config set-cluster NAME --certificate-authority=/var/run/podwitness/ca/ca.crt), or label the namespace podwitness.dev/inject=required",
        ),
        Notice::NoGrant => (
            EventType::Normal,
            "NoGrant",
            "a session passed unrecorded, because no Grant asks for a recording of it",
        ),
        Notice::Bypassed => (
            EventType::Warning,
            "RecordingSuspended",
            "connections pass unrecorded, because the namespace has the annotation podwitness.dev/bypass-until",
        ),
        Notice::SpoolTampered => (
            EventType::Warning,
            "SpoolTampered",
            "lines of recordings that waited for a recorder were changed or removed on the node's disk: the recordings have a gap with reason tampered in their place, unless all of one is gone; the log of container podwitness names them",
        ),
        Notice::SpoolShareFull => (
            EventType::Warning,
            "SpoolShareFull",
            "a recording or the API events wait for a recorder and have used up their share of this pod's spool: what comes is left out, and counted in a gap; others are not affected",
        ),
        Notice::TooManyRecordings => (
            EventType::Warning,
            "TooManyRecordings",
            "4096 recordings of this pod are open or wait for a recorder: under fail open further sessions pass unrecorded, under fail closed they are refused",
        ),
        Notice::ConnectionsExhausted => (
            EventType::Warning,
            "ConnectionsExhausted",
            "clients of this pod have more connections to the API server open than its witness has places or memory for: idle ones are ended for new ones, and where all are in use new ones and requests are refused; a client may leak connections, or the pod needs podwitness.dev/memory-limit",
        ),
        Notice::UpstreamExhausted => (
            EventType::Warning,
            "UpstreamExhausted",
            "requests of this pod are refused with 503, because all connections of its witness to the API server are in use, or all that one credential may have; their number grows with podwitness.dev/memory-limit",
        ),
        Notice::EventsDropped => (
            EventType::Warning,
            "EventsDropped",
            "API events of this pod found no room while they waited for a recorder, and are lost: the metric podwitness_events_dropped counts them",
        ),
        Notice::CredentialsOutdated => (
            EventType::Warning,
            "CredentialsOutdated",
            "the witness cannot bring the files of a service-account volume, or the CA bundle of the containers, up to date: containers go on with those that they have, whose token expires; it is tried again every 5 s, and the log of container podwitness says why",
        ),
        Notice::RecordingRefused => (
            EventType::Warning,
            "RecordingRefused",
            "requests or sessions of this pod are refused, because a Grant with enforceRecorder asks for a recording and none can be made: the log of container podwitness names the Grant and the cause, and kubectl get recorders shows which recorders are ready",
        ),
        Notice::ClientCertificate => (
            EventType::Warning,
            "ClientCertificateRefused",
            "a client of this pod offers a client certificate, which its witness cannot relay to the API server, and is refused: use a token in its kubeconfig (user.token, user.tokenFile or user.exec) instead",
        ),
        Notice::Recorder(Taking::Refusing) => (
            EventType::Warning,
            "RecorderRefusing",
            "the volume of recordings is nearly full: nothing new is taken until there is space again",
        ),
        Notice::Recorder(Taking::Degraded) => (
            EventType::Warning,
            "RecorderDegraded",
            "everything is taken, but the volume of recordings runs short of space, or the bucket does not take them: the log of the recorder says which",
        ),
        Notice::Recorder(Taking::Limiting) => (
            EventType::Warning,
            "RecorderLimiting",
            "pods or namespaces that have more than their share of the volume of recordings are refused, others are not: the log of the recorder names them",
        ),
        Notice::Recorder(Taking::Accepting) => {
            (EventType::Normal, "RecorderAccepting", "everything is taken, and all is well again")
        }
        Notice::UnknownServer(to) => {
            let note = format!(
                "connections to {to} pass unrecorded: it does not answer a TLS handshake in time, so that the witness cannot tell whether it is the API server; name it in PODWITNESS_API_SERVERS of the control plane if it is"
            );
            return (EventType::Warning, "UnknownServer", note.into());
        }
    };
    (type_, reason, note.into())
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            pod::testing::{injected, pod},
            testing::Api,
        },
        *,
    };

    #[tokio::test]
    async fn a_refused_key_is_an_event_on_its_pod() {
        let api = Api::default();
        let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
        api.answer("POST", path, json!({"metadata": {}, "eventTime": null}));
        let (events, publisher) = channel(api.client());
        events.key_refused(&pod(injected()));
        drop(events);
        publisher.run().await;
        let sent = &api.bodies("POST", path)[0];
        assert_eq!((&sent["type"], &sent["reason"]), (&json!("Warning"), &json!("TunnelKeyRefused")));
        assert_eq!(sent["regarding"]["uid"], json!("uid-till"));
    }

    #[tokio::test]
    async fn every_notice_has_words_that_an_event_can_hold() {
        use Notice::{
            Bypassed, CertificateRefused, ClientCertificate, ConnectionsExhausted, CredentialsOutdated,
            EventsDropped, NoGrant, RecordingRefused, SpoolShareFull, SpoolTampered, SteppedAside,
            TooManyRecordings, UpstreamExhausted,
        };
        let of_recorders = Taking::ALL.map(Notice::Recorder);
        let unknown =
            Notice::UnknownServer("[fd00:1111:2222:3333:4444:5555:6666:7777]:65535".parse().unwrap());
        let of_pods = [
            unknown,
            CertificateRefused,
            SteppedAside,
            NoGrant,
            Bypassed,
            SpoolTampered,
            SpoolShareFull,
            TooManyRecordings,
            ConnectionsExhausted,
            UpstreamExhausted,
            EventsDropped,
            CredentialsOutdated,
            RecordingRefused,
            ClientCertificate,
        ];
        for notice in of_pods.into_iter().chain(of_recorders) {
            let (_, reason, note) = in_words(notice);
            assert!(reason.len() <= 128 && note.len() <= 1024, "{notice:?}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_events() {
        let (events, _publisher) = channel(Api::default().client());
        for _ in 0..=events::CAPACITY {
            events.key_replaced(&pod(injected()), Claimed::Proven);
        }
    }
}
