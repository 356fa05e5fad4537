//! One-time tokens with which a node joins: `dtmj_CA_SECRET`.
//!
//! CA is the SHA-256 of the cluster's root certificate, so that the joiner knows whom it speaks
//! to before it shows the secret; of the secret the cluster stores the hash.

use dtm_identity::SECRET_BYTES;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A token as the joiner holds it.
pub struct JoinToken {
    /// SHA-256 of the root certificate (DER).
    pub ca_digest: [u8; 32],
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl JoinToken {
    /// How long a token holds, microseconds.
    pub const VALID_US: i64 = 3_600_000_000;

    /// A token from fresh randomness for the cluster of this root certificate.
    pub fn new(root: &[u8], secret: [u8; SECRET_BYTES]) -> Self {
        Self { ca_digest: Sha256::digest(root).into(), secret: Zeroizing::new(secret) }
    }

    /// Reads a token; `None` where it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (ca, secret) = text.trim().strip_prefix("dtmj_")?.split_once('_')?;
        let mut token = Self { ca_digest: [0; 32], secret: Zeroizing::new([0; SECRET_BYTES]) };
        hex::decode_to_slice(ca, &mut token.ca_digest).ok()?;
        hex::decode_to_slice(secret, token.secret.as_mut()).ok()?;
        Some(token)
    }

    /// The text for the joiner, once.
    pub fn reveal(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex::encode(self.secret.as_ref()));
        Zeroizing::new(format!("dtmj_{}_{}", hex::encode(self.ca_digest), secret.as_str()))
    }

    /// What the cluster stores and compares.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_ref()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_others_refused() {
        let token = JoinToken::new(b"root", [9; 32]);
        let again = JoinToken::parse(&format!("{}\n", token.reveal().as_str())).expect("reads");
        assert_eq!((again.ca_digest, again.hash()), (token.ca_digest, token.hash()));
        for bad in ["", "dtmj_", "dtmj_00_00", "dtm_a_00_00", &token.reveal()[..80]] {
            assert!(JoinToken::parse(bad).is_none(), "{bad}");
        }
    }
}
