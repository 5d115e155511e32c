//! Reviews: `AdmissionReview` v1 (`k8s.io/api/admission/v1`), with the object as JSON in it.

use std::borrow::Cow;

use json_patch::Patch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{
        DynamicObject,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, META_API_VERSION_V1, Operation},
    },
};
use podwitness_core::inject::{Inject, NEVER_INJECTED};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{
    debug,
    decide::{Verdict, as_pod, decide, skipped},
    world::World,
};

/// Longest warning; the API server cuts what is longer (`staging/src/k8s.io/apiserver/pkg/warning`).
const MAX_WARNING: usize = 250;

/// An object of a review, kept as it came.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Object {
    pub(super) value: Value,
    /// The review's type asks for typed metadata; nobody reads it.
    #[serde(skip)]
    meta: ObjectMeta,
}

impl Resource for Object {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind(&(): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group(&(): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(&(): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(&(): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// A body that is no review.
#[derive(Debug, Error)]
pub(super) enum ReviewError {
    /// It does not parse.
    #[error("the body is no AdmissionReview: {0}")]
    Parse(#[from] serde_json::Error),
    /// It is of another version.
    #[error("apiVersion {0:?} is not spoken here; use {META_API_VERSION_V1}")]
    Version(String),
    /// It asks nothing.
    #[error("the AdmissionReview holds no request")]
    NoRequest,
}

/// Reads a body.
pub(super) fn read(body: &[u8]) -> Result<AdmissionRequest<Object>, ReviewError> {
    let review: AdmissionReview<Object> = serde_json::from_slice(body)?;
    if review.types.api_version != META_API_VERSION_V1 {
        return Err(ReviewError::Version(review.types.api_version.chars().take(64).collect()));
    }
    review.try_into().map_err(|_| ReviewError::NoRequest)
}

/// What a request is about.
enum Subject {
    NewPod,
    DebugContainers,
}

/// The verdict on a request; `mode` is that of the webhook entry through which it came.
pub(super) async fn judge(
    request: &AdmissionRequest<Object>,
    mode: Option<Inject>,
    world: &World,
) -> Verdict {
    let Some(subject) = subject(request) else { return Verdict::Skipped("not-a-new-pod") };
    let strict = mode.unwrap_or(Inject::Required);
    let pod = match as_pod(request.object.as_ref().map(|object| &object.value)) {
        Ok(pod) => pod,
        Err(refusal) => return Verdict::failed(refusal, strict),
    };
    let name = request.namespace.as_deref().unwrap_or_default();
    if NEVER_INJECTED.contains(&name) || name == world.config.common.namespace {
        return Verdict::Skipped("system-namespace");
    }
    let namespace = match world.namespace(name).await {
        Ok(namespace) => namespace,
        Err(refusal) => return Verdict::failed(refusal, strict),
    };
    if let Some(why) = skipped(pod, &namespace) {
        return Verdict::Skipped(why);
    }
    let Some(inject) = mode.or_else(|| namespace.inject()) else { return Verdict::Skipped("no-label") };
    match subject {
        Subject::NewPod => decide(pod, world.settings(&namespace, name, pod, inject), inject),
        Subject::DebugContainers => {
            let old = request.old_object.as_ref().map(|object| &object.value);
            if inject == Inject::Optional {
                return Verdict::Injected { patch: Vec::new(), warnings: Vec::new() };
            }
            match debug::mutate(pod, old, &namespace.allow().0) {
                Ok(patch) => Verdict::Injected { patch, warnings: Vec::new() },
                Err(refusal) => Verdict::Refused(refusal),
            }
        }
    }
}

fn subject(request: &AdmissionRequest<Object>) -> Option<Subject> {
    if !request.resource.group.is_empty() || request.resource.resource != "pods" {
        return None;
    }
    match (request.sub_resource.as_deref().unwrap_or_default(), &request.operation) {
        ("", Operation::Create) => Some(Subject::NewPod),
        ("ephemeralcontainers", Operation::Update) => Some(Subject::DebugContainers),
        _ => None,
    }
}

/// The answer that carries a verdict.
pub(super) fn answer(
    request: &AdmissionRequest<Object>,
    verdict: &Verdict,
) -> AdmissionReview<DynamicObject> {
    let mut response = AdmissionResponse::from(request);
    match verdict {
        Verdict::Injected { patch, warnings } => {
            response = patched(response, patch);
            warn(&mut response, warnings);
        }
        Verdict::Labelled { warnings, .. } | Verdict::Advised { warnings, .. } => {
            warn(&mut response, warnings);
        }
        Verdict::Skipped(_) => {}
        Verdict::LetThrough(refusal) => {
            warn(&mut response, &[format!("not recorded by podwitness: {refusal}")]);
        }
        Verdict::Refused(refusal) => response = denied(response, &refusal.message),
    }
    let reason = verdict.reason();
    let audit = if reason.is_empty() {
        verdict.as_str().to_owned()
    } else {
        format!("{}: {reason}", verdict.as_str())
    };
    response.audit_annotations.insert("decision".to_owned(), audit);
    response.into_review()
}

fn patched(response: AdmissionResponse, patch: &[json_patch::PatchOperation]) -> AdmissionResponse {
    if patch.is_empty() {
        return response;
    }
    let fallback = response.clone();
    // Operations always serialise; should they not, the pod may not pass unpatched.
    response
        .with_patch(Patch(patch.to_vec()))
        .unwrap_or_else(|error| denied(fallback, &format!("the patch cannot be written: {error}")))
}

fn denied(response: AdmissionResponse, message: &str) -> AdmissionResponse {
    let mut response = response.deny(format!("podwitness: {message}"));
    response.result.code = 403;
    response.result.reason = "Forbidden".to_owned();
    response
}

fn warn(response: &mut AdmissionResponse, warnings: &[String]) {
    if !warnings.is_empty() {
        let cut = |text: &String| text.chars().take(MAX_WARNING).collect();
        response.warnings = Some(warnings.iter().map(cut).collect());
    }
}
