//! Reads the few facts that matter from a certificate.

use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Error, Identity};

/// A certificate of this software. Its signature is not checked here: the TLS layer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The one `dtm://` name in it.
    pub identity: Identity,
    /// SHA-256 of the whole certificate (DER).
    pub digest: [u8; 32],
    /// Serial number, big endian.
    pub serial: Vec<u8>,
    /// First moment of validity, Unix microseconds.
    pub not_before_us: i64,
    /// Last moment of validity, Unix microseconds.
    pub not_after_us: i64,
}

impl Certificate {
    /// Reads an end-entity certificate (DER) that holds exactly one name of ours.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn parse(der: &[u8]) -> Result<Self, Error> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|_| Error::Certificate("not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(Error::Certificate("bytes after its end"));
        }
        if certificate.is_ca() {
            return Err(Error::Certificate("an issuing certificate cannot call"));
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| Error::Certificate("names are malformed"))?
            .ok_or(Error::Certificate("no alternative names"))?;
        let mut ours = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("dtm://") => Some(*uri),
            _ => None,
        });
        let uri = ours.next().ok_or(Error::Certificate("no dtm:// name"))?;
        if ours.next().is_some() {
            return Err(Error::Certificate("more than one dtm:// name"));
        }
        let validity = certificate.validity();
        Ok(Self {
            identity: Identity::parse(uri).ok_or(Error::Certificate("dtm:// name is malformed"))?,
            digest: Sha256::digest(der).into(),
            serial: certificate.raw_serial().to_vec(),
            not_before_us: validity.not_before.timestamp().saturating_mul(1_000_000),
            not_after_us: validity.not_after.timestamp().saturating_mul(1_000_000),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, IsCa, KeyPair, SanType};

    use super::*;

    fn with_names(uris: &[&str], is_ca: IsCa) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["node-1".to_owned()]).expect("a name");
        params.is_ca = is_ca;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("ascii")));
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    const SOURCE: &str = "dtm://cluster/0190c6a4-4c2b-7a10-8000-00000000000a/source/bo-tu-phap";

    #[test]
    fn the_one_name_is_read() {
        let der = with_names(&["https://example.test/x", SOURCE], IsCa::NoCa);
        let certificate = Certificate::parse(&der).expect("parses");
        assert_eq!(certificate.identity.to_string(), SOURCE);
        assert_eq!(certificate.digest, <[u8; 32]>::from(Sha256::digest(&der)));
        assert!(certificate.not_before_us < certificate.not_after_us);
    }

    #[test]
    fn none_two_and_issuers_are_refused() {
        for der in [
            with_names(&[], IsCa::NoCa),
            with_names(&[SOURCE, SOURCE], IsCa::NoCa),
            with_names(&["dtm://cluster/nobody"], IsCa::NoCa),
            with_names(&[SOURCE], IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            b"not a certificate".to_vec(),
            Vec::new(),
        ] {
            assert!(matches!(Certificate::parse(&der), Err(Error::Certificate(_))));
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut der = with_names(&[SOURCE], IsCa::NoCa);
        der.push(0);
        assert_eq!(Certificate::parse(&der), Err(Error::Certificate("bytes after its end")));
    }
}
