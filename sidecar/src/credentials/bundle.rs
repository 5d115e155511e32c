//! CA bundles in PEM (RFC 7468).

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Puts `first` in front of a bundle of which a certificate is `wanted`; anything else stays as it is, also a bundle
/// that begins with `first` already.
pub(super) fn put_first(bundle: &mut Vec<u8>, first: &str, wanted: impl Fn(&CertificateDer<'_>) -> bool) {
    let certificates = certificates(bundle);
    if !certificates.iter().any(wanted) || bundle.starts_with(first.as_bytes()) {
        return;
    }
    let separator = if first.ends_with('\n') { "" } else { "\n" };
    *bundle = [first.as_bytes(), separator.as_bytes(), bundle].concat();
}

/// The certificates of a bundle; none where it is no bundle.
pub(super) fn certificates(bundle: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bundle).filter_map(Result::ok).collect()
}
