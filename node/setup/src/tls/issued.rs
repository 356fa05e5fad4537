//! Whether a certificate was issued under a CA, whatever the time is.

use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::provider;

/// Whether the chain, the certificate of a caller or node first, leads to one of the roots; looked at
/// as of a moment at which it is valid. False only where the signatures say so: a chain that fails
/// otherwise is for the handshake to judge.
pub fn is_issued_under(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    at_us: i64,
) -> bool {
    let Some((end, between)) = chain.split_first() else { return true };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider());
    let Ok(verifier) = verifier.build() else { return true };
    let at = UnixTime::since_unix_epoch(Duration::from_micros(u64::try_from(at_us).unwrap_or(0)));
    let refused = verifier.verify_client_cert(end, between, at).err();
    !matches!(
        refused,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ))
    )
}
