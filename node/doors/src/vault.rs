//! The actors' view of the node's keys.

use std::sync::Arc;

use dtm_actors::{KeyVault, VaultError};
use dtm_catalog::MaskKey;
use dtm_machine::seams::Entropy;
use dtm_seal::{DataKey, Secret, SourceKey, WrapContext};
use dtm_storage::keys::{self, Keyring};
use dtm_types::format::{KeyPurpose, WrappedKey};
use dtm_types::{GroupId, KeyId, Month, SourceId};

/// Name of the secret that pseudonyms are keyed with.
const MASK_SECRET: &str = "mask/pseudonym";

/// Wraps under the keyring's current cluster key.
pub struct NodeVault {
    keyring: Arc<Keyring>,
    entropy: Arc<dyn Entropy>,
    mask: Arc<MaskKey>,
}

impl NodeVault {
    /// Takes the pseudonym key from the keyring.
    ///
    /// # Errors
    /// The keyring holds none of 32 bytes: it was not made by `dtm cluster init`.
    pub fn new(keyring: Arc<Keyring>, entropy: Arc<dyn Entropy>) -> Result<Self, &'static str> {
        let secret =
            keyring.secret(MASK_SECRET).ok_or("the keyring holds no key for pseudonyms")?;
        let bytes = secret
            .as_slice()
            .try_into()
            .map_err(|_| "the key for pseudonyms is not 32 bytes long")?;
        Ok(Self { keyring, entropy, mask: Arc::new(MaskKey::new(bytes)) })
    }

    /// Puts a pseudonym key into a new keyring.
    ///
    /// # Errors
    /// The keyring's file could not be written.
    pub fn found(keyring: &Keyring, entropy: &dyn Entropy) -> Result<(), keys::Error> {
        let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
        entropy.fill(bytes.as_mut());
        keyring.put_secret(MASK_SECRET, bytes.as_ref())
    }

    /// A fresh key, wrapped, as the row that a group is to hold.
    pub fn fresh(
        &self,
        purpose: KeyPurpose,
        group: GroupId,
        source: Option<&SourceId>,
        month: Month,
    ) -> WrappedKey {
        let key_id = KeyId(self.entropy.id16());
        let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
        self.entropy.fill(bytes.as_mut());
        let key = DataKey::from_bytes(&mut bytes);
        let context = WrapContext { purpose, group, source, month, key_id };
        self.keyring.wrap_data_key(&context, &key)
    }
}

impl KeyVault for NodeVault {
    fn new_data_key(&self, group: GroupId, source: &SourceId, month: Month) -> WrappedKey {
        self.fresh(KeyPurpose::Data, group, Some(source), month)
    }

    fn new_source_key(&self, group: GroupId, source: &SourceId) -> WrappedKey {
        self.fresh(KeyPurpose::Source, group, Some(source), Month(0))
    }

    fn new_audit_key(&self, group: GroupId, month: Month) -> WrappedKey {
        self.fresh(KeyPurpose::Audit, group, None, month)
    }

    fn open_data_key(&self, group: GroupId, row: &WrappedKey) -> Result<DataKey, VaultError> {
        self.keyring.unwrap_data_key(group, row).map_err(|e| error(row, &e))
    }

    fn open_source_key(&self, group: GroupId, row: &WrappedKey) -> Result<SourceKey, VaultError> {
        self.keyring.unwrap_data_key(group, row).map_err(|e| error(row, &e))
    }

    fn mask_key(&self) -> Arc<MaskKey> {
        Arc::clone(&self.mask)
    }
}

fn error(row: &WrappedKey, error: &keys::Error) -> VaultError {
    VaultError { key: KeyId::from_slice(&row.key_id).unwrap_or_default(), cause: error.to_string() }
}
