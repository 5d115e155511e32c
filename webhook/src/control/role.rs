//! What a pod is to us: a sidecar, a replica of a recorder, or nothing that may enrol.
//!
//! The caller says none of this; it follows from objects that only their admins can write.

use podwitness_core::inject;

use super::{
    pod::{Container, Pod},
    refusal::Refusal,
    token::Bound,
};

/// Service account under which replicas of recorders run, in the system namespace.
pub const RECORDER_SERVICE_ACCOUNT: &str = "podwitness-recorder";

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

/// The role of the live pod `pod`, for whose predecessor or self the token may have been made.
///
/// # Errors
/// Where the pod is another than the token's, has ended, or is nothing that may enrol.
pub fn of_pod(
    bound: &Bound,
    pod: &Pod,
    rules: Rules<'_>,
    recorder_exists: impl FnOnce(&str) -> bool,
) -> Result<Role, Refusal> {
    if pod.uid() != bound.pod_uid || pod.spec.service_account_name != bound.service_account {
        return Err(Refusal::Unauthenticated("the token is bound to a pod that is gone"));
    }
    if pod.finished() {
        return Err(Refusal::Forbidden("the pod has ended".to_owned()));
    }
    let system = pod.namespace() == rules.system_namespace;
    match pod.recorder().filter(|_| system) {
        Some(name) => replica(pod, name, recorder_exists),
        None => sidecar(pod, rules.images),
    }
}

fn replica(pod: &Pod, name: &str, recorder_exists: impl FnOnce(&str) -> bool) -> Result<Role, Refusal> {
    if pod.spec.service_account_name != RECORDER_SERVICE_ACCOUNT {
        return Err(Refusal::Forbidden(format!(
            "a replica of a recorder runs under the service account {RECORDER_SERVICE_ACCOUNT}"
        )));
    }
    if !recorder_exists(name) {
        return Err(Refusal::Forbidden(format!("there is no Recorder {name:?}; create it")));
    }
    Ok(Role::Recorder(name.to_owned()))
}

fn sidecar(pod: &Pod, images: &[String]) -> Result<Role, Refusal> {
    let Some(container) = pod.sidecar() else {
        return Err(Refusal::Forbidden("the pod has no container podwitness; was it injected?".to_owned()));
    };
    match unlike_ours(container, images) {
        None => Ok(Role::Sidecar),
        Some(what) => Err(Refusal::Forbidden(format!("the pod's container podwitness is not ours: {what}"))),
    }
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
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::pod::testing::{injected, pod, replica},
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
        let images = ["podwitness.dev/sidecar".to_owned()];
        let rules = Rules { system_namespace: "podwitness-system", images: &images };
        of_pod(token, &pod(live), rules, |name| name == "podwitness")
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
    fn nobody_is_a_replica_by_a_label_alone() {
        let elsewhere = edited(replica(), "/metadata/namespace", json!("shop"));
        assert!(role(&bound(&elsewhere), elsewhere).unwrap_err().to_string().contains("injected"));
        let account = edited(replica(), "/spec/serviceAccountName", json!("default"));
        assert!(role(&bound(&account), account).unwrap_err().to_string().contains("service account"));
        let unknown = edited(replica(), "/metadata/labels/podwitness.dev~1recorder", json!("other"));
        assert!(role(&bound(&unknown), unknown).unwrap_err().to_string().contains("no Recorder \"other\""));
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
