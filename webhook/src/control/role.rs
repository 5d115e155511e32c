//! What a pod is to us: a sidecar, a replica of a recorder, or nothing that may enrol.
//!
//! The caller says none of this; it follows from objects that only their admins can write.
//!
//! A replica is a pod that the StatefulSet of a `Recorder` controls, by uid at each step: Recorder, StatefulSet, pod. A
//! label alone makes nobody one. Whoever may write pods in the system namespace could forge such owners, too, but may as
//! well mount the key with which assertions are signed: that right is the installation's own.

use k8s_openapi::{
    api::apps::v1::StatefulSet,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};
use podwitness_core::{
    inject::{self, Inject, NEVER_INJECTED},
    labels,
};
use podwitness_crd::Recorder;

use super::{
    pod::{Container, Pod},
    refusal::Refusal,
    token::Bound,
};
use crate::recorders::objects;

/// What a pod is to us.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Role {
    /// An injected pod.
    Sidecar,
    /// A replica of the `Recorder` of this name.
    Recorder(String),
}

/// What has to be known to tell.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Namespace of the control plane and its recorders.
    pub system_namespace: &'a str,
    /// Repositories of images that are our sidecar, without tag or digest.
    pub images: &'a [String],
}

impl Role {
    /// Stable name for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Recorder(_) => "recorder",
        }
    }

    /// Name of the `Recorder`, for a replica.
    #[must_use]
    pub fn recorder(&self) -> Option<&str> {
        match self {
            Self::Sidecar => None,
            Self::Recorder(name) => Some(name),
        }
    }
}

/// The role of the live pod `pod`, for whose predecessor or self the token may have been made, and of a sidecar how
/// binding its injection is. `label` is what its namespace says about injection.
///
/// # Errors
/// Where the pod is another than the token's, has ended, or is nothing that may enrol.
pub fn of_pod(
    bound: &Bound,
    pod: &Pod,
    rules: Rules<'_>,
    owners: &Owners,
    label: Option<&str>,
) -> Result<(Role, Option<Inject>), Refusal> {
    if pod.uid() != bound.pod_uid || pod.spec.service_account_name != bound.service_account {
        return Err(Refusal::Unauthenticated("the token is bound to a pod that is gone"));
    }
    if pod.finished() {
        return Err(Refusal::Forbidden("the pod has ended".to_owned()));
    }
    let system = pod.namespace() == rules.system_namespace;
    match pod.recorder().filter(|_| system) {
        Some(name) => Ok((owners.replica(pod, name)?, None)),
        None => Ok((Role::Sidecar, Some(sidecar(pod, rules, label)?))),
    }
}

/// Recorders and their StatefulSets, as far as they tell whose replica a pod is.
#[derive(Clone)]
pub struct Owners {
    /// Recorders.
    pub recorders: Store<Recorder>,
    /// StatefulSets of the system namespace.
    pub stateful_sets: Store<PartialObjectMeta<StatefulSet>>,
}

impl Owners {
    /// The role of a pod of the system namespace that says it is a replica of the Recorder `name`.
    fn replica(&self, pod: &Pod, name: &str) -> Result<Role, Refusal> {
        let Some(recorder) = self.recorders.get(&ObjectRef::new(name)) else {
            return Err(Refusal::Forbidden(format!("there is no Recorder {name:?}; create it")));
        };
        let set = self.stateful_sets.get(&ObjectRef::new(name).within(pod.namespace()));
        let by_set = set.as_ref().is_some_and(|set| controls("StatefulSet", &set.metadata, &pod.metadata));
        let by_recorder =
            set.as_ref().is_some_and(|set| controls("Recorder", &recorder.metadata, &set.metadata));
        if !by_set || !by_recorder || !is_of_set(pod.name(), name) {
            return Err(Refusal::Forbidden(format!(
                "the pod is not controlled by the StatefulSet of the Recorder {name:?}"
            )));
        }
        Ok(Role::Recorder(name.to_owned()))
    }
}

/// Whether an object, of this kind, controls another one.
fn controls(kind: &str, object: &ObjectMeta, other: &ObjectMeta) -> bool {
    let is_it = |owner: &&OwnerReference| {
        owner.kind == kind && owner.uid == object.uid.as_deref().unwrap_or("-") && !owner.uid.is_empty()
    };
    objects::controller(other).filter(is_it).is_some()
}

/// Whether a pod's name is one that the StatefulSet `set` gives: no two pods have it at a time.
fn is_of_set(pod: &str, set: &str) -> bool {
    let number = pod.strip_prefix(set).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Pods enrol where admission makes them, and as it makes them.
fn sidecar(pod: &Pod, rules: Rules<'_>, label: Option<&str>) -> Result<Inject, Refusal> {
    let Some(container) = pod.sidecar() else {
        return Err(Refusal::Forbidden("the pod has no container podwitness; was it injected?".to_owned()));
    };
    let namespace = pod.namespace();
    let never = NEVER_INJECTED.contains(&namespace) || namespace == rules.system_namespace;
    let Some(label) = label.filter(|_| !never) else {
        return Err(Refusal::Forbidden(format!(
            "pods of namespace {namespace} are not injected, because it has no label {} or is the cluster's own; recreate \
             pods that were injected before",
            labels::INJECT
        )));
    };
    if let Some(what) = unlike_ours(container, rules.images) {
        return Err(Refusal::Forbidden(format!("the pod's container podwitness is not ours: {what}")));
    }
    let admitted = pod.shape().map_err(|what| {
        Refusal::Forbidden(format!("the pod is not as admission makes it: {what}; make it anew"))
    })?;
    let required = admitted == Inject::Required && Inject::parse(label) == Some(Inject::Required);
    Ok(if required { Inject::Required } else { Inject::Optional })
}

/// What tells the container from one that admission makes.
fn unlike_ours(container: &Container, images: &[String]) -> Option<&'static str> {
    if !images.iter().any(|ours| ours == repository(&container.image)) {
        return Some("its image is another");
    }
    if container.restart_policy != "Always" {
        return Some("it is no native sidecar");
    }
    if container.security_context.run_as_user != Some(i64::from(inject::UID)) {
        return Some("it runs as another user");
    }
    if !container.command.is_empty() || !container.args.is_empty() {
        return Some("its command is overridden");
    }
    None
}

/// An image's repository: the name without tag and digest.
#[must_use]
pub fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        // A colon before the last slash is a registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use kube::runtime::{reflector::store, watcher::Event};
    use serde_json::json;

    use super::*;

    /// The Recorder `podwitness`, and its StatefulSet with this uid, which says that it is of the Recorder `recorder`.
    pub fn owners(set: &str, recorder: &str) -> Owners {
        let (recorders, mut writer) = store();
        let mut object = Recorder::new("podwitness", podwitness_crd::RecorderSpec::default());
        object.metadata.uid = Some("uid-recorder".into());
        writer.apply_watcher_event(&Event::Apply(object));
        let (stateful_sets, mut writer) = store();
        let set = json!({"metadata": {"name": "podwitness", "namespace": "podwitness-system", "uid": set,
            "ownerReferences": [{"apiVersion": "podwitness.dev/v1alpha1", "kind": "Recorder", "name": "podwitness",
                "uid": recorder, "controller": true}]}});
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(set).unwrap()));
        Owners { recorders, stateful_sets }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::pod::testing::{injected, pod, replica},
        testing::owners,
        *,
    };

    fn bound(pod: &Value) -> Bound {
        let text = |pointer: &str| pod.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        Bound {
            namespace: text("/metadata/namespace"),
            pod: text("/metadata/name"),
            pod_uid: text("/metadata/uid"),
            service_account: text("/spec/serviceAccountName"),
            exp: 0,
        }
    }

    fn role(token: &Bound, live: Value) -> Result<Role, Refusal> {
        Ok(in_namespace(token, live, Some("required"))?.0)
    }

    /// With this label on the pod's namespace.
    fn in_namespace(
        token: &Bound,
        live: Value,
        label: Option<&str>,
    ) -> Result<(Role, Option<Inject>), Refusal> {
        let images = ["podwitness.dev/sidecar".to_owned()];
        let rules = Rules { system_namespace: "podwitness-system", images: &images };
        of_pod(token, &pod(live), rules, &owners("uid-set", "uid-recorder"), label)
    }

    fn edited(mut pod: Value, pointer: &str, value: Value) -> Value {
        *pod.pointer_mut(pointer).unwrap() = value;
        pod
    }

    #[test]
    fn roles_follow_from_the_live_pod() {
        assert_eq!(role(&bound(&injected()), injected()), Ok(Role::Sidecar));
        assert_eq!(role(&bound(&replica()), replica()), Ok(Role::Recorder("podwitness".into())));
    }

    #[test]
    fn the_live_pod_has_to_be_the_token_s() {
        let token = bound(&injected());
        for (pointer, value) in
            [("/metadata/uid", json!("uid-next")), ("/spec/serviceAccountName", json!("other"))]
        {
            let refusal = role(&token, edited(injected(), pointer, value)).unwrap_err();
            assert_eq!(refusal.label(), "unauthenticated", "{pointer}");
        }
        let ended = edited(injected(), "/status/phase", json!("Succeeded"));
        assert_eq!(role(&token, ended), Err(Refusal::Forbidden("the pod has ended".into())));
    }

    #[test]
    fn a_pod_without_our_container_may_not_enrol() {
        let token = bound(&injected());
        for (pointer, value, why) in [
            ("/spec/initContainers", json!([]), "injected"),
            ("/spec/initContainers/0/name", json!("podwitness2"), "injected"),
            ("/spec/initContainers/0/image", json!("evil.example/sidecar:dev"), "image"),
            ("/spec/initContainers/0/image", json!("podwitness.dev/sidecar-evil:dev"), "image"),
            ("/spec/initContainers/0/restartPolicy", json!(""), "native"),
            ("/spec/initContainers/0/securityContext", json!({"runAsUser": 0}), "user"),
            ("/spec/initContainers/0/securityContext", json!({}), "user"),
        ] {
            let refusal = role(&token, edited(injected(), pointer, value)).unwrap_err();
            assert_eq!(refusal.label(), "forbidden");
            assert!(refusal.to_string().contains(why), "{refusal}");
        }
        let mut overridden = injected();
        overridden["spec"]["initContainers"][0]["command"] = json!(["/bin/sh"]);
        assert!(role(&token, overridden).unwrap_err().to_string().contains("command"));
    }

    #[test]
    fn a_pod_enrols_where_admission_makes_pods_and_nowhere_else() {
        let token = bound(&injected());
        let refusal = in_namespace(&token, injected(), None).unwrap_err();
        assert!(refusal.label() == "forbidden" && refusal.to_string().contains("no label"), "{refusal}");
        for namespace in ["kube-system", "kube-node-lease", "podwitness-system"] {
            let there = edited(injected(), "/metadata/namespace", json!(namespace));
            let refusal = in_namespace(&bound(&there), there, Some("required")).unwrap_err();
            assert!(refusal.to_string().contains("not injected"), "{namespace}: {refusal}");
        }
        assert!(in_namespace(&bound(&replica()), replica(), None).is_ok(), "recorders are another matter");
    }

    #[test]
    fn a_look_alike_of_an_admitted_pod_may_not_enrol() {
        let token = bound(&injected());
        let mut forged = injected();
        forged["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "podwitness-identity", "mountPath": "/stolen", "readOnly": true}]);
        let refusal = role(&token, forged).unwrap_err();
        assert_eq!(refusal.label(), "forbidden");
        assert!(refusal.to_string().contains("another container mounts"), "{refusal}");
    }

    #[test]
    fn injection_is_binding_where_namespace_and_pod_say_so() {
        let token = bound(&injected());
        let value = "/spec/initContainers/0/env/0/value";
        for (label, admitted, mode) in [
            ("required", "required", Inject::Required),
            ("required", "optional", Inject::Optional),
            ("optional", "required", Inject::Optional),
            ("optional", "optional", Inject::Optional),
            ("unknown", "required", Inject::Optional),
        ] {
            let live = edited(injected(), value, json!(admitted));
            assert_eq!(in_namespace(&token, live, Some(label)), Ok((Role::Sidecar, Some(mode))), "{label}");
        }
    }

    #[test]
    fn nobody_is_a_replica_by_a_label_alone() {
        let elsewhere = edited(replica(), "/metadata/namespace", json!("shop"));
        assert!(role(&bound(&elsewhere), elsewhere).unwrap_err().to_string().contains("injected"));
        let unknown = edited(replica(), "/metadata/labels/podwitness.dev~1recorder", json!("other"));
        assert!(role(&bound(&unknown), unknown).unwrap_err().to_string().contains("no Recorder \"other\""));
        for (pointer, value) in [
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/uid", json!("uid-of-another-set")),
            ("/metadata/ownerReferences/0/uid", json!("")),
            ("/metadata/ownerReferences/0/kind", json!("ReplicaSet")),
            ("/metadata/ownerReferences/0/controller", json!(false)),
            ("/metadata/name", json!("podwitness-x")),
            ("/metadata/name", json!("podwitness-")),
            ("/metadata/name", json!("mine")),
        ] {
            let forged = edited(replica(), pointer, value);
            let refusal = role(&bound(&forged), forged).unwrap_err();
            assert_eq!(refusal.label(), "forbidden");
            assert!(refusal.to_string().contains("StatefulSet"), "{pointer}: {refusal}");
        }
    }

    #[test]
    fn the_statefulset_has_to_be_the_one_of_the_recorder_that_is_there_now() {
        let images: [String; 0] = [];
        let rules = Rules { system_namespace: "podwitness-system", images: &images };
        for (set, owner) in [("uid-older-set", "uid-recorder"), ("uid-set", "uid-of-an-earlier-recorder")] {
            let refusal =
                of_pod(&bound(&replica()), &pod(replica()), rules, &owners(set, owner), None).unwrap_err();
            assert!(refusal.to_string().contains("StatefulSet"), "{refusal}");
        }
    }

    #[test]
    fn a_repository_is_an_image_without_tag_and_digest() {
        for (image, expected) in [
            ("podwitness.dev/sidecar:dev", "podwitness.dev/sidecar"),
            ("podwitness.dev/sidecar", "podwitness.dev/sidecar"),
            ("registry:5000/podwitness/sidecar", "registry:5000/podwitness/sidecar"),
            ("registry:5000/podwitness/sidecar:1.0@sha256:abc", "registry:5000/podwitness/sidecar"),
            ("podwitness.dev/sidecar@sha256:abc", "podwitness.dev/sidecar"),
        ] {
            assert_eq!(repository(image), expected);
        }
    }
}
