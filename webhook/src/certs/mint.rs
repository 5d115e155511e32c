//! Making single certificates, in a form that strict verifiers accept (RFC 5280; OpenSSL's `X509_STRICT`): ECDSA
//! P-256, authority and subject key identifiers, critical key usage and basic constraints, a server's extended key
//! usage, and times that are backdated against skewed clocks.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use x509_parser::pem::parse_x509_pem;

use super::{CertsError, Keyed};

/// How far before the present a certificate's life begins.
const BACKDATE: i64 = 300;
const DAY: i64 = 86_400;
/// Life of a root.
pub(super) const ROOT_LIFE: i64 = 3650 * DAY;
/// Life of an intermediate.
pub(super) const INTERMEDIATE_LIFE: i64 = 30 * DAY;
/// Life of a leaf; less than a third of an intermediate's, so that no leaf outlives its issuer.
pub(super) const LEAF_LIFE: i64 = 7 * DAY;

/// First and last second of a certificate, in Unix time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Validity {
    /// Whether two thirds of the life are over.
    pub(super) fn due(self, now: i64) -> bool {
        let life = self.until.saturating_sub(self.from);
        now >= self.from.saturating_add(life.saturating_mul(2) / 3)
    }
}

/// A self-signed root.
pub(super) fn root(now: i64) -> Result<Keyed, CertsError> {
    let failed = mint("root");
    let key = KeyPair::generate().map_err(failed)?;
    let params =
        authority(&format!("Podwitness root {now}"), now, ROOT_LIFE, BasicConstraints::Constrained(2));
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok(Keyed { cert: cert.pem(), key: key.serialize_pem() })
}

/// The certificate of `root` as `older` would have signed it, so that who trusts only `older` reaches `root`. It ends
/// with the older root.
pub(super) fn cross(root: &Keyed, older: &Keyed, now: i64) -> Result<String, CertsError> {
    let failed = mint("cross");
    let issuer = issuer(older, "root")?;
    let key = KeyPair::from_pem(&root.key).map_err(failed)?;
    let until = validity(&older.cert, "root")?.until;
    let mut params = authority("", now, until.saturating_sub(now), BasicConstraints::Constrained(1));
    params.distinguished_name = subject(root, "root")?;
    Ok(params.signed_by(&key, &issuer).map_err(failed)?.pem())
}

/// An intermediate under `root`.
pub(super) fn intermediate(root: &Keyed, now: i64) -> Result<Keyed, CertsError> {
    let failed = mint("intermediate");
    let key = KeyPair::generate().map_err(failed)?;
    let name = format!("Podwitness intermediate {now}");
    let params = authority(&name, now, INTERMEDIATE_LIFE, BasicConstraints::Constrained(0));
    let cert = params.signed_by(&key, &issuer(root, "root")?).map_err(failed)?;
    Ok(Keyed { cert: cert.pem(), key: key.serialize_pem() })
}

/// A server's certificate under `intermediate`.
pub(super) fn leaf(intermediate: &Keyed, names: &[String], now: i64) -> Result<Keyed, CertsError> {
    let failed = mint("leaf");
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = dated(CertificateParams::new(names).map_err(failed)?, now, LEAF_LIFE);
    params.distinguished_name.push(DnType::CommonName, names.last().map_or("", String::as_str));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.signed_by(&key, &issuer(intermediate, "intermediate")?).map_err(failed)?;
    Ok(Keyed { cert: cert.pem(), key: key.serialize_pem() })
}

/// The life of the first certificate in `pem`.
pub(super) fn validity(pem: &str, what: &'static str) -> Result<Validity, CertsError> {
    parsed(pem, what, |cert| Validity {
        from: cert.validity.not_before.timestamp(),
        until: cert.validity.not_after.timestamp(),
    })
}

/// Whether `issuer`'s key signed the first certificate in `pem`, and it is for exactly these DNS names.
pub(super) fn fits(pem: &str, issuer: &str, names: &[String]) -> Result<bool, CertsError> {
    let (_, issuer) = parse_x509_pem(issuer.as_bytes()).map_err(|_| CertsError::Read { what: "issuing" })?;
    let issuer = issuer.parse_x509().map_err(|_| CertsError::Read { what: "issuing" })?;
    parsed(pem, "leaf", |cert| {
        let signed =
            cert.issuer() == issuer.subject() && cert.verify_signature(Some(issuer.public_key())).is_ok();
        let mut has: Vec<&str> = dns_names(cert);
        let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        has.sort_unstable();
        wanted.sort_unstable();
        signed && has == wanted
    })
}

fn dns_names<'a>(cert: &x509_parser::certificate::X509Certificate<'a>) -> Vec<&'a str> {
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    let names = cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let dns = |name: &GeneralName<'a>| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    };
    names.into_iter().flatten().filter_map(dns).collect()
}

fn parsed<T>(
    pem: &str,
    what: &'static str,
    read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> Result<T, CertsError> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).map_err(|_| CertsError::Read { what })?;
    Ok(read(&block.parse_x509().map_err(|_| CertsError::Read { what })?))
}

fn authority(name: &str, now: i64, life: i64, constraints: BasicConstraints) -> CertificateParams {
    let mut params = dated(CertificateParams::default(), now, life);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn dated(mut params: CertificateParams, now: i64, life: i64) -> CertificateParams {
    let at = |unix: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    params.not_before = at(now.saturating_sub(BACKDATE));
    params.not_after = at(now.saturating_add(life));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params
}

fn issuer(from: &Keyed, what: &'static str) -> Result<Issuer<'static, KeyPair>, CertsError> {
    let key = KeyPair::from_pem(&from.key).map_err(mint(what))?;
    Issuer::from_ca_cert_pem(&from.cert, key).map_err(mint(what))
}

/// The subject of our own certificates is one common name.
fn subject(of: &Keyed, what: &'static str) -> Result<rcgen::DistinguishedName, CertsError> {
    let name = parsed(&of.cert, what, |cert| {
        cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(ToOwned::to_owned)
    })?;
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::CommonName, name.ok_or(CertsError::Read { what })?);
    Ok(subject)
}

fn mint(what: &'static str) -> impl FnOnce(rcgen::Error) -> CertsError + Copy {
    move |source| CertsError::Mint { what, source }
}

#[cfg(test)]
mod tests;
