//! Certificates of the cluster's CA for sidecars, so that clients which trust that CA trust them.
//!
//! A pod sends a PKCS#10 request; [`request`] checks it; the cluster's signer `kubernetes.io/kubelet-serving` issues the
//! certificate through a `CertificateSigningRequest` that is made, approved and deleted here; [`chain`] checks what came
//! of it. The names are those of the API server's own certificates ([`names`]). Whatever goes wrong is a reason that is
//! counted and told; the sidecar then serves certificates of its pod's CA.
//!
//! Invariant: no request is approved but those that were made here and checked before.

pub mod chain;
pub mod names;
pub mod request;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    },
};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use podwitness_core::control::{
    CertificateRequest, CertificateResponse, MAX_CERTIFICATE_REQUEST, ServingNames, serving_common_name,
};
use podwitness_runtime::clock::Clock;
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout, timeout_at},
};

use chain::{ChainError, ClusterCa};
use request::RequestError;

/// Signer of kubelets' serving certificates (KEP-1513).
const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// What the signer allows for a key that does not encipher keys.
const USAGES: [&str; 2] = ["digital signature", "server auth"];
/// Life that is asked for in seconds; the signer may make it shorter.
const LIFE: i32 = 86_400;
/// For a certificate, from its request to its check.
const LIMIT: Duration = Duration::from_secs(15);
/// For taking a request away again.
const DELETE_LIMIT: Duration = Duration::from_secs(5);
/// Requests at a time; further ones wait, within [`LIMIT`].
const AT_A_TIME: usize = 32;
/// Until a request is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Name of every request, before what tells it from others.
const NAME_PREFIX: &str = "podwitness-";
/// Letters of a signer's or an approver's message that are handed on.
const MAX_MESSAGE: usize = 200;

/// Why a pod gets no certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The request is not the one that the pod may make.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Too many pods ask.
    #[error("too many certificates are asked for at once")]
    Busy,
    /// The API server refuses a step, or does not answer.
    #[error("cannot {step} a CertificateSigningRequest")]
    Api {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The signer issues nothing.
    #[error("the signer {SIGNER} issues nothing within {} s; does the controller-manager run it?", LIMIT.as_secs())]
    NoSigner,
    /// Another client denied the request.
    #[error("the CertificateSigningRequest was denied: {0}")]
    Denied(String),
    /// The signer failed.
    #[error("the signer {SIGNER} failed: {0}")]
    Failed(String),
    /// What was issued cannot be used.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl CertificateError {
    /// Stable name for metrics and Events.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Request(_) => "bad-request",
            Self::Busy => "busy",
            Self::Api { .. } => "api-server",
            Self::NoSigner => "no-signer",
            Self::Denied(_) => "denied",
            Self::Failed(_) => "failed",
            Self::Chain(ChainError::OtherCa(_)) => "other-ca",
            Self::Chain(_) => "unusable",
        }
    }
}

/// Gets certificates. Clones are the same.
#[derive(Clone)]
pub struct Certificates(Arc<Inner>);

struct Inner {
    requests: Api<CertificateSigningRequest>,
    ca: ClusterCa,
    clock: Arc<dyn Clock>,
    turns: Semaphore,
}

impl Certificates {
    /// Gets them through this client, and checks them against the cluster's CA.
    #[must_use]
    pub fn new(client: Client, ca: ClusterCa, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { requests: Api::all(client), ca, clock, turns: Semaphore::new(AT_A_TIME) }))
    }

    /// A certificate for the pod with this uid, for these names.
    ///
    /// It is got in the background, so that a caller who leaves does not leave a request behind.
    ///
    /// # Errors
    /// Where the request is refused, or no certificate came of it.
    pub async fn get(
        &self,
        pod_uid: &str,
        asked: &CertificateRequest,
        names: &ServingNames,
    ) -> Result<CertificateResponse, CertificateError> {
        let der = decode(asked)?;
        request::check(&der, &serving_common_name(pod_uid), names)?;
        let (this, name, names) = (Arc::clone(&self.0), object_name(pod_uid), names.clone());
        let work = tokio::spawn(async move { this.issue(&name, &der, &names).await });
        // It fails only where the runtime is going down.
        work.await.unwrap_or(Err(CertificateError::Busy))
    }
}

impl Inner {
    /// Issues what was checked before, through an object of this name.
    async fn issue(
        &self,
        name: &str,
        der: &[u8],
        names: &ServingNames,
    ) -> Result<CertificateResponse, CertificateError> {
        let deadline = Instant::now() + LIMIT;
        // The semaphore is never closed, so that there always is a turn.
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| CertificateError::Busy)?;
        let pem = timeout_at(deadline, self.sign(name, der)).await.unwrap_or(Err(CertificateError::NoSigner));
        self.delete(name).await;
        Ok(self.ca.check(&pem?, der, names, self.clock.now_unix()).await?)
    }

    /// What the signer makes of a request, in PEM.
    async fn sign(&self, name: &str, der: &[u8]) -> Result<Vec<u8>, CertificateError> {
        let params = PostParams::default();
        let made = self.requests.create(&params, &object(name, der)).await.map_err(failed("create"))?;
        self.approve(name, made).await?;
        loop {
            let request = self.requests.get(name).await.map_err(failed("read"))?;
            if let Some(issued) = outcome(&request)? {
                return Ok(issued);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn approve(&self, name: &str, mut made: CertificateSigningRequest) -> Result<(), CertificateError> {
        let params = PostParams::default();
        loop {
            if outcome(&made)?.is_some() {
                return Ok(());
            }
            match self.requests.replace_subresource("approval", name, &params, &approved(made)).await {
                Ok(_) => return Ok(()),
                // It was changed in between: 409 by its version, 422 by a denial, which excludes an approval.
                Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {}
                Err(error) => return Err(failed("approve")(error)),
            }
            sleep(LOOK_AGAIN).await;
            made = self.requests.get(name).await.map_err(failed("read"))?;
        }
    }

    /// One that stays is taken away by the controller-manager within a day.
    async fn delete(&self, name: &str) {
        let deleted = timeout(DELETE_LIMIT, self.requests.delete(name, &DeleteParams::default())).await;
        match deleted {
            Ok(Ok(_)) => {}
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => tracing::warn!(%error, name, "a CertificateSigningRequest stays"),
            Err(_) => {
                tracing::warn!(name, "a CertificateSigningRequest stays: the API server does not answer");
            }
        }
    }
}

fn decode(asked: &CertificateRequest) -> Result<Vec<u8>, RequestError> {
    // Base64 has four letters for three bytes.
    if asked.request.len() / 4 * 3 > MAX_CERTIFICATE_REQUEST {
        return Err(RequestError::TooLong);
    }
    STANDARD.decode(&asked.request).map_err(|_| RequestError::Unread)
}

/// Unique, so that a request that stayed blocks no other.
fn object_name(uid: &str) -> String {
    format!("{NAME_PREFIX}{uid}-{:08x}", tag())
}

/// A number that tells one request of a pod from another; nothing secret depends on it.
fn tag() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or_default()
}

fn object(name: &str, der: &[u8]) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem(der).into_bytes()),
            signer_name: SIGNER.to_owned(),
            usages: Some(USAGES.map(str::to_owned).into()),
            expiration_seconds: Some(LIFE),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// PEM (RFC 7468) of a request, made anew: what a pod sends is never handed on as text.
fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for (place, letter) in STANDARD.encode(der).chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END CERTIFICATE REQUEST-----\n");
    text
}

fn approved(mut request: CertificateSigningRequest) -> CertificateSigningRequest {
    let condition = CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("PodwitnessSidecar".to_owned()),
        message: Some("the control plane of Podwitness has checked this request of a sidecar".to_owned()),
        ..CertificateSigningRequestCondition::default()
    };
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    request
}

/// The certificate, `None` while there is none.
fn outcome(request: &CertificateSigningRequest) -> Result<Option<Vec<u8>>, CertificateError> {
    let Some(status) = &request.status else { return Ok(None) };
    for condition in status.conditions.iter().flatten() {
        let message = || -> String {
            let text = condition.message.as_deref().or(condition.reason.as_deref());
            text.unwrap_or("no reason is given").chars().take(MAX_MESSAGE).collect()
        };
        match condition.type_.as_str() {
            "Denied" => return Err(CertificateError::Denied(message())),
            "Failed" => return Err(CertificateError::Failed(message())),
            _ => {}
        }
    }
    Ok(status.certificate.as_ref().map(|ByteString(pem)| pem.clone()).filter(|pem| !pem.is_empty()))
}

fn failed(step: &'static str) -> impl FnOnce(kube::Error) -> CertificateError {
    move |source| CertificateError::Api { step, source: Box::new(source) }
}

#[cfg(test)]
mod tests;
