//! True sessions over groups in memory: what they seal, and under which keys and nonces.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_actors::{KeyVault, VaultError};
use dtm_catalog::MaskKey;
use dtm_chaos::checker::{Breach, Canaries, Image, Nonces, Property};
use dtm_chaos::sandbox::GROUP;
use dtm_chaos::sandbox::session::{self, DATA_KEY, FixedVault};
use dtm_machine::MemoryGroups;
use dtm_machine::seams::{Entropy, Freshness, ReadView, SeededEntropy};
use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_seal::{BatchCipher, DataKey, Nonce, SourceKey, Tag};
use dtm_types::format::WrappedKey;
use dtm_types::{GroupId, Month, SourceId};
use futures::StreamExt;

/// The bug: a cache of opened keys on disk.
struct CachingVault(PathBuf);

impl KeyVault for CachingVault {
    fn new_data_key(&self, group: GroupId, source: &SourceId, month: Month) -> WrappedKey {
        FixedVault.new_data_key(group, source, month)
    }

    fn new_source_key(&self, group: GroupId, source: &SourceId) -> WrappedKey {
        FixedVault.new_source_key(group, source)
    }

    fn new_audit_key(&self, group: GroupId, month: Month) -> WrappedKey {
        FixedVault.new_audit_key(group, month)
    }

    fn open_data_key(&self, group: GroupId, row: &WrappedKey) -> Result<DataKey, VaultError> {
        let hex: String = DATA_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(self.0.join("keys.cache"), hex).unwrap();
        FixedVault.open_data_key(group, row)
    }

    fn open_source_key(&self, group: GroupId, row: &WrappedKey) -> Result<SourceKey, VaultError> {
        FixedVault.open_source_key(group, row)
    }

    fn mask_key(&self) -> Arc<MaskKey> {
        FixedVault.mask_key()
    }
}

/// The bug: a cipher that leaves the text as it is.
struct NoCipherVault;

struct NoCipher;

impl BatchCipher for NoCipher {
    fn seal_batch(&self, _: &Nonce, _: &[u8], _: &mut [u8]) -> Result<Tag, dtm_seal::Error> {
        Ok([0; 16])
    }

    fn open_batch(
        &self,
        _: &Nonce,
        _: &[u8],
        _: &mut [u8],
        _: &Tag,
    ) -> Result<(), dtm_seal::Error> {
        Ok(())
    }
}

impl KeyVault for NoCipherVault {
    fn new_data_key(&self, group: GroupId, source: &SourceId, month: Month) -> WrappedKey {
        FixedVault.new_data_key(group, source, month)
    }

    fn new_source_key(&self, group: GroupId, source: &SourceId) -> WrappedKey {
        FixedVault.new_source_key(group, source)
    }

    fn new_audit_key(&self, group: GroupId, month: Month) -> WrappedKey {
        FixedVault.new_audit_key(group, month)
    }

    fn open_data_key(&self, group: GroupId, row: &WrappedKey) -> Result<DataKey, VaultError> {
        FixedVault.open_data_key(group, row)
    }

    fn open_source_key(&self, group: GroupId, row: &WrappedKey) -> Result<SourceKey, VaultError> {
        FixedVault.open_source_key(group, row)
    }

    fn mask_key(&self) -> Arc<MaskKey> {
        FixedVault.mask_key()
    }

    fn batch_cipher(&self, _key: &DataKey) -> Box<dyn BatchCipher> {
        Box::new(NoCipher)
    }
}

/// A record's content: long enough not to be found by chance.
fn payload(sequence: u64) -> Bytes {
    Bytes::from(format!(r#"{{"n":{}}}"#, 17_000_000 + sequence))
}

/// One life of a node: opens the stream and sends records from where it stands until `through`.
async fn life(
    groups: &Arc<MemoryGroups>,
    entropy: Arc<dyn Entropy>,
    vault: Arc<dyn KeyVault>,
    through: u64,
) {
    let (_sources, session, mut answers) = session::open(groups, entropy, vault).await;
    let mut next = 0;
    while next <= through {
        let answer = tokio::time::timeout(Duration::from_secs(20), answers.next()).await;
        match answer.expect("answered in time").expect("not over").unwrap().response {
            Some(Response::Opened(opened)) => next = opened.next_sequence,
            Some(Response::Ack(ack)) => next = ack.acked_through + 1,
            _ => continue,
        }
        if next <= through {
            let record = ingest::Record { payload: payload(next), ..ingest::Record::default() };
            let records = vec![record];
            let frame = ingest::Frame { first_sequence: next, records, ..Default::default() };
            session.frame(frame).await.unwrap();
        }
    }
    session.disconnected();
}

/// Two lives of one node; each starts with the randomness that `entropy` gives it.
async fn two_lives(entropy: impl Fn(u64) -> Arc<dyn Entropy>) -> Nonces {
    let groups = session::groups();
    for number in 1..=2 {
        life(&groups, entropy(number), Arc::new(FixedVault), 5 * number).await;
    }
    let view = groups.view(GROUP, Freshness::Current).await.unwrap();
    let image = Image::read("one", &view).unwrap();
    assert_eq!(image.records().len(), 10);
    let mut nonces = Nonces::default();
    nonces.image(&image);
    nonces
}

// holds: SEC-1
#[tokio::test]
async fn a_restarted_node_uses_no_nonce_again() {
    // Another seed each time stands for the operating system's randomness.
    let nonces = two_lives(|life| Arc::new(SeededEntropy::new(life))).await;
    assert_eq!((nonces.seen(), nonces.breaches()), (10, &[][..]));
}

#[tokio::test]
async fn nonce_reuse_after_a_restart_is_caught() {
    let nonces = two_lives(|_| Arc::new(SeededEntropy::new(7))).await;
    assert!(matches!(nonces.breaches()[0], Breach::NonceTwice { .. }));
}

async fn keys_on_disk(folder: &Path, vault: Arc<dyn KeyVault>) -> Vec<Breach> {
    std::fs::write(folder.join("other"), "nothing of interest").unwrap();
    life(&session::groups(), Arc::new(SeededEntropy::new(1)), vault, 3).await;
    let mut canaries = Canaries::default();
    canaries.add("the data key", &DATA_KEY);
    let search = canaries.search_folder(folder).unwrap();
    assert!(search.files > 0);
    search.breaches
}

// holds: SEC-1
#[tokio::test]
async fn a_vault_that_keeps_keys_in_memory_leaves_nothing_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(keys_on_disk(folder.path(), Arc::new(FixedVault)).await, []);
}

#[tokio::test]
async fn key_kept_in_clear_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Arc::new(CachingVault(folder.path().to_path_buf()));
    let found = keys_on_disk(folder.path(), vault).await;
    assert_eq!(found.iter().map(Breach::property).collect::<Vec<_>>(), [Property::Sec1]);
}

/// Everything that a group stores of three records, searched for their content.
async fn content_in_clear(vault: Arc<dyn KeyVault>) -> Vec<Breach> {
    let groups = session::groups();
    life(&groups, Arc::new(SeededEntropy::new(1)), vault, 3).await;
    let view = groups.view(GROUP, Freshness::Current).await.unwrap();
    let image = Image::read("one", &view).unwrap();
    assert_eq!(image.records().len(), 3);
    let mut canaries = Canaries::default();
    canaries.add("a record", &payload(2));
    let rows = image.rows.iter().flat_map(|(key, value)| [key, value]);
    let stored = image.bundles.values().chain(rows);
    stored.filter_map(|bytes| canaries.search_bytes("storage", bytes)).collect()
}

// holds: SEC-1
#[tokio::test]
async fn what_is_stored_holds_no_content_in_clear() {
    assert_eq!(content_in_clear(Arc::new(FixedVault)).await, []);
}

#[tokio::test]
async fn content_stored_in_clear_is_caught() {
    let found = content_in_clear(Arc::new(NoCipherVault)).await;
    assert_eq!(found.iter().map(Breach::property).collect::<Vec<_>>(), [Property::Sec1]);
}
