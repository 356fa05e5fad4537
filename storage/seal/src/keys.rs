//! Key types. Each holds 32 bytes that are wiped when it is dropped, and none can be printed,
//! compared, copied or serialised by accident.

use crate::cipher::Xaes256Gcm;
use crate::mac::{FingerprintKey, SaltKey, TagKey};
use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of every key: 256 bits.
pub const KEY_BYTES: usize = 32;

/// A 256-bit key that can be wrapped by another one.
pub trait Secret: Sized {
    /// The key made of these bytes, which must come from the operating system's randomness or
    /// from an unwrapped key. The caller's copy is wiped.
    fn from_bytes(bytes: &mut [u8; KEY_BYTES]) -> Self;

    /// The bytes, for wrapping and deriving only.
    fn expose(&self) -> &[u8; KEY_BYTES];
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_BYTES]);

        impl Secret for $name {
            fn from_bytes(bytes: &mut [u8; KEY_BYTES]) -> Self {
                let key = Self(*bytes);
                bytes.zeroize();
                key
            }

            fn expose(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret! {
    /// The key of one source and month, or of a group's audit details and month.
    DataKey
}
secret! {
    /// The key of one source for good: it must outlive the months, because a record sent again
    /// in the next month has to be recognised.
    SourceKey
}
secret! {
    /// A key of the cluster, which wraps data, source and audit keys. Lives in the keyring.
    ClusterKey
}
secret! {
    /// The key outside the system, from a file or a KMS, which seals the keyring of cluster keys.
    MasterKey
}

impl DataKey {
    /// What seals and opens batches under this key; keep it, making it expands a key schedule.
    #[must_use]
    pub fn cipher(&self) -> Xaes256Gcm {
        Xaes256Gcm::new(&derive(&self.0, b"dtm v1 seal"))
    }

    /// What salts record hashes under this key.
    #[must_use]
    pub fn salt_key(&self) -> SaltKey {
        SaltKey::new(&derive(&self.0, b"dtm v1 salt"))
    }
}

impl SourceKey {
    /// What makes resend tags of this source.
    #[must_use]
    pub fn tag_key(&self) -> TagKey {
        TagKey::new(&derive(&self.0, b"dtm v1 resend tag"))
    }

    /// What makes fingerprints of this source's message ids.
    #[must_use]
    pub fn fingerprint_key(&self) -> FingerprintKey {
        FingerprintKey::new(&derive(&self.0, b"dtm v1 fingerprint"))
    }
}

impl MasterKey {
    /// What seals and opens the keyring.
    #[must_use]
    pub fn cipher(&self) -> Xaes256Gcm {
        Xaes256Gcm::new(&derive(&self.0, b"dtm v1 keyring"))
    }

    /// Sixteen bytes that tell this master key from another one and say nothing else about it,
    /// so that a keyring can say "wrong master key" instead of "damaged".
    #[must_use]
    pub fn check_value(&self) -> [u8; 16] {
        let derived = derive(&self.0, b"dtm v1 master key check");
        let mut check = [0u8; 16];
        check.copy_from_slice(&derived[..16]);
        check
    }
}

/// HKDF-SHA256 without salt: the input is a uniformly random key already.
fn derive(key: &[u8; KEY_BYTES], label: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut derived = Zeroizing::new([0u8; KEY_BYTES]);
    Hkdf::<Sha256>::new(None, key)
        .expand(label, derived.as_mut())
        .expect("32 bytes are within HKDF's limit of 8,160");
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_prints_itself() {
        let bytes = [0xab; 32];
        for printed in [
            format!("{:?}", DataKey::from_bytes(&mut bytes.clone())),
            format!("{:?}", SourceKey::from_bytes(&mut bytes.clone())),
            format!("{:?}", ClusterKey::from_bytes(&mut bytes.clone())),
            format!("{:?}", MasterKey::from_bytes(&mut bytes.clone())),
            format!("{:?}", DataKey::from_bytes(&mut bytes.clone()).cipher()),
            format!("{:?}", DataKey::from_bytes(&mut bytes.clone()).salt_key()),
            format!("{:?}", SourceKey::from_bytes(&mut bytes.clone()).tag_key()),
            format!("{:?}", SourceKey::from_bytes(&mut bytes.clone()).fingerprint_key()),
        ] {
            assert!(printed.ends_with("(…)"), "{printed}");
        }
    }

    #[test]
    fn the_callers_copy_is_wiped() {
        let mut bytes = [7u8; 32];
        let key = DataKey::from_bytes(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(key.expose(), &[7; 32]);
    }

    #[test]
    fn subkeys_are_distinct_and_golden() {
        let key = [1u8; 32];
        let labels: [&[u8]; 5] = [
            b"dtm v1 seal",
            b"dtm v1 salt",
            b"dtm v1 resend tag",
            b"dtm v1 fingerprint",
            b"dtm v1 master key check",
        ];
        let derived: Vec<String> = labels.iter().map(|l| hex::encode(derive(&key, l))).collect();
        assert_eq!(derived, GOLDEN);
    }

    /// From an independent implementation (Python's hmac module), key 01 × 32.
    const GOLDEN: [&str; 5] = [
        "7f291744eef7e4245a68c5b300d46326ef4a567fb71015c6337160b4e7752ed2",
        "bc215f53355c93c9705e44e831fb39f388c394646ea96b7caff62cd8f7c40f3a",
        "063aad5cd239d9907670e3a57210c38b287d4b17ac039db2d0b83b297e3b709f",
        "8debc79e711142df8e2a67b3d4e0bb496ed448e40cb5239a91059aaaf3f496c5",
        "60fc70b24e19367768eddcff2b3befdbb7dba4b21f0ec8b7bcc13db98fc85ef2",
    ];
}
