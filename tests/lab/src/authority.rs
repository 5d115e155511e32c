//! A CA that signs for any name.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair,
};
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, pki_types::PrivateKeyDer, sign::CertifiedKey};

/// A CA with a key of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new CA of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The server's certificate that a request (PKCS#10 in DER) asks for, in PEM.
    #[must_use]
    pub fn certify(&self, request: &[u8]) -> String {
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into()).unwrap();
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// A server's certificate for these names and addresses, with its key.
    #[must_use]
    pub fn leaf(&self, names: &[&str]) -> CertifiedKey {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap();
        CertifiedKey::new(vec![certificate.der().clone()], key)
    }
}
