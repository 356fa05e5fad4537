//! Making proofs from stored hashes.

use crate::Error;
use crate::hash::{Hash, empty_root, node_hash};
use crate::node::Node;
use crate::proof::{consistency_ranges, inclusion_ranges};
use std::ops::Range;

/// Reads hashes of complete subtrees. Whoever holds whole tiles wraps them in
/// [`crate::TiledHashes`].
pub trait HashReader {
    /// Why a hash cannot be had.
    type Error;

    /// The hash of `node`.
    ///
    /// # Errors
    /// The store's own, also when it does not hold the node.
    fn read_hash(&self, node: Node) -> Result<Hash, Self::Error>;
}

/// Why no proof could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProveError<E> {
    /// The question does not fit the tree.
    #[error(transparent)]
    Shape(#[from] Error),
    /// A stored hash could not be read.
    #[error("a stored hash could not be read")]
    Read(#[source] E),
}

/// The path that shows the leaf at `index` to be in the tree of the first `size` leaves.
///
/// # Errors
/// [`Error::IndexOutsideTree`], or what the reader answers.
pub fn inclusion_proof<R: HashReader>(
    reader: &R,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProveError<R::Error>> {
    roots(reader, inclusion_ranges(index, size)?)
}

/// The path that shows the first `old_size` leaves to be the beginning of the first `new_size`.
///
/// # Errors
/// [`Error::SizesReversed`], or what the reader answers.
pub fn consistency_proof<R: HashReader>(
    reader: &R,
    old_size: u64,
    new_size: u64,
) -> Result<Vec<Hash>, ProveError<R::Error>> {
    roots(reader, consistency_ranges(old_size, new_size)?)
}

/// The root over the first `size` leaves, from stored hashes.
///
/// # Errors
/// What the reader answers.
///
/// # Panics
/// If `size` is beyond 2^62.
pub fn tree_root<R: HashReader>(reader: &R, size: u64) -> Result<Hash, R::Error> {
    range_root(reader, 0..size)
}

fn roots<R: HashReader>(
    reader: &R,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<Hash>, ProveError<R::Error>> {
    ranges.into_iter().map(|range| range_root(reader, range).map_err(ProveError::Read)).collect()
}

/// The root over the leaves of `range`, which begins at a multiple of a power of two not below
/// its length, as all ranges of proofs do: so its peaks are nodes of the tree.
fn range_root<R: HashReader>(reader: &R, range: Range<u64>) -> Result<Hash, R::Error> {
    let mut root: Option<Hash> = None;
    let peaks: Vec<Node> = Node::peaks(range.end - range.start).collect();
    for peak in peaks.into_iter().rev() {
        let index = peak.index + (range.start >> peak.level);
        let left = reader.read_hash(Node { level: peak.level, index })?;
        root = Some(root.map_or(left, |right| node_hash(&left, &right)));
    }
    Ok(root.unwrap_or_else(empty_root))
}
