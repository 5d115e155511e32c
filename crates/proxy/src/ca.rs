//! The in-pod CA: signs the certificates under which the proxy poses as the API server, for this pod alone.
//!
//! It lives as long as the pod, because clients read it once; its leaves are minted for a fixed set of names, and the
//! names and addresses of the API server's own certificate, and replaced at will. These can change while the pod lives,
//! so that the CA constrains none (RFC 5280 §4.2.1.10). Profile: P-256, authority and subject key identifiers, key
//! usages, path length 0, backdated five minutes, which the strict verifiers of OpenSSL, Go, Java and rustls accept.

mod client_auth;
mod cluster;
mod leaf;

pub(crate) use cluster::wanted;
pub use cluster::{Certified, ClusterCertificate, ClusterCertificateError, ServingKey};
pub use leaf::Leaves;

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, string::Ia5String,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use thiserror::Error;

use crate::ServerNames;

/// File in the state directory that holds key and certificate together, so that they cannot be torn apart.
const FILE: &str = "pod-ca.pem";
const BACKDATE: i64 = 300;
const CA_LIFE: i64 = 3650 * 86_400;
const LEAF_LIFE: i64 = 2 * 86_400;

/// The CA of one pod.
pub struct PodCa {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    names: Vec<String>,
}

/// Why there is no in-pod CA, or no leaf of it. No variant holds a key.
#[derive(Debug, Error)]
pub enum CaError {
    /// A key or certificate cannot be made.
    #[error("cannot make a key or certificate")]
    Make(#[from] rcgen::Error),
    /// The stored CA cannot be read.
    #[error("cannot read the in-pod CA at {path}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The CA cannot be stored.
    #[error("cannot store the in-pod CA at {path}; is the state volume mounted and writable?")]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stored CA is no CA. A new one would be trusted by nobody, so that none is made.
    #[error("the in-pod CA at {0} is damaged; restart the pod")]
    Damaged(PathBuf),
    /// The TLS library refuses the certificate or key.
    #[error("cannot serve the certificate")]
    Serve(#[from] rustls::Error),
}

impl PodCa {
    /// Loads the CA of this pod from `dir`, or makes one and stores it there. All of its leaves bear `names`.
    ///
    /// # Errors
    /// Where it can neither be read nor made, and where what is stored is damaged.
    pub fn load_or_create(dir: &Path, names: &[String], now: i64) -> Result<Self, CaError> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, names).ok_or(CaError::Damaged(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (ca, text) = Self::create(names, now)?;
                store(&path, &text).map_err(|source| CaError::Write { path, source })?;
                Ok(ca)
            }
            Err(source) => Err(CaError::Read { path, source }),
        }
    }

    /// The certificate that clients of the pod have to trust, in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Mints a leaf with a fresh key for the names that all leaves bear and for `names`.
    ///
    /// # Errors
    /// Where the cryptographic library fails.
    pub fn mint(&self, names: &ServerNames, now: i64) -> Result<CertifiedKey, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(self.names.clone())?;
        for name in names.dns().filter(|name| self.names.iter().all(|own| own != name)) {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name)?));
        }
        params.subject_alt_names.extend(names.addresses().map(SanType::IpAddress));
        params.distinguished_name = name("podwitness");
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        live(&mut params, now, LEAF_LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?))
    }

    fn create(names: &[String], now: i64) -> Result<(Self, String), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = ca_params(&key);
        live(&mut params, now, CA_LIFE);
        let certificate_pem = params.self_signed(&key)?.pem();
        let text = format!("{}{certificate_pem}", key.serialize_pem());
        let ca = Self { issuer: Issuer::new(params, key), certificate_pem, names: names.to_vec() };
        Ok((ca, text))
    }

    /// The issuer's parameters follow from its key, so that the certificate need not be taken apart.
    fn parse(text: &str, names: &[String]) -> Option<Self> {
        let key = KeyPair::from_pem(text).ok()?;
        let begin = text.find("-----BEGIN CERTIFICATE-----")?;
        let certificate_pem = text.get(begin..)?.to_owned();
        CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
        let params = ca_params(&key);
        Some(Self { issuer: Issuer::new(params, key), certificate_pem, names: names.to_vec() })
    }
}

impl fmt::Debug for PodCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodCa").field("names", &self.names).finish_non_exhaustive()
    }
}

fn ca_params(key: &KeyPair) -> CertificateParams {
    let hash = digest::digest(&digest::SHA256, key.der_bytes());
    let id: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    // Bundles tell CAs apart by subject; two pods' CAs must not look the same.
    params.distinguished_name = name(&format!("podwitness in-pod CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn live(params: &mut CertificateParams, now: i64, life: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |unix: i64| epoch + Duration::from_secs(unix.max(0).unsigned_abs());
    params.not_before = at(now.saturating_sub(BACKDATE));
    params.not_after = at(now.saturating_add(life));
}

fn store(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests;
