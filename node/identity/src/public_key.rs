//! The public key of a certificate, for signatures that are not TLS's.

use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;

/// How the key of a certificate signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA over P-256 with SHA-256.
    P256,
    /// ECDSA over P-384 with SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// The public key of an end-entity certificate (DER): its kind, and its bytes as they stand in it.
///
/// # Errors
/// [`Error::Certificate`], also for keys of other kinds.
pub fn public_key(der: &[u8]) -> Result<(KeyKind, Vec<u8>), Error> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|_| Error::Certificate("not an X.509 certificate"))?;
    let key = certificate.public_key();
    let curve = key.algorithm.parameters.as_ref().and_then(|of| of.as_oid().ok());
    let kind = if key.algorithm.algorithm == OID_SIG_ED25519 {
        Some(KeyKind::Ed25519)
    } else if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        None
    } else if curve.as_ref() == Some(&OID_EC_P256) {
        Some(KeyKind::P256)
    } else {
        (curve.as_ref() == Some(&OID_NIST_EC_P384)).then_some(KeyKind::P384)
    };
    let kind = kind.ok_or(Error::Certificate("its key is none of P-256, P-384 and Ed25519"))?;
    Ok((kind, key.subject_public_key.data.to_vec()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn keys_are_told_as_they_are() {
        let kinds = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::P256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::P384),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519),
        ];
        for (algorithm, kind) in kinds {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let params = CertificateParams::new(vec!["lan".to_owned()]).expect("a name");
            let signed = params.self_signed(&key).expect("signed");
            assert_eq!(public_key(signed.der()).expect("read"), (kind, key.der_bytes().to_vec()));
        }
        assert!(public_key(b"nothing").is_err());
    }
}
