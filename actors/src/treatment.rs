//! The seam around what is done to a record and a batch before they are proposed: check and digests
//! (the seal is behind [`KeyVault::batch_cipher`](crate::KeyVault::batch_cipher)). The product has
//! one implementation, [`Full`]; the load generator brings others to measure what each part costs,
//! a test one with a planted bug, so no setting of the product can leave a part out.

use dtm_catalog::{CompiledSchema, Outcome, Scratch};
use dtm_ledger::{Hash, MerkleRoot, RecordHash};
use sha2::{Digest, Sha256};

/// What happens to records and batches. Hot path: called once a record or once a batch.
pub trait Treatment: Send + Sync {
    /// Holds a payload against its schema.
    fn check(&self, schema: &CompiledSchema, payload: &[u8], scratch: &mut Scratch) -> Outcome {
        schema.check(payload, scratch)
    }

    /// The salted hash of a record, by which it can be proved to be in the ledger.
    fn record_hash(&self, salt: &[u8; 16], content: &[u8]) -> Hash {
        RecordHash::of(salt, content).0
    }

    /// The root over the record hashes of a batch, 32 bytes each.
    fn record_root(&self, hashes: &[u8]) -> Hash {
        let leaves = hashes.chunks_exact(32).map(|leaf| leaf.try_into().expect("32 bytes each"));
        MerkleRoot::of(leaves).0
    }

    /// The digest of a batch's ciphertext.
    fn text_digest(&self, text: &[u8]) -> Hash {
        Sha256::digest(text).into()
    }
}

/// Everything on: what a node does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Full;

impl Treatment for Full {}
