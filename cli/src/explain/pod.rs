//! What a pod is like, and why it has no sidecar, with the way to get one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{self, PodSpec};
use kube::ResourceExt as _;
use podwitness_core::{
    exempt::exempts,
    inject::{self, NEVER_INJECTED},
    labels,
};

use super::{Facts, Pod};

/// Annotation of a pod that shows what a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Label by which a ReplicaSet of a Deployment is told from the Deployment's others.
const HASH: &str = "pod-template-hash";
const WINDOWS: &str = "windows";

/// What a pod is like.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodFacts {
    /// Whether it has the sidecar.
    pub witnessed: bool,
    /// Why its sidecar does not run, if it does not.
    pub stopped: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What made it.
    pub owner: Option<Owner>,
    /// Whether a node runs it by itself.
    pub is_static: bool,
    /// Whether it is in the node's network.
    pub host_network: bool,
    /// Whether it runs on Windows.
    pub is_windows: bool,
    /// What in it can reach around a sidecar, such as `container app is privileged`.
    pub powers: Vec<String>,
    /// Whether it has ended.
    pub ended: bool,
}

/// The controller of a pod.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The kind and name that `kubectl rollout restart` takes for it, if it does.
    pub restart: Option<String>,
}

impl PodFacts {
    /// Reads a pod.
    #[must_use]
    pub fn of(pod: &v1::Pod) -> Self {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let witnessed =
            spec.init_containers.iter().flatten().any(|container| container.name == inject::CONTAINER);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let selected = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
        let system = spec.os.as_ref().map(|os| &os.name).or(selected);
        Self {
            witnessed,
            stopped: stopped(pod).filter(|_| witnessed),
            labels: pod.labels().clone(),
            owner: owner(pod),
            is_static: pod.annotations().contains_key(MIRROR),
            host_network: spec.host_network.unwrap_or_default(),
            is_windows: system.is_some_and(|system| system == WINDOWS),
            powers: powers(spec),
            ended: matches!(phase, Some("Succeeded" | "Failed")),
        }
    }

    /// Whether an annotation of the namespace leaves the pod out.
    fn is_exempt(&self, annotation: &str) -> bool {
        exempts(annotation, |key| self.labels.get(key).map(String::as_str))
    }
}

fn stopped(pod: &v1::Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| status.name == inject::CONTAINER)?;
    if status.ready {
        return None;
    }
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref()?.reason.clone());
    let terminated = state.and_then(|state| state.terminated.as_ref()?.reason.clone());
    Some(waiting.or(terminated).unwrap_or_else(|| "not ready".to_owned()))
}

fn owner(pod: &v1::Pod) -> Option<Owner> {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    let name = &owner.name;
    let restart = match &*owner.kind {
        "StatefulSet" | "DaemonSet" => Some(format!("{}/{name}", owner.kind.to_lowercase())),
        "ReplicaSet" => {
            let suffix = pod.labels().get(HASH).map(|hash| format!("-{hash}"));
            let deployment = suffix.and_then(|suffix| name.strip_suffix(&suffix));
            deployment.map(|deployment| format!("deployment/{deployment}"))
        }
        _ => None,
    };
    Some(Owner { kind: owner.kind.clone(), name: name.clone(), restart })
}

/// What of a pod can reach around a sidecar (Pod Security baseline, as far as it counts here).
fn powers(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let privileged = containers.filter(|container| {
        container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
    });
    let mut found: Vec<String> =
        privileged.map(|container| format!("container {} is privileged", container.name)).collect();
    for (field, is_set) in [
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
        ("shareProcessNamespace", spec.share_process_namespace),
    ] {
        found.extend((is_set == Some(true)).then(|| format!("the pod sets {field}")));
    }
    found
}

/// Why the pod has no sidecar and what to do, where it has none or will have none.
pub(super) fn unwitnessed(pod: &Pod, facts: &Facts) -> Option<String> {
    let Pod { namespace, .. } = pod;
    if NEVER_INJECTED.contains(&&**namespace) || namespace == labels::SYSTEM_NAMESPACE {
        return Some(format!(
            "pods of namespace {namespace} never get a sidecar, because without them the cluster could not be repaired; \
             run what is to be recorded in another namespace"
        ));
    }
    let Some(found) = &facts.pod else {
        return facts.inject.is_none().then(|| {
            format!(
                "namespace {namespace} has no label {}, so that its pods get no sidecar; {}",
                labels::INJECT,
                label(namespace)
            )
        });
    };
    (!found.witnessed).then(|| format!("the pod has no sidecar: {}", missing(pod, found, facts)))
}

fn missing(pod: &Pod, found: &PodFacts, facts: &Facts) -> String {
    let Pod { namespace, .. } = pod;
    let again = again(pod, found);
    if found.is_static {
        return "it is a static pod, which its node makes without admission; let a DaemonSet or Deployment make it".to_owned();
    }
    if found.ended {
        return "it has ended; nothing can be done in it any more".to_owned();
    }
    if facts.inject.is_none() {
        let besides = match (found.host_network, found.is_windows) {
            (true, _) => "; besides, it has hostNetwork, and such a pod gets none",
            (_, true) => "; besides, it runs on Windows, and such a pod gets none",
            _ => "",
        };
        return format!(
            "its namespace has no label {}; {}, and {again}{besides}",
            labels::INJECT,
            label(namespace)
        );
    }
    if found.host_network {
        let key = labels::EXEMPT;
        return format!(
            "it has hostNetwork, where interception would act on the whole node; take hostNetwork away and {again}, or \
             leave it unrecorded on purpose (annotation {key} of the namespace)"
        );
    }
    if found.is_windows {
        return "it runs on Windows, and the sidecar needs Linux; use a pod on a Linux node".to_owned();
    }
    if let Some(terms) = facts.exempt.as_deref().filter(|terms| found.is_exempt(terms)) {
        return format!(
            "the namespace leaves pods with labels {terms} out; change its annotation {} or the labels of the pod, and {again}",
            labels::EXEMPT
        );
    }
    if let Some(why) = &facts.let_through {
        return format!("admission let it through: {why}; change that, and {again}");
    }
    if facts.requires() && !found.powers.is_empty() {
        return format!(
            "it is older than the namespace's label, and would be refused as it is, because {}; change that and {again}, \
             or leave it unrecorded on purpose (annotation {} of the namespace)",
            found.powers.join(", "),
            labels::EXEMPT
        );
    }
    format!(
        "it is older than the namespace's label, or was made while admission could not be reached; {again}"
    )
}

fn label(namespace: &str) -> String {
    format!("set it with kubectl label namespace {namespace} {}=optional", labels::INJECT)
}

/// How a pod is made again.
fn again(pod: &Pod, found: &PodFacts) -> String {
    let Pod { namespace, name } = pod;
    match &found.owner {
        Some(Owner { restart: Some(target), .. }) => {
            format!("restart it with kubectl -n {namespace} rollout restart {target}")
        }
        Some(Owner { kind, name: owner, .. }) if kind == "Job" => {
            format!("run Job {owner} again (kubectl -n {namespace} replace --force -f FILE)")
        }
        Some(Owner { kind, .. }) => {
            format!(
                "delete it with kubectl -n {namespace} delete pod {name}, so that its {kind} makes it again"
            )
        }
        None => format!("delete it with kubectl -n {namespace} delete pod {name}, and create it again"),
    }
}

/// What of pod and namespace changes or limits what is recorded.
pub(super) fn notes(pod: &Pod, facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(found) = &facts.pod else {
        if facts.unknown.is_empty() {
            notes.push("there is no pod of this name; the answer is for one that will be there".to_owned());
        }
        let exempt = facts.exempt.as_ref().filter(|_| facts.inject.is_some());
        notes.extend(exempt.map(|terms| {
            format!(
                "pods with labels {terms} get no sidecar (annotation {} of the namespace)",
                labels::EXEMPT
            )
        }));
        return notes;
    };
    if !found.witnessed {
        return notes;
    }
    if found.ended {
        notes.push("the pod has ended; the answer is for one like it".to_owned());
    }
    if let Some(why) = found.stopped.as_ref().filter(|_| !found.ended) {
        let until = if facts.requires() { "refused" } else { "passed on unrecorded" };
        let Pod { namespace, name } = pod;
        notes.push(format!(
            "the sidecar does not run ({why}): until it does, requests are {until}; see kubectl -n {namespace} logs {name} \
             -c {}",
            inject::CONTAINER
        ));
    }
    if facts.inject.is_none() {
        notes.push(format!(
            "the namespace has lost its label {}: made again, the pod has no sidecar",
            labels::INJECT
        ));
    } else if let Some(terms) = facts.exempt.as_ref().filter(|terms| found.is_exempt(terms)) {
        notes.push(format!(
            "the namespace now leaves pods with labels {terms} out: made again, the pod has no sidecar"
        ));
    }
    if !found.powers.is_empty() {
        notes.push(format!("{}: with that, recordings can be evaded or altered", found.powers.join(", ")));
    }
    notes
}
