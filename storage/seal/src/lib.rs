//! Sealing: how records are made unreadable, provable and recognisable.
//!
//! ```text
//!  master key ──seals──▶ cluster key ──wraps──▶ data key    (one a source and month)
//!  (file)                (keyring)             ├─ HKDF "seal" ─▶ Xaes256Gcm   seals batches
//!                                              └─ HKDF "salt" ─▶ SaltKey      salts record hashes
//!                                    ──wraps──▶ source key  (one a source, for good)
//!                                              ├─ HKDF "tag"  ─▶ TagKey       resend tags
//!                                              └─ HKDF "fingerprint" ─▶ FingerprintKey
//!                                    ──wraps──▶ audit key   (one a group and month; a DataKey)
//! ```
//!
//! Pure: no clock, no files and no randomness; keys and nonces are passed in by whoever holds
//! `Entropy`. The only crate that names an AEAD for what is stored; batches go through the seam [`BatchCipher`].
//! Nobody owns state here: the actor that serves a stream keeps the derived keys, the keyring of
//! the node keeps the cluster keys.
//!
//! Invariants (SEC-1): key memory is wiped when dropped and never printed; two batches under one
//! key are encrypted under two derived keys or two nonces as soon as their 24-byte nonces differ
//! in any bit; what was changed by one bit, or carries another header, is never opened; opening
//! that fails leaves no plaintext behind.

mod cipher;
mod keys;
mod mac;
mod wrap;

pub use cipher::{BatchCipher, NONCE_BYTES, Nonce, TAG_BYTES, Tag, Xaes256Gcm};
pub use keys::{ClusterKey, DataKey, KEY_BYTES, MasterKey, Secret, SourceKey};
pub use mac::{FingerprintKey, SaltKey, StreamSalts, TagKey};
pub use wrap::{WRAPPED_BYTES, WrapContext, unwrap_key, wrap_key};

/// Why something could not be sealed or opened. None is worth a retry with the same input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Ciphertext, tag, nonce or associated data are not those that were sealed, or the key is
    /// another one. Which of them cannot be told.
    #[error("sealed bytes were altered or belong to another key or header")]
    Unauthentic,
    /// More bytes than one AES-GCM message may hold (64 GiB).
    #[error("too many bytes for one sealed batch")]
    TooLong,
    /// A wrapped key of an unknown version.
    #[error("wrapped key is of version {0}, which this build does not know")]
    WrapVersion(u8),
    /// A wrapped key of another length.
    #[error("wrapped key has {found} bytes instead of 73")]
    WrapLength {
        /// Bytes found.
        found: usize,
    },
}
