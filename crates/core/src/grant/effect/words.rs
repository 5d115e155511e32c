//! Words of a rule's `verbs` and `resources`: what requests of the API have, and what people write instead.

use crate::{
    grant::glob,
    nearest::{distance, nearest},
};

/// Verbs of requests for resources (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).
pub const API_VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// Verbs of other requests, such as `/version`: the method in lower case.
pub const METHODS: [&str; 5] = ["head", "options", "post", "put", "trace"];

/// What people call it, and the verb.
const OTHER_VERBS: [(&str, &str); 10] = [
    ("add", "create"),
    ("apply", "patch"),
    ("edit", "patch"),
    ("read", "get"),
    ("view", "get"),
    ("describe", "get"),
    ("remove", "delete"),
    ("replace", "update"),
    ("write", "update"),
    ("scale", "patch"),
];
/// What kubectl does, and the resource that it asks for.
const SESSIONS: [(&str, &str); 9] = [
    ("attach", "pods/attach"),
    ("cp", "pods/exec"),
    ("debug", "pods/attach"),
    ("exec", "pods/exec"),
    ("log", "pods/log"),
    ("logs", "pods/log"),
    ("port-forward", "pods/portforward"),
    ("portforward", "pods/portforward"),
    ("run", "pods/attach"),
];
const LOGS: &str = "logs";
/// Subresources of pods.
const OF_PODS: [&str; 10] = [
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "log",
    "portforward",
    "proxy",
    "resize",
    "status",
];
/// Resources that every cluster or Podwitness has, with what kubectl takes for them (`kubectl api-resources`): plural,
/// singular, short name.
const RESOURCES: [(&str, &str, &str); 36] = [
    ("clusterrolebindings", "clusterrolebinding", ""),
    ("clusterroles", "clusterrole", ""),
    ("configmaps", "configmap", "cm"),
    ("controllerrevisions", "controllerrevision", ""),
    ("cronjobs", "cronjob", "cj"),
    ("customresourcedefinitions", "customresourcedefinition", "crd"),
    ("daemonsets", "daemonset", "ds"),
    ("deployments", "deployment", "deploy"),
    ("endpoints", "endpoint", "ep"),
    ("endpointslices", "endpointslice", ""),
    ("events", "event", "ev"),
    ("grants", "grant", ""),
    ("horizontalpodautoscalers", "horizontalpodautoscaler", "hpa"),
    ("ingresses", "ingress", "ing"),
    ("jobs", "job", ""),
    ("leases", "lease", ""),
    ("limitranges", "limitrange", "limits"),
    ("namespaces", "namespace", "ns"),
    ("networkpolicies", "networkpolicy", "netpol"),
    ("nodes", "node", "no"),
    ("persistentvolumeclaims", "persistentvolumeclaim", "pvc"),
    ("persistentvolumes", "persistentvolume", "pv"),
    ("poddisruptionbudgets", "poddisruptionbudget", "pdb"),
    ("pods", "pod", "po"),
    ("priorityclasses", "priorityclass", "pc"),
    ("recorders", "recorder", "rec"),
    ("replicasets", "replicaset", "rs"),
    ("replicationcontrollers", "replicationcontroller", "rc"),
    ("resourcequotas", "resourcequota", "quota"),
    ("rolebindings", "rolebinding", ""),
    ("roles", "role", ""),
    ("secrets", "secret", ""),
    ("serviceaccounts", "serviceaccount", "sa"),
    ("services", "service", "svc"),
    ("statefulsets", "statefulset", "sts"),
    ("storageclasses", "storageclass", "sc"),
];

/// Whether requests have this verb, or one that fits this glob.
pub(super) fn is_verb(verb: &str) -> bool {
    API_VERBS.iter().chain(&METHODS).any(|known| glob(verb, known))
}

/// What was probably meant by a verb that no request has.
pub(super) fn meant_verb(verb: &str) -> Option<String> {
    if let Some((_, resource)) = SESSIONS.iter().find(|(name, _)| *name == verb) {
        return Some(format!("resources {resource}"));
    }
    let other = OTHER_VERBS.iter().find(|(name, _)| *name == verb).map(|(_, verb)| *verb);
    other.or_else(|| nearest(verb, API_VERBS)).map(ToOwned::to_owned)
}

/// Whether no request names this resource: it is the singular or short name of one, has a group, is a verb of kubectl,
/// or is a subresource that pods do not have. Any other name may be that of a custom resource.
pub(super) fn is_no_resource(resource: &str) -> bool {
    let (name, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    if name.contains('*') {
        return false;
    }
    let is_plural = plural(name).is_some_and(|plural| plural == name);
    name.contains('.')
        || (plural(name).is_some() || is_session(name)) && !is_plural
        || name == "pods" && !is_of_pods(subresource)
}

fn is_of_pods(subresource: &str) -> bool {
    subresource.is_empty() || OF_PODS.iter().any(|known| glob(subresource, known))
}

/// `logs` may be the plural of a custom resource.
fn is_session(name: &str) -> bool {
    name != LOGS && SESSIONS.iter().any(|(session, _)| *session == name)
}

/// The plural of any name of a known resource.
fn plural(name: &str) -> Option<&'static str> {
    let found = RESOURCES.iter().find(|(plural, singular, short)| {
        *plural == name || *singular == name || (*short == name && !short.is_empty())
    });
    found.map(|(plural, ..)| *plural)
}

/// What was probably meant by what no request names.
pub(super) fn meant_resource(resource: &str) -> Option<String> {
    let (name, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    if let Some((_, meant)) = SESSIONS.iter().find(|(session, _)| *session == name) {
        return Some((*meant).to_owned());
    }
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    let name = plural(name).unwrap_or(name);
    let subresource = match subresource {
        sub if name != "pods" || is_of_pods(sub) => sub,
        "port-forward" => "portforward",
        sub => nearest(sub, OF_PODS)?,
    };
    let slash = if subresource.is_empty() { "" } else { "/" };
    Some(format!("{name}{slash}{subresource}"))
}

/// The known resource that differs by one character from one that is not known here.
pub(super) fn near_resource(resource: &str) -> Option<String> {
    let (name, subresource) =
        resource.split_once('/').map_or((resource, None), |(name, sub)| (name, Some(sub)));
    if name == LOGS {
        return meant_resource(LOGS);
    }
    if plural(name).is_some() || name.contains('*') {
        return None;
    }
    let (near, ..) = RESOURCES.iter().find(|(plural, ..)| distance(plural, name) == Some(1))?;
    Some(subresource.map_or_else(|| (*near).to_owned(), |sub| format!("{near}/{sub}")))
}
