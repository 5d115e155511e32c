//! Whether what a signer has issued is what was asked for, and stands under the CA that the cluster's clients know.

use std::{path::PathBuf, sync::Arc, time::Duration};

use podwitness_core::{
    control::{CertificateResponse, ServingNames},
    inject::SERVICE_ACCOUNT_DIR,
};
use rustls::{
    RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest, parse_x509_certificate, prelude::FromDer as _,
};

/// Certificates of a chain; a signer issues one, and rarely an intermediate.
const MAX_CHAIN: usize = 8;

/// Why an issued certificate is not handed on.
#[derive(Debug, Error)]
pub enum ChainError {
    /// The cluster's CA cannot be read.
    #[error("cannot read the cluster's CA at {0}; is the service account's volume mounted?")]
    Ca(PathBuf),
    /// What was issued is no chain.
    #[error("what the signer issued is no chain of certificates in PEM")]
    Unread,
    /// It is for another key.
    #[error("what the signer issued is for another key than was asked for")]
    Key,
    /// It stands under another CA.
    #[error("what the signer issued does not stand under the CA of kube-root-ca.crt")]
    OtherCa(#[source] rustls::Error),
    /// It is for other names.
    #[error("what the signer issued does not bear the name {0}")]
    Names(String),
}

/// The cluster's CA, read again for each certificate: kubelets replace the file when the cluster's CA changes.
#[derive(Clone, Debug)]
pub struct ClusterCa {
    path: PathBuf,
    provider: Arc<CryptoProvider>,
}

impl Default for ClusterCa {
    /// Where the kubelet puts ConfigMap `kube-root-ca.crt`.
    fn default() -> Self {
        Self::at(PathBuf::from(SERVICE_ACCOUNT_DIR).join("ca.crt"))
    }
}

impl ClusterCa {
    /// In the file at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, provider: Arc::new(default_provider()) }
    }

    /// Its certificates as roots.
    ///
    /// # Errors
    /// Where there are none.
    pub async fn roots(&self) -> Result<RootCertStore, ChainError> {
        let pem = tokio::fs::read(&self.path).await.unwrap_or_default();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        if roots.is_empty() { Err(ChainError::Ca(self.path.clone())) } else { Ok(roots) }
    }

    /// What is issued for `request` (PKCS#10 in DER) with these names, at `now` in Unix seconds.
    ///
    /// # Errors
    /// The first thing that is not as it has to be.
    pub async fn check(
        &self,
        pem: &[u8],
        request: &[u8],
        names: &ServingNames,
        now: i64,
    ) -> Result<CertificateResponse, ChainError> {
        let roots = self.roots().await?;
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| ChainError::Unread)?;
        let Some((leaf, others)) = chain.split_first().filter(|_| chain.len() <= MAX_CHAIN) else {
            return Err(ChainError::Unread);
        };
        let (not_before, not_after) = of_key(leaf, request)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|_| ChainError::Unread)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, now, algorithms)
            .map_err(ChainError::OtherCa)?;
        for (text, name) in server_names(names) {
            verify_server_name(&parsed, &name).map_err(|_| ChainError::Names(text))?;
        }
        let chain = String::from_utf8(pem.to_vec()).map_err(|_| ChainError::Unread)?;
        Ok(CertificateResponse { chain, not_before, not_after })
    }
}

/// The life of a certificate whose key is that of the request.
fn of_key(leaf: &CertificateDer<'_>, request: &[u8]) -> Result<(i64, i64), ChainError> {
    let (_, certificate) = parse_x509_certificate(leaf).map_err(|_| ChainError::Unread)?;
    let (_, request) = X509CertificationRequest::from_der(request).map_err(|_| ChainError::Unread)?;
    if certificate.public_key().raw != request.certification_request_info.subject_pki.raw {
        return Err(ChainError::Key);
    }
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// What clients ask for; no client asks for a wildcard.
fn server_names(names: &ServingNames) -> impl Iterator<Item = (String, ServerName<'static>)> {
    let dns = names.names.iter().filter_map(|name| {
        let parsed = ServerName::try_from(name.clone()).ok()?;
        Some((name.clone(), parsed))
    });
    dns.chain(names.addresses.iter().map(|ip| (ip.to_string(), ServerName::from(*ip))))
}

#[cfg(test)]
pub(super) mod testing {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
        ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
    };
    use tempfile::TempDir;

    use super::*;

    /// A cluster's CA, and the file in which it is published.
    pub struct TestCa {
        pub issuer: Issuer<'static, KeyPair>,
        pub file: ClusterCa,
        _dir: TempDir,
    }

    impl TestCa {
        pub fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ca.crt");
            std::fs::write(&path, pem).unwrap();
            Self { issuer: Issuer::new(params, key), file: ClusterCa::at(path), _dir: dir }
        }

        /// What the controller-manager's signer makes of a request, in PEM; it lives from 2026 to 2036.
        pub fn issue(&self, request: &[u8]) -> String {
            let mut csr = CertificateSigningRequestParams::from_der(&request.to_vec().into()).unwrap();
            csr.params.not_before = date_time_ymd(2026, 1, 1);
            csr.params.not_after = date_time_ymd(2036, 1, 1);
            csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            csr.signed_by(&self.issuer).unwrap().pem()
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::{
        super::request::testing::{names, request},
        testing::TestCa,
        *,
    };

    const NOW: i64 = 1_800_000_000;

    fn requested() -> Vec<u8> {
        request("u", &KeyPair::generate().unwrap())
    }

    #[tokio::test]
    async fn what_the_clusters_ca_has_issued_is_handed_on_with_its_life() {
        let (ca, request) = (TestCa::new("kubernetes"), requested());
        let pem = ca.issue(&request);
        let response = ca.file.check(pem.as_bytes(), &request, &names(), NOW).await.unwrap();
        assert_eq!(response.chain, pem);
        assert_eq!((response.not_before, response.not_after), (1_767_225_600, 2_082_758_400));
    }

    #[tokio::test]
    async fn what_is_of_another_ca_key_or_name_is_not_handed_on() {
        let (ca, other, request) = (TestCa::new("kubernetes"), TestCa::new("kubernetes"), requested());
        let pem = other.issue(&request);
        let error = ca.file.check(pem.as_bytes(), &request, &names(), NOW).await.unwrap_err();
        assert!(matches!(error, ChainError::OtherCa(_)), "{error}");
        let pem = ca.issue(&requested());
        let error = ca.file.check(pem.as_bytes(), &request, &names(), NOW).await.unwrap_err();
        assert!(matches!(error, ChainError::Key), "{error}");
        let pem = ca.issue(&request);
        let mut more = names();
        more.names.push("api.example.org".into());
        let error = ca.file.check(pem.as_bytes(), &request, &more, NOW).await.unwrap_err();
        assert!(error.to_string().contains("api.example.org"), "{error}");
        for text in ["", "no PEM", &pem.replace("M", "N")] {
            assert!(ca.file.check(text.as_bytes(), &request, &names(), NOW).await.is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn without_the_clusters_ca_nothing_is_believed() {
        let request = requested();
        let pem = TestCa::new("kubernetes").issue(&request);
        let nowhere = ClusterCa::at("/nowhere/ca.crt".into());
        let error = nowhere.check(pem.as_bytes(), &request, &names(), NOW).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.crt"), "{error}");
    }
}
