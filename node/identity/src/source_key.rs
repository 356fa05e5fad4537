//! Source keys: `dtm_SOURCE_KEYID_SECRET`, 8 and 32 random bytes in hexadecimal.
//!
//! The secret is random, so one SHA-256 of it is stored and no slow hash is needed. It is shown
//! once, when the key is issued.

use std::fmt;

use dtm_types::SourceId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::Error;

/// Bytes of a key's id.
pub const KEY_ID_BYTES: usize = 8;
/// Bytes of a key's secret.
pub const SECRET_BYTES: usize = 32;

/// A source key as its owner holds it. Wiped when dropped; never printed by `Debug`.
pub struct SourceKey {
    source: SourceId,
    key_id: [u8; KEY_ID_BYTES],
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl SourceKey {
    /// A key from fresh randomness. The caller's secret is taken over and wiped.
    pub fn new(
        source: SourceId,
        key_id: [u8; KEY_ID_BYTES],
        secret: &mut [u8; SECRET_BYTES],
    ) -> Self {
        let held = Zeroizing::new(*secret);
        secret.zeroize();
        Self { source, key_id, secret: held }
    }

    /// Reads what a source showed. Takes the same time for every well-formed key.
    ///
    /// # Errors
    /// [`Error::SourceKey`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("dtm_").ok_or(Error::SourceKey)?;
        // A source's code may hold underscores, hexadecimal may not: read from the right.
        let mut parts = rest.rsplitn(3, '_');
        let (Some(secret), Some(key_id), Some(source)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::SourceKey);
        };
        let source = SourceId::parse(source).ok_or(Error::SourceKey)?;
        let mut id = [0; KEY_ID_BYTES];
        decode(key_id, &mut id)?;
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        decode(secret, bytes.as_mut())?;
        Ok(Self { source, key_id: id, secret: bytes })
    }

    /// The text to hand to the source, once.
    pub fn reveal(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex::encode(self.secret.as_ref()));
        Zeroizing::new(format!(
            "dtm_{}_{}_{}",
            self.source,
            hex::encode(self.key_id),
            secret.as_str()
        ))
    }

    /// The source that the key says it belongs to: not yet proved.
    pub fn source(&self) -> &SourceId {
        &self.source
    }

    /// Shown in lists and logs.
    pub fn key_id(&self) -> [u8; KEY_ID_BYTES] {
        self.key_id
    }

    /// What is stored of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_ref()).into()
    }

    /// Compares with a stored hash in constant time.
    pub fn matches(&self, stored_hash: &[u8]) -> bool {
        self.secret_hash().as_slice().ct_eq(stored_hash).into()
    }
}

impl fmt::Debug for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceKey({}, {})", self.source, hex::encode(self.key_id))
    }
}

/// Lower case only: one spelling a key.
fn decode(text: &str, into: &mut [u8]) -> Result<(), Error> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Error::SourceKey);
    }
    hex::decode_to_slice(text, into).map_err(|_| Error::SourceKey)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(source: &str) -> SourceKey {
        SourceKey::new(SourceId::parse(source).expect("a code"), [7; 8], &mut [9; 32])
    }

    #[test]
    fn what_is_revealed_is_read_back() {
        for source in ["a", "tinh_01", "a_b_c", "x-1.y"] {
            let key = key(source);
            let again = SourceKey::parse(&key.reveal()).expect("parses");
            assert_eq!(again.source().as_str(), source);
            assert_eq!(again.key_id(), [7; 8]);
            assert!(again.matches(&key.secret_hash()));
        }
    }

    #[test]
    fn the_secret_is_taken_over_and_not_printed() {
        let mut secret = [9; 32];
        let key = SourceKey::new(SourceId::parse("a").expect("a code"), [7; 8], &mut secret);
        assert_eq!(secret, [0; 32]);
        // holds: SEC-1
        assert!(!format!("{key:?}").contains("0909"));
    }

    #[test]
    fn another_secret_does_not_match() {
        let other = SourceKey::new(SourceId::parse("a").expect("a code"), [7; 8], &mut [8; 32]);
        assert!(!key("a").matches(&other.secret_hash()));
        assert!(!key("a").matches(b"short"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(dtm_)?[a-zA-Z0-9_.-]{0,140}") {
            if let Ok(key) = SourceKey::parse(&text) {
                let revealed = key.reveal();
                prop_assert_eq!(revealed.as_str(), text.as_str());
            }
        }
    }
}
