//! A renewed key and certificate in the place of those that a node has.
//!
//! ```text
//!  KEY.renewed   the new key and its chain in one file (PEM, 0600), synced: the renewal holds
//!     ─▶ KEY replaced ─▶ CERTIFICATE replaced ─▶ KEY.renewed removed
//! ```
//! Key and certificate are two files and cannot be replaced as one: a crash between them would leave
//! a pair that does not fit, with which no node starts. Who starts completes what it finds.
//!
//! Owner of the state: the files; one process at a time writes them.

use std::path::Path;

use dtm_identity::Certificate;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::files::{read, remove, replace, with_ending};
use super::{Error, pem};

const ENDING: &str = ".renewed";
/// Where the chain begins in the file of a renewal.
const CHAIN: &str = "-----BEGIN CERTIFICATE-----";

/// Whether a node is to renew its certificate by itself: this share of its life, in hundredths, or
/// less is left of it. Share 0: never.
pub fn is_due(own: &Certificate, left_percent: u64, now_us: i64) -> bool {
    let life = i128::from(own.not_after_us) - i128::from(own.not_before_us);
    let left = i128::from(own.not_after_us) - i128::from(now_us);
    left_percent > 0 && left * 100 <= life * i128::from(left_percent)
}

/// Puts key (PEM) and chain in the place of those that are there. Durable when it returns.
///
/// # Errors
/// [`Error::Io`]: the old pair, or one that the next start completes.
pub fn replace_pair(
    certificate: &Path,
    key: &Path,
    key_pem: &str,
    chain: &[CertificateDer<'static>],
) -> Result<(), Error> {
    let both = Zeroizing::new(format!("{}\n{}", key_pem.trim_end(), pem(chain)));
    replace(&with_ending(key, ENDING), both.as_bytes(), 0o600)?;
    complete(certificate, key).map(|_| ())
}

/// Completes a renewal that was begun; whether there was one.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`] where the file of the renewal is not one.
pub fn complete(certificate: &Path, key: &Path) -> Result<bool, Error> {
    let begun = with_ending(key, ENDING);
    if !begun.exists() {
        return Ok(false);
    }
    let text = Zeroizing::new(read(&begun)?);
    let malformed = |what: &str| Error::Malformed { path: begun.clone(), what: what.to_owned() };
    let text = std::str::from_utf8(&text).map_err(|_| malformed("not PEM"))?;
    let at = text.find(CHAIN).ok_or_else(|| malformed("it holds no certificate"))?;
    let (key_pem, chain) = text.split_at(at);
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    if key_pem.trim().is_empty() || certificates.is_err() {
        return Err(malformed("it holds no key, or half a certificate"));
    }
    replace(key, key_pem.as_bytes(), 0o600)?;
    replace(certificate, chain.as_bytes(), 0o644)?;
    remove(&begun)?;
    Ok(true)
}
