//! The keys of a stream, expanded once a session and month.

use dtm_seal::{DataKey, FingerprintKey, SourceKey, StreamSalts, TagKey, Xaes256Gcm};
use dtm_types::{Month, StreamKey};

/// Everything that sealing a batch of one stream needs.
pub(crate) struct BatchKeys {
    /// Id of the data key, 16 bytes.
    pub(crate) key_id: bytes::Bytes,
    pub(crate) month: Month,
    pub(crate) cipher: Xaes256Gcm,
    pub(crate) salts: StreamSalts,
    pub(crate) tags: TagKey,
    pub(crate) fingerprints: FingerprintKey,
}

impl BatchKeys {
    pub(crate) fn new(
        stream: &StreamKey,
        key_id: bytes::Bytes,
        month: Month,
        data: &DataKey,
        source: &SourceKey,
    ) -> Self {
        Self {
            key_id,
            month,
            cipher: data.cipher(),
            salts: data.salt_key().stream(stream),
            tags: source.tag_key(),
            fingerprints: source.fingerprint_key(),
        }
    }
}
