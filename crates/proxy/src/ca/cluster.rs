//! A certificate of the cluster's own CA, where the control plane has got one for this pod: served to clients that ask
//! for a name which it bears, so that those which know nothing of the in-pod CA trust it.
//!
//! The key is made here and leaves the process only into the state directory, as the in-pod CA's does. A certificate is
//! served only if it stands under the CA that the pod's clients know, for as long as it lives.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podwitness_core::control::{CertificateResponse, SERVING_ORGANIZATION, ServingNames};
use podwitness_runtime::tls::resolver::HotCert;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::{
    RootCertStore, ServerConfig,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CaError, leaf, store};

/// File in the state directory with key, certificate and what they are for.
const FILE: &str = "cluster-certificate.json";
/// Cap on that file in bytes.
const MAX_FILE: u64 = 256 << 10;
/// How long before its end a certificate is not served any more: clocks differ.
const MARGIN: i64 = 60;

/// Why a certificate is not served. No variant holds a key.
#[derive(Debug, Error)]
pub enum ClusterCertificateError {
    /// What came is no certificate, or is for another key.
    #[error("what the control plane sent is no certificate for the key that was made for it")]
    Unusable(#[source] rustls::Error),
    /// What came is not PEM.
    #[error("what the control plane sent is no chain of certificates in PEM")]
    Unread,
    /// It is not under the CA that the pod's clients know.
    #[error("the certificate does not stand under the CA in this pod's kube-root-ca.crt, or not now")]
    OtherCa(#[source] rustls::Error),
    /// TLS cannot be set up.
    #[error("the certificate cannot be served")]
    Serve(#[from] CaError),
}

/// A key for which a certificate is asked.
pub struct ServingKey(KeyPair);

impl ServingKey {
    /// A fresh ECDSA key on P-256.
    ///
    /// # Errors
    /// Where the cryptographic library fails.
    pub fn generate() -> Result<Self, CaError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// A request (PKCS#10, RFC 2986, in DER) for this subject and these names, signed with the key.
    ///
    /// # Errors
    /// Where a name cannot stand in a certificate, or the cryptographic library fails.
    pub fn request(&self, common_name: &str, names: &ServingNames) -> Result<Vec<u8>, CaError> {
        let mut params = CertificateParams::default();
        for name in &names.names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        params.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, SERVING_ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, common_name);
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }
}

impl fmt::Debug for ServingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServingKey")
    }
}

/// What a certificate is for and how long it lives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certified {
    /// Its names.
    pub names: ServingNames,
    /// Unix seconds from which it is valid.
    pub not_before: i64,
    /// Unix seconds until which it is valid.
    pub not_after: i64,
    /// A number in 0..256 that differs between certificates at random, to spread what their holders do.
    pub chance: u8,
}

/// The certificate of this pod, and whether there is one.
pub struct ClusterCertificate {
    roots: RootCertStore,
    file: Option<PathBuf>,
    served: Mutex<Option<Arc<Served>>>,
}

struct Served {
    certified: Certified,
    leaf: CertificateDer<'static>,
    tls: Arc<ServerConfig>,
}

/// What is kept over a restart.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    key: String,
    names: ServingNames,
    certificate: CertificateResponse,
}

impl ClusterCertificate {
    /// For clients that know `roots`. One that an earlier start left in `dir` and that is good at `now` is served at once.
    #[must_use]
    pub fn load(dir: &Path, roots: RootCertStore, now: i64) -> Self {
        let file = dir.join(FILE);
        let this = Self { roots, file: Some(file.clone()), served: Mutex::default() };
        if let Some(Kept { key, names, certificate }) = read(&file) {
            let served = this.judge(&key, &names, &certificate, now);
            let served =
                served.inspect_err(|error| tracing::info!(%error, "the kept certificate is not served"));
            *this.lock() = served.ok().map(Arc::new);
        }
        this
    }

    /// Serves a certificate for `key` from now on, and keeps it for the next start.
    ///
    /// # Errors
    /// Where it is not for this key, or the pod's clients do not trust it; what was served before is then served on.
    pub fn install(
        &self,
        key: &ServingKey,
        names: &ServingNames,
        certificate: CertificateResponse,
        now: i64,
    ) -> Result<(), ClusterCertificateError> {
        let key = key.0.serialize_pem();
        let served = self.judge(&key, names, &certificate, now)?;
        *self.lock() = Some(Arc::new(served));
        if let Some(file) = &self.file
            && let Ok(text) = serde_json::to_string(&Kept { key, names: names.clone(), certificate })
            && let Err(error) = store(file, &text)
        {
            tracing::warn!(path = %file.display(), %error, "the certificate cannot be kept for a restart");
        }
        Ok(())
    }

    /// What is served, if anything is at `now`.
    #[must_use]
    pub fn certified(&self, now: i64) -> Option<Certified> {
        self.served_at(now).map(|served| served.certified.clone())
    }

    /// The TLS configuration for a client that wants a server of this name, if the certificate bears it at `now`.
    pub(crate) fn serving(&self, name: &ServerName<'_>, now: i64) -> Option<Arc<ServerConfig>> {
        let served = self.served_at(now)?;
        let certificate = ParsedCertificate::try_from(&served.leaf).ok()?;
        verify_server_name(&certificate, name).is_ok().then(|| Arc::clone(&served.tls))
    }

    fn served_at(&self, now: i64) -> Option<Arc<Served>> {
        let served = self.lock().clone()?;
        let Certified { not_before, not_after, .. } = served.certified;
        (not_before <= now && now < not_after.saturating_sub(MARGIN)).then_some(served)
    }

    fn judge(
        &self,
        key: &str,
        names: &ServingNames,
        certificate: &CertificateResponse,
        now: i64,
    ) -> Result<Served, ClusterCertificateError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|_| ClusterCertificateError::Unread)?;
        let leaf = chain.first().ok_or(ClusterCertificateError::Unread)?.clone();
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| ClusterCertificateError::Unread)?;
        let provider = default_provider();
        let parsed = ParsedCertificate::try_from(&leaf).map_err(ClusterCertificateError::Unusable)?;
        let others = chain.get(1..).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        let algorithms = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, others, time, algorithms)
            .map_err(ClusterCertificateError::OtherCa)?;
        let chance = leaf.last().copied().unwrap_or_default();
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(ClusterCertificateError::Unusable)?;
        let tls = Arc::new(leaf::server_config(Arc::new(HotCert::new(certified)))?);
        let CertificateResponse { not_before, not_after, .. } = *certificate;
        let certified = Certified { names: names.clone(), not_before, not_after, chance };
        Ok(Served { certified, leaf, tls })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Served>>> {
        // A panic leaves the one or the other certificate: either is a valid state.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ClusterCertificate {
    /// None, for clients that know no CA.
    fn default() -> Self {
        Self { roots: RootCertStore::empty(), file: None, served: Mutex::default() }
    }
}

impl fmt::Debug for ClusterCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCertificate").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What a client wants: the name that it asks for, else the address that it connects to.
pub(crate) fn wanted(name: Option<&str>, to: IpAddr) -> ServerName<'static> {
    let named = name.and_then(|name| ServerName::try_from(name.to_ascii_lowercase()).ok());
    named.unwrap_or_else(|| ServerName::from(to.to_canonical()))
}

fn read(file: &Path) -> Option<Kept> {
    let length = fs::metadata(file).ok()?.len();
    if length > MAX_FILE {
        return None;
    }
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests;
