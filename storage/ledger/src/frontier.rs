//! The right edge of the tree: all that is needed to append and to tell the root.
//!
//! Hot path: one append costs the merge of one node on the average (two SHA-256 compressions);
//! [`Frontier::root`] costs one merge for each bit set in the size, so apply asks for it once a
//! write batch or checkpoint, not once a leaf.
//!
//! The state machine owns the stored form; a `Frontier` in memory is only its mirror.

use crate::Error;
use crate::hash::{Hash, empty_root, node_hash};
use crate::node::{Node, SIZE_MAX};
use crate::prove::HashReader;
use crate::tile::{TILE_HEIGHT, TileNode};

/// Version byte of the stored form.
const VERSION: u8 = 1;
/// Version and size.
const HEAD_BYTES: usize = 9;

/// The roots of the complete subtrees that tile the log, and its size.
///
/// ```text
///  size 7 = 0b111          peaks: [ 0..4 ] [ 4..6 ] [ 6 ]
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Widest first; as many as bits are set in `size`.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The edge of a tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash ([`crate::leaf_hash`]) and returns its index.
    ///
    /// # Panics
    /// Beyond 2^62 leaves.
    pub fn append(&mut self, leaf: Hash) -> u64 {
        self.append_with(leaf, |_| ())
    }

    /// As [`Frontier::append`], and hands out what has to be stored so that proofs can be made
    /// later: the leaf hash itself and the root of each tile that it fills (at most eight).
    ///
    /// # Panics
    /// Beyond 2^62 leaves.
    pub fn append_with(&mut self, leaf: Hash, mut store: impl FnMut(TileNode)) -> u64 {
        assert!(self.size < SIZE_MAX, "a tree holds at most 2^62 leaves");
        let index = self.size;
        store(TileNode { tile_level: 0, index, hash: leaf });
        let mut hash = leaf;
        // Each bit set at the low end of the old size is a complete subtree that now has a twin.
        for level in 1..=index.trailing_ones() as u8 {
            let left = self.peaks.pop().expect("one peak for each bit set in the size");
            hash = node_hash(&left, &hash);
            if level % TILE_HEIGHT == 0 {
                store(TileNode { tile_level: level / TILE_HEIGHT, index: index >> level, hash });
            }
        }
        self.peaks.push(hash);
        self.size += 1;
        index
    }

    /// The root over all leaves; SHA-256 of nothing for an empty tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(&last) = peaks.next() else {
            return empty_root();
        };
        peaks.fold(last, |right, left| node_hash(left, &right))
    }

    /// The stored form: version 1, size (8 bytes, big endian), the peaks, widest first.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.peaks.len() * 32);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for peak in &self.peaks {
            bytes.extend_from_slice(peak);
        }
        bytes
    }

    /// Reads the stored form. The caller's store guards it with a checksum; here only its shape
    /// is checked.
    ///
    /// # Errors
    /// [`Error::FrontierVersion`], [`Error::FrontierMalformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = Error::FrontierMalformed { found: bytes.len() };
        let Some((&version, rest)) = bytes.split_first() else {
            return Err(malformed);
        };
        if version != VERSION {
            return Err(Error::FrontierVersion(version));
        }
        let Some((size, peaks)) = rest.split_first_chunk::<8>() else {
            return Err(malformed);
        };
        let size = u64::from_be_bytes(*size);
        let (peaks, tail) = peaks.as_chunks::<32>();
        if size > SIZE_MAX || !tail.is_empty() || peaks.len() != size.count_ones() as usize {
            return Err(malformed);
        }
        Ok(Self { size, peaks: peaks.to_vec() })
    }

    /// The edge as it was at `size` leaves, from stored hashes: for a root of the past or to
    /// check a stored edge against the stored tiles.
    ///
    /// # Errors
    /// What the reader answers.
    ///
    /// # Panics
    /// If `size` is beyond 2^62.
    pub fn at<R: HashReader>(reader: &R, size: u64) -> Result<Self, R::Error> {
        let peaks =
            Node::peaks(size).map(|node| reader.read_hash(node)).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }
}

#[cfg(test)]
#[path = "frontier_test.rs"]
mod tests;
