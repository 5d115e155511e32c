//! From a pod and its namespace to a verdict.

use json_patch::PatchOperation;
use podwitness_core::inject::Inject;
use serde_json::Value;

use super::{
    Settings, mutate,
    namespaces::Namespace,
    pod, ports, quota,
    refusal::{Reason, Refusal},
    tuning,
};

/// Annotation of a pod that shows what a node runs by itself.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// What becomes of an object that is reviewed.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is patched; nothing to patch means that it is as it should be.
    Injected {
        patch: Vec<PatchOperation>,
        /// Values that were passed over.
        warnings: Vec<String>,
    },
    /// It is a namespace.
    Labelled {
        /// What its labels and annotations do, or do not do.
        warnings: Vec<String>,
        /// What the warnings are about; empty where there is none.
        reason: &'static str,
    },
    /// It is something else of which a part has no effect.
    Advised {
        /// Which, and what was probably meant.
        warnings: Vec<String>,
        /// What the warnings are about.
        reason: &'static str,
    },
    /// It needs no sidecar.
    Skipped(&'static str),
    /// It cannot be injected, and need not be.
    LetThrough(Refusal),
    /// It may not run.
    Refused(Refusal),
}

impl Verdict {
    /// The name in metrics and audit annotations.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Injected { patch, .. } if patch.is_empty() => "unchanged",
            Self::Injected { .. } => "injected",
            Self::Labelled { .. } => "labelled",
            Self::Advised { .. } => "advised",
            Self::Skipped(_) => "skipped",
            Self::LetThrough(_) => "let-through",
            Self::Refused(_) => "refused",
        }
    }

    /// Why, for metrics and audit annotations; empty where nothing has to be explained.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Injected { .. } => "",
            Self::Labelled { reason, .. } | Self::Advised { reason, .. } | Self::Skipped(reason) => reason,
            Self::LetThrough(refusal) | Self::Refused(refusal) => refusal.reason.as_str(),
        }
    }

    /// What cannot be done is refused only where it is required.
    pub(super) fn failed(refusal: Refusal, inject: Inject) -> Self {
        match inject {
            Inject::Required => Self::Refused(refusal),
            Inject::Optional => Self::LetThrough(refusal),
        }
    }
}

/// Whether the pod is left out, and why.
///
/// A mirror pod shows what a node runs by itself. Whoever sets that annotation on another pod gets a pod that no
/// kubelet runs (`pkg/kubelet/pod/mirror_client.go`), and cannot take it away again.
pub(super) fn skipped(pod: &Value, namespace: &Namespace) -> Option<&'static str> {
    let label = |key: &str| pod.pointer("/metadata/labels")?.get(key)?.as_str();
    if pod::annotation(pod, MIRROR).is_some() {
        return Some("mirror");
    }
    namespace.exempts(label).then_some("exempt")
}

/// The verdict on a pod that is not left out.
pub(super) fn decide(pod: &Value, settings: Result<Settings, Refusal>, inject: Inject) -> Verdict {
    let injected = settings.and_then(|settings| {
        let patch = mutate(pod, &settings)?;
        if inject == Inject::Optional {
            has_quota(pod, &patch, &settings)?;
        }
        let warnings = [tuning::warnings(pod, &settings), ports::warnings(pod)].concat();
        Ok(Verdict::Injected { patch, warnings })
    });
    injected.unwrap_or_else(|refusal| Verdict::failed(refusal, inject))
}

/// Whether the quotas that have room for the pod as it came have room for it with the sidecar.
fn has_quota(pod: &Value, patch: &[PatchOperation], settings: &Settings) -> Result<(), Refusal> {
    if settings.quotas.is_empty() {
        return Ok(());
    }
    let mut after = pod.clone();
    let written = json_patch::patch(&mut after, patch);
    written.map_err(|error| Reason::Malformed.because(format!("the patch does not apply: {error}")))?;
    quota::check(pod, &after, &settings.quotas)
}

/// A pod as JSON, where the object is one at all.
pub(super) fn as_pod(object: Option<&Value>) -> Result<&Value, Refusal> {
    object
        .filter(|object| object.get("spec").is_some_and(Value::is_object))
        .ok_or_else(|| Reason::Malformed.because("the review holds no pod"))
}
