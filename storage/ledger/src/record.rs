//! Record hashes, the tree over those of one batch, and the way of a record up to its root.
//!
//! Hot path: one [`RecordHash::of`] and one node merge a record.

use crate::hash::LEAF_PREFIX;
use crate::proof::{inclusion_ranges, root_from_inclusion};
use crate::{Error, Frontier, Hash};
use sha2::{Digest, Sha256};

/// The hash of a record: SHA-256(0x00 ‖ salt ‖ canonical bytes), the RFC 6962 leaf hash of salt
/// and canonical bytes. Without the salt it tells nothing about a record that could be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordHash(pub Hash);

impl RecordHash {
    /// The hash of the record with these canonical bytes under this salt.
    #[must_use]
    pub fn of(salt: &[u8; 16], canonical: &[u8]) -> Self {
        let mut prefix = [LEAF_PREFIX; 17];
        prefix[1..].copy_from_slice(salt);
        Self(Sha256::new().chain_update(prefix).chain_update(canonical).finalize().into())
    }
}

/// The root of a Merkle tree; in a batch header, of the tree over its record hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MerkleRoot(pub Hash);

impl MerkleRoot {
    /// The root over `hashes`, in their order, taken as leaf hashes; SHA-256 of nothing for none.
    #[must_use]
    pub fn of(hashes: impl IntoIterator<Item = Hash>) -> Self {
        let mut frontier = Frontier::new();
        for hash in hashes {
            frontier.append(hash);
        }
        Self(frontier.root())
    }
}

/// The way from a record hash up to the root in its batch's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPath {
    /// Place of the record in its batch, from 0.
    pub index: u64,
    /// Number of record hashes of the batch.
    pub count: u64,
    /// The hashes beside the way, lowest first.
    pub path: Vec<Hash>,
}

impl RecordPath {
    /// The path of record `index` among `hashes`, the record hashes of its batch.
    ///
    /// # Errors
    /// [`Error::IndexOutsideTree`].
    pub fn new(hashes: &[Hash], index: u64) -> Result<Self, Error> {
        let count = hashes.len() as u64;
        let path = inclusion_ranges(index, count)?
            .into_iter()
            // The ranges lie inside 0..count, which came from a usize.
            .map(|range| {
                MerkleRoot::of(hashes[range.start as usize..range.end as usize].iter().copied()).0
            })
            .collect();
        Ok(Self { index, count, path })
    }

    /// The root that `record` and this path lead to. The caller compares it with the root in the
    /// header and its count with the header's count.
    ///
    /// # Errors
    /// [`Error::IndexOutsideTree`], [`Error::PathLength`].
    pub fn root(&self, record: RecordHash) -> Result<MerkleRoot, Error> {
        root_from_inclusion(&record.0, self.index, self.count, &self.path).map(MerkleRoot)
    }

    /// Shows that `record` is in the batch whose header holds `root`.
    ///
    /// # Errors
    /// As [`RecordPath::root`], and [`Error::RootMismatch`].
    pub fn verify(&self, record: RecordHash, root: MerkleRoot) -> Result<(), Error> {
        if self.root(record)? == root { Ok(()) } else { Err(Error::RootMismatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf_hash;
    use proptest::prelude::*;

    #[test]
    fn a_record_hash_is_the_leaf_hash_of_salt_and_bytes() {
        let salt = *b"0123456789abcdef";
        let whole = leaf_hash(b"0123456789abcdef{\"a\":1}");
        assert_eq!(RecordHash::of(&salt, b"{\"a\":1}").0, whole);
        // Golden: printf '\0000123456789abcdef{"a":1}' | sha256sum
        assert_eq!(
            hex::encode(whole),
            "907909189c0b83f8d33ea6ed700dd5622a5a03154dff18746461c7080ed2aac9"
        );
    }

    proptest! {
        #[test]
        fn each_record_of_a_batch_is_provable_and_no_other(
            hashes in prop::collection::vec(any::<Hash>(), 1..80),
            pick: prop::sample::Index,
            bit in 0..256usize,
        ) {
            let root = MerkleRoot::of(hashes.iter().copied());
            let index = pick.index(hashes.len());
            let path = RecordPath::new(&hashes, index as u64).expect("inside");
            prop_assert_eq!(path.verify(RecordHash(hashes[index]), root), Ok(()));

            let mut other = hashes[index];
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(path.verify(RecordHash(other), root), Err(Error::RootMismatch));
            prop_assert!(RecordPath::new(&hashes, hashes.len() as u64).is_err());
        }
    }
}
