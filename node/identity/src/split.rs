//! Whether two people signed a promotion without the places.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use dtm_types::command::OperatorRow;
use dtm_types::split::{SPLIT_SIGNATURES, SplitRequest};
use sha2::{Digest, Sha256};

use crate::{KeyKind, public_key};

/// Signatures that are looked at: more are no use.
const SIGNATURES_MAX: usize = 8;

/// Why it is not signed as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// A signature does not belong to the request, or its certificate to nobody who may decide now.
    #[error("a signature is of nobody in force, or not of this request")]
    Signature,
    /// Too few different people, or none of them an operator.
    #[error("two different people sign, one of them an operator")]
    People,
}

/// The people who signed: an operator, and another operator or an approver, all in force by these rows
/// at this time (Unix microseconds). `signatures` are certificates (DER) with what their keys signed.
///
/// # Errors
/// [`NotSigned`]. One wrong signature spoils the request.
pub fn signed_by(
    rows: &[OperatorRow],
    request: &SplitRequest,
    signatures: &[(&[u8], &[u8])],
    now_us: i64,
) -> Result<Vec<OperatorRow>, NotSigned> {
    let text = request.signed_text();
    let mut people: Vec<&OperatorRow> = Vec::new();
    for (certificate, signature) in signatures.iter().take(SIGNATURES_MAX) {
        let who = person(rows, certificate, now_us);
        let is_valid = is_signed(certificate, signature, text.as_bytes());
        let who = who.filter(|_| is_valid).ok_or(NotSigned::Signature)?;
        if people.iter().all(|known| known.id != who.id) {
            people.push(who);
        }
    }
    let has_operator = people.iter().any(|who| who.role == "operator");
    if people.len() < SPLIT_SIGNATURES || !has_operator {
        return Err(NotSigned::People);
    }
    Ok(people.into_iter().cloned().collect())
}

/// Who has this certificate, in force and of a role that decides.
fn person<'a>(rows: &'a [OperatorRow], certificate: &[u8], now_us: i64) -> Option<&'a OperatorRow> {
    let digest = Sha256::digest(certificate);
    rows.iter().find(|row| {
        row.certificate_digest[..] == digest[..]
            && !row.revoked
            && row.not_after_us > now_us
            && matches!(&*row.role, "operator" | "approver")
    })
}

fn is_signed(certificate: &[u8], signature: &[u8], text: &[u8]) -> bool {
    let Ok((kind, key)) = public_key(certificate) else { return false };
    let algorithm: &'static dyn VerificationAlgorithm = match kind {
        KeyKind::P256 => &ECDSA_P256_SHA256_ASN1,
        KeyKind::P384 => &ECDSA_P384_SHA384_ASN1,
        KeyKind::Ed25519 => &ED25519,
    };
    UnparsedPublicKey::new(algorithm, key).verify(text, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use dtm_types::{ClusterId, Incarnation, NodeId};
    use rcgen::{CertificateParams, KeyPair, SigningKey};

    use super::*;

    const NOW_US: i64 = 1_500;

    struct Person {
        key: KeyPair,
        certificate: Vec<u8>,
        row: OperatorRow,
    }

    impl Person {
        fn new(id: u8, role: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let params = CertificateParams::new(vec![format!("o{id}")]).expect("a name");
            let certificate = params.self_signed(&key).expect("signed").der().to_vec();
            let row = OperatorRow {
                id: vec![id; 16].into(),
                name: format!("o{id}"),
                role: role.to_owned(),
                certificate_digest: Sha256::digest(&certificate).to_vec().into(),
                not_after_us: NOW_US + 1,
                ..OperatorRow::default()
            };
            Self { key, certificate, row }
        }

        fn sign(&self, request: &SplitRequest) -> (Vec<u8>, Vec<u8>) {
            let signature = self.key.sign(request.signed_text().as_bytes()).expect("signs");
            (self.certificate.clone(), signature)
        }
    }

    fn request() -> SplitRequest {
        SplitRequest {
            cluster: ClusterId([1; 16]),
            life: Incarnation(1),
            next: Incarnation(1_001),
            site: "b".to_owned(),
            coordinator: NodeId([2; 16]),
            made_us: 1_000,
            expires_us: 2_000,
            reason: "both other places burned".to_owned(),
        }
    }

    fn signed(
        rows: &[OperatorRow],
        signatures: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Vec<String>, NotSigned> {
        let signatures: Vec<(&[u8], &[u8])> =
            signatures.iter().map(|(of, by)| (&of[..], &by[..])).collect();
        let people = signed_by(rows, &request(), &signatures, NOW_US)?;
        Ok(people.into_iter().map(|who| who.name).collect())
    }

    // holds: SEC-2
    #[test]
    fn two_people_in_force_sign_exactly_this_and_nobody_else_does() {
        let an = Person::new(1, "operator", &rcgen::PKCS_ECDSA_P256_SHA256);
        let binh = Person::new(2, "approver", &rcgen::PKCS_ED25519);
        let chi = Person::new(3, "approver", &rcgen::PKCS_ECDSA_P384_SHA384);
        let auditor = Person::new(4, "auditor", &rcgen::PKCS_ECDSA_P256_SHA256);
        let stranger = Person::new(5, "operator", &rcgen::PKCS_ECDSA_P256_SHA256);
        let rows: Vec<OperatorRow> = [&an, &binh, &chi, &auditor].map(|of| of.row.clone()).into();
        let by = |people: &[&Person]| -> Vec<_> {
            people.iter().map(|of| of.sign(&request())).collect()
        };
        assert_eq!(signed(&rows, &by(&[&an, &binh])), Ok(vec!["o1".into(), "o2".into()]));
        assert_eq!(signed(&rows, &by(&[&chi, &an])), Ok(vec!["o3".into(), "o1".into()]));

        assert_eq!(signed(&rows, &by(&[&an])), Err(NotSigned::People));
        assert_eq!(signed(&rows, &by(&[&an, &an])), Err(NotSigned::People), "one person twice");
        assert_eq!(signed(&rows, &by(&[&binh, &chi])), Err(NotSigned::People), "no operator");
        assert_eq!(signed(&rows, &[]), Err(NotSigned::People));
        assert_eq!(signed(&rows, &by(&[&an, &auditor])), Err(NotSigned::Signature));
        assert_eq!(signed(&rows, &by(&[&an, &stranger])), Err(NotSigned::Signature));
        let other = SplitRequest { site: "c".to_owned(), ..request() };
        let of_other = [an.sign(&request()), binh.sign(&other)];
        assert_eq!(signed(&rows, &of_other), Err(NotSigned::Signature), "another request");
        let taken = [an.sign(&request()), (binh.certificate.clone(), an.sign(&request()).1)];
        assert_eq!(signed(&rows, &taken), Err(NotSigned::Signature), "another's signature");

        for change in [
            |row: &mut OperatorRow| row.revoked = true,
            |row: &mut OperatorRow| row.not_after_us = NOW_US,
            |row: &mut OperatorRow| row.role = "auditor".to_owned(),
        ] {
            let mut rows = rows.clone();
            change(&mut rows[1]);
            assert_eq!(signed(&rows, &by(&[&an, &binh])), Err(NotSigned::Signature));
        }
        // One person under two certificates is one.
        let mut again = Person::new(6, "operator", &rcgen::PKCS_ECDSA_P256_SHA256);
        again.row.id = an.row.id.clone();
        let rows = [an.row.clone(), again.row.clone()];
        assert_eq!(signed(&rows, &by(&[&an, &again])), Err(NotSigned::People));
    }
}
