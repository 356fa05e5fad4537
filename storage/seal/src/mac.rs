//! Salts, resend tags and fingerprints: HMAC-SHA256 cut to 16 bytes.
//!
//! Hot path: once a record each. The two key blocks of HMAC are hashed once, when the key is
//! made; a salt then costs two compressions.

use crate::keys::KEY_BYTES;
use dtm_types::StreamKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

type HmacSha256 = Hmac<Sha256>;

/// Bytes that SHA-256 takes at once.
const BLOCK_BYTES: usize = 64;

/// Makes salts of record hashes; derived from a data key.
#[derive(Clone)]
pub struct SaltKey(HmacSha256);

/// Makes the salts of one stream under one data key.
#[derive(Clone)]
pub struct StreamSalts(HmacSha256);

/// Makes resend tags; derived from a source key.
#[derive(Clone)]
pub struct TagKey(HmacSha256);

/// Makes fingerprints of message ids; derived from a source key.
#[derive(Clone)]
pub struct FingerprintKey(HmacSha256);

impl SaltKey {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(keyed(key))
    }

    /// The salts of one stream. Keep it for the life of a session and data key.
    ///
    /// The names go in with their lengths, filled with zeros to a whole block, so that each salt
    /// starts from a hash state that already holds them.
    #[must_use]
    pub fn stream(&self, key: &StreamKey) -> StreamSalts {
        let mut mac = self.0.clone();
        feed_name(&mut mac, key.source.as_str());
        feed_name(&mut mac, &key.stream);
        let over = (4 + key.source.as_str().len() + key.stream.len()) % BLOCK_BYTES;
        if over > 0 {
            mac.update(&[0; BLOCK_BYTES][over..]);
        }
        StreamSalts(mac)
    }

    /// The salt of one record; for many records of one stream use [`SaltKey::stream`].
    #[must_use]
    pub fn salt(&self, key: &StreamKey, sequence: u64) -> [u8; 16] {
        self.stream(key).salt(sequence)
    }
}

impl StreamSalts {
    /// The salt of the record at `sequence`.
    #[must_use]
    pub fn salt(&self, sequence: u64) -> [u8; 16] {
        finish(&self.0, &[&sequence.to_be_bytes()])
    }
}

impl TagKey {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(keyed(key))
    }

    /// Tells "the same content again" from other content: over the canonical bytes of a record,
    /// or the raw bytes of a refused one.
    #[must_use]
    pub fn resend_tag(&self, content: &[u8]) -> [u8; 16] {
        finish(&self.0, &[content])
    }
}

impl FingerprintKey {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(keyed(key))
    }

    /// Tells whether this source already sent a message of this id for this data set, through
    /// whatever door or stream.
    ///
    /// # Panics
    /// If the data set's name is 64 KiB or longer; names are bounded where they are parsed.
    #[must_use]
    pub fn fingerprint(&self, dataset: &str, message_id: &str) -> [u8; 16] {
        let mut mac = self.0.clone();
        feed_name(&mut mac, dataset);
        finish(&mac, &[message_id.as_bytes()])
    }
}

fn keyed(key: &[u8; KEY_BYTES]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Length (2 bytes, big endian) and bytes, so that no two pairs of names read alike.
fn feed_name(mac: &mut HmacSha256, name: &str) {
    let bytes =
        u16::try_from(name.len()).expect("ids are bounded far below 64 KiB where they are parsed");
    mac.update(&bytes.to_be_bytes());
    mac.update(name.as_bytes());
}

fn finish(keyed: &HmacSha256, parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    let whole = mac.finalize().into_bytes();
    let mut cut = [0u8; 16];
    cut.copy_from_slice(&whole[..16]);
    cut
}

macro_rules! hidden {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
hidden!(SaltKey, StreamSalts, TagKey, FingerprintKey);

#[cfg(test)]
#[path = "mac_test.rs"]
mod tests;
