//! The keys of a stream, expanded once a session and month.

use dtm_seal::{BatchCipher, DataKey, FingerprintKey, SourceKey, StreamSalts, TagKey};
use dtm_types::{Month, StreamKey};

/// Everything that sealing a batch of one stream needs.
pub(crate) struct BatchKeys {
    /// Id of the data key, 16 bytes.
    pub(crate) key_id: bytes::Bytes,
    pub(crate) month: Month,
    pub(crate) cipher: Box<dyn BatchCipher>,
    pub(crate) salts: StreamSalts,
    pub(crate) tags: TagKey,
    pub(crate) fingerprints: FingerprintKey,
}

impl BatchKeys {
    pub(crate) fn new(
        stream: &StreamKey,
        key_id: bytes::Bytes,
        month: Month,
        (data, cipher): (&DataKey, Box<dyn BatchCipher>),
        source: &SourceKey,
    ) -> Self {
        Self {
            key_id,
            month,
            cipher,
            salts: data.salt_key().stream(stream),
            tags: source.tag_key(),
            fingerprints: source.fingerprint_key(),
        }
    }

    /// Proof that an ack was given: 16 bytes under the source's key. No data set can have a name
    /// that begins with a zero byte, so no fingerprint is ever taken for one.
    pub(crate) fn ack_token(
        &self,
        stream: &StreamKey,
        incarnation: u64,
        through: u64,
    ) -> bytes::Bytes {
        let text = format!("{stream}\0{incarnation}\0{through}");
        bytes::Bytes::copy_from_slice(&self.fingerprints.fingerprint("\0ack", &text))
    }

    /// Whether a token is the one that came with this ack.
    pub(crate) fn proves(
        &self,
        stream: &StreamKey,
        incarnation: u64,
        through: u64,
        token: &[u8],
    ) -> bool {
        let given = self.ack_token(stream, incarnation, through);
        // In constant time: every byte is compared.
        let differ = given.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
        given.len() == token.len() && differ == 0
    }
}
