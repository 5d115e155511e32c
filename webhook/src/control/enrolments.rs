//! Enrolment: a live pod and a key become a registry entry, an address and an assertion.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use podwitness_core::{
    address,
    control::{EnrolRequest, EnrolResponse},
};
use tokio::sync::Notify;

use super::{
    access::Caller,
    assertions::Assertions,
    feed::Worlds,
    pod::Sandbox,
    refusal::Refusal,
    registry::{ClaimError, Claimed, Registry, Request},
};

/// The registry, shared. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Enrolments(Arc<Mutex<Registry>>);

/// Enrols pods.
#[derive(Clone)]
pub struct Enrol {
    /// Keys of pods.
    pub enrolments: Enrolments,
    /// Signs assertions.
    pub assertions: Assertions,
    /// Worlds, for their generation; nobody is enrolled before the first.
    pub worlds: Worlds,
    /// Told when a recorder has enrolled, so that it is published.
    pub changed: Arc<Notify>,
}

/// A replica of a recorder as its `Recorder` object remembers it.
#[derive(Clone, Debug)]
pub struct Remembered<'a> {
    /// Name of the `Recorder`.
    pub recorder: &'a str,
    /// Uid of the pod.
    pub uid: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Address of the pod then.
    pub ip: Option<String>,
}

impl Enrolments {
    /// The key of a pod.
    #[must_use]
    pub fn key_of(&self, uid: &str) -> Option<String> {
        self.lock().get(uid).map(|entry| entry.key.clone())
    }

    /// Remembers a replica from before a restart of the control plane, unless it has enrolled since.
    pub fn remember(&self, replica: Remembered<'_>) {
        let Remembered { recorder, uid, key, ip } = replica;
        if address::parse_key(key).is_err() || self.lock().get(uid).is_some() {
            return;
        }
        let sandbox = Sandbox { ip, ready_since: None };
        // It is not there, as was just seen; a full registry forgets it until it enrols again.
        let _ = self.lock().claim(Request { uid, key, recorder: Some(recorder), sandbox, proof: None });
    }

    /// The registry itself.
    pub fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enrol {
    /// Makes the request's key the caller's. `proof` is the text of an assertion that came with it.
    ///
    /// # Errors
    /// Where the key is none, another one is the pod's, or nothing is published yet.
    pub fn enrol(
        &self,
        caller: &Caller,
        request: &EnrolRequest,
        proof: Option<&str>,
    ) -> Result<(EnrolResponse, Claimed), Refusal> {
        let generation = self.worlds.borrow().as_ref().map(|published| published.generation);
        let generation = generation.ok_or(Refusal::Unavailable("the control plane is starting"))?;
        let key = address::parse_key(&request.public_key);
        let key = key.map_err(|error| Refusal::BadRequest(format!("publicKey: {error}")))?;
        let claimed = self.claim(caller, &request.public_key, proof)?;
        let assertion = self.assertions.assert(&caller.pod, &request.public_key, caller.mode)?;
        if caller.role.recorder().is_some() {
            self.changed.notify_one();
        }
        Ok((EnrolResponse { address: address::of_key(&key), assertion, generation }, claimed))
    }

    fn claim(&self, caller: &Caller, key: &str, proof: Option<&str>) -> Result<Claimed, Refusal> {
        let proof = proof.and_then(|text| self.assertions.read(text));
        let request = Request {
            uid: caller.pod.uid(),
            key,
            recorder: caller.role.recorder(),
            sandbox: caller.pod.sandbox(),
            proof: proof.as_ref(),
        };
        self.enrolments.lock().claim(request).map_err(|error| match error {
            ClaimError::Taken => TAKEN,
            ClaimError::Full => Refusal::Unavailable("too many pods are enrolled"),
        })
    }
}

/// The pod has another key.
pub const TAKEN: Refusal = Refusal::Conflict(
    "another key is enrolled for this pod; send a valid assertion for it in Podwitness-Assertion, or replace the pod",
);

#[cfg(test)]
mod tests {
    use podwitness_core::{assertion, inject::Inject};
    use serde_json::json;

    use super::{
        super::{
            assertions::testing::assertions,
            pod::testing::{injected, pod, replica},
            role::Role,
            token::{Bound, testing::NOW},
            world::{Published, testing::world},
        },
        *,
    };

    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    const OTHER: &str = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";

    fn caller(live: serde_json::Value, role: Role) -> Caller {
        let pod = Arc::new(pod(live));
        let bound = Bound {
            namespace: pod.namespace().into(),
            pod: pod.name().into(),
            pod_uid: pod.uid().into(),
            service_account: pod.spec.service_account_name.clone(),
            exp: NOW + 60,
        };
        Caller { bound, pod, role, mode: Some(Inject::Optional) }
    }

    fn enrol() -> Enrol {
        let published = Published { generation: 9, world: world() };
        let worlds = tokio::sync::watch::Sender::new(Some(Arc::new(published))).subscribe();
        let changed = Arc::new(Notify::new());
        Enrol { enrolments: Enrolments::default(), assertions: assertions(NOW).0, worlds, changed }
    }

    fn request(key: &str) -> EnrolRequest {
        EnrolRequest { public_key: key.into() }
    }

    #[tokio::test]
    async fn a_pod_gets_the_address_of_its_key_and_an_assertion_for_it() {
        let enrol = enrol();
        let (response, claimed) =
            enrol.enrol(&caller(injected(), Role::Sidecar), &request(KEY), None).unwrap();
        assert_eq!((claimed, response.generation), (Claimed::First, 9));
        assert_eq!(response.address, address::of_key(&[7; 32]));
        let issuer = enrol.assertions.issuer().clone();
        let claims = assertion::verify(&response.assertion, &[issuer], NOW).unwrap();
        assert_eq!((claims.key.as_str(), claims.pod_uid.as_str()), (KEY, "uid-till"));
        assert_eq!(claims.mode, Some(Inject::Optional));
    }

    #[tokio::test]
    async fn a_second_key_is_a_conflict_unless_the_first_is_proved() {
        let enrol = enrol();
        let caller = caller(injected(), Role::Sidecar);
        let (first, _) = enrol.enrol(&caller, &request(KEY), None).unwrap();
        assert_eq!(enrol.enrol(&caller, &request(OTHER), None).unwrap_err(), TAKEN);
        assert_eq!(enrol.enrol(&caller, &request(OTHER), Some("nonsense")).unwrap_err(), TAKEN);
        let (_, claimed) = enrol.enrol(&caller, &request(OTHER), Some(&first.assertion)).unwrap();
        assert_eq!(claimed, Claimed::Proven);
        assert_eq!(enrol.enrolments.key_of("uid-till").as_deref(), Some(OTHER));
    }

    #[tokio::test]
    async fn what_is_no_key_is_a_bad_request_and_leaves_no_trace() {
        let enrol = enrol();
        let caller = caller(injected(), Role::Sidecar);
        for key in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
            assert_eq!(enrol.enrol(&caller, &request(key), None).unwrap_err().label(), "bad-request");
        }
        assert!(enrol.enrolments.lock().is_empty());
    }

    #[tokio::test]
    async fn a_recorder_that_enrols_is_published() {
        let enrol = enrol();
        enrol.enrol(&caller(injected(), Role::Sidecar), &request(OTHER), None).unwrap();
        let role = Role::Recorder("podwitness".into());
        enrol.enrol(&caller(replica(), role), &request(KEY), None).unwrap();
        enrol.changed.notified().await;
        assert_eq!(enrol.enrolments.lock().replicas("podwitness").collect::<Vec<_>>(), [("uid-rec", KEY)]);
    }

    #[tokio::test]
    async fn a_replica_from_before_a_restart_keeps_its_key() {
        let enrol = enrol();
        let remembered = |key: &'static str| Remembered {
            recorder: "podwitness",
            uid: "uid-rec",
            key,
            ip: Some("10.0.1.9".into()),
        };
        enrol.enrolments.remember(remembered("no key"));
        assert!(enrol.enrolments.lock().is_empty());
        enrol.enrolments.remember(remembered(KEY));
        enrol.enrolments.remember(remembered(OTHER));
        assert_eq!(enrol.enrolments.key_of("uid-rec").as_deref(), Some(KEY));
        let role = || Role::Recorder("podwitness".into());
        let same = enrol.enrol(&caller(replica(), role()), &request(OTHER), None);
        assert_eq!(same.unwrap_err(), TAKEN);
        let mut moved = replica();
        moved["status"]["podIP"] = json!("10.0.1.10");
        let (_, claimed) = enrol.enrol(&caller(moved, role()), &request(OTHER), None).unwrap();
        assert_eq!(claimed, Claimed::NewSandbox);
    }

    #[tokio::test]
    async fn nobody_is_enrolled_before_anything_is_published() {
        let worlds = tokio::sync::watch::Sender::new(None).subscribe();
        let enrol = Enrol { worlds, ..enrol() };
        let refusal = enrol.enrol(&caller(injected(), Role::Sidecar), &request(KEY), None).unwrap_err();
        assert_eq!(refusal.label(), "unavailable");
    }
}
