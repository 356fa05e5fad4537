//! The root of the cluster and its issuing certificate.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use zeroize::Zeroizing;

use super::{Error, ISSUING_DAYS, Issuing, ROOT_DAYS};

/// A new authority: what stays offline and what the cluster works with.
pub struct Authority {
    /// The root certificate: everybody trusts it.
    pub root: CertificateDer<'static>,
    /// The root's key (PEM): kept offline.
    pub root_key: Zeroizing<String>,
    /// Signs everything else.
    pub issuing: Issuing,
}

/// Makes root and issuing certificate for a cluster of that name.
///
/// # Errors
/// [`Error::Make`].
pub fn make_authority(cluster_name: &str, now_us: i64) -> Result<Authority, Error> {
    let root_key = KeyPair::generate()?;
    let root_params = issuer_params(&format!("DTM {cluster_name} root"), 1, ROOT_DAYS, now_us);
    let root = root_params.self_signed(&root_key)?;

    let issuing_key = KeyPair::generate()?;
    let issuing_params =
        issuer_params(&format!("DTM {cluster_name} issuing"), 0, ISSUING_DAYS, now_us);
    let issuing =
        issuing_params.signed_by(&issuing_key, &Issuer::from_params(&root_params, &root_key))?;
    Ok(Authority {
        root: root.der().clone(),
        root_key: Zeroizing::new(root_key.serialize_pem()),
        issuing: Issuing::new(issuing.der().clone(), Zeroizing::new(issuing_key.serialize_der())),
    })
}

fn issuer_params(name: &str, path_length: u8, days: u32, now_us: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now_us, days);
    params
}

/// A subject of one common name. Longer than X.520 allows (64 characters) is cut.
pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

/// Valid from five minutes ago (clocks differ) for so many days, under a fresh random serial.
pub(super) fn set_validity(params: &mut CertificateParams, now_us: i64, days: u32) {
    let now_s = u64::try_from(now_us / 1_000_000).unwrap_or(0);
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(300));
    params.not_after = epoch + Duration::from_secs(now_s + u64::from(days) * 86_400);
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).expect("the operating system gives randomness");
    // Positive and never zero, as RFC 5280 asks.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}
