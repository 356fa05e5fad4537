//! The seam to the node's keys: actors make and open data keys without seeing the keyring.

use std::sync::Arc;

use dtm_catalog::MaskKey;
use dtm_seal::{BatchCipher, DataKey, SourceKey};
use dtm_types::format::WrappedKey;
use dtm_types::{GroupId, KeyId, Month, SourceId};

/// Wraps and unwraps keys under the cluster key.
pub trait KeyVault: Send + Sync {
    /// A fresh data key for a source and month, wrapped; used only once a group holds it.
    fn new_data_key(&self, group: GroupId, source: &SourceId, month: Month) -> WrappedKey;
    /// A fresh source key, wrapped.
    fn new_source_key(&self, group: GroupId, source: &SourceId) -> WrappedKey;
    /// A fresh key for the details beside a group's leaves, wrapped.
    fn new_audit_key(&self, group: GroupId, month: Month) -> WrappedKey;
    /// Opens a wrapped data or audit key.
    fn open_data_key(&self, group: GroupId, row: &WrappedKey) -> Result<DataKey, VaultError>;
    /// What seals and opens batches under a data key.
    fn batch_cipher(&self, key: &DataKey) -> Box<dyn BatchCipher> {
        Box::new(key.cipher())
    }
    /// Opens a wrapped source key.
    fn open_source_key(&self, group: GroupId, row: &WrappedKey) -> Result<SourceKey, VaultError>;
    /// The cluster's key for keyed pseudonyms, the same for all sources so that joins hold.
    fn mask_key(&self) -> Arc<MaskKey>;
}

/// A key cannot be opened on this node. Fail closed.
#[derive(Debug, thiserror::Error)]
#[error("key {key} cannot be opened: {cause}")]
pub struct VaultError {
    /// The wrapped key.
    pub key: KeyId,
    /// In words.
    pub cause: String,
}
