//! Verification of inclusion and consistency proofs (RFC 9162, sections 2.1.3.2 and 2.1.4.2),
//! pure, and the shape of a proof: which ranges of leaves its hashes stand for.
//!
//! The shape is what makes a path of the wrong length refusable before any hash is computed.

use crate::hash::{Hash, node_hash};
use crate::node::SIZE_MAX;
use crate::{Error, empty_root};
use std::ops::Range;

/// The root that a leaf hash at `index` of a tree of `size` leaves and its path lead to.
///
/// # Errors
/// [`Error::IndexOutsideTree`], [`Error::PathLength`].
pub fn root_from_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
) -> Result<Hash, Error> {
    expect_length(inclusion_ranges(index, size)?.len(), path.len())?;
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for beside in path {
        if node & 1 == 1 || node == last {
            hash = node_hash(beside, &hash);
            // On the right edge whole levels have no sibling: the node moves up unchanged.
            let lone = if node == 0 { 0 } else { node.trailing_zeros() };
            node >>= lone;
            last >>= lone;
        } else {
            hash = node_hash(&hash, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    Ok(hash)
}

/// Shows that the tree of `size` leaves with this `root` holds `leaf` at `index`.
///
/// # Errors
/// [`Error::IndexOutsideTree`], [`Error::PathLength`], [`Error::RootMismatch`].
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> Result<(), Error> {
    expect_root(&root_from_inclusion(leaf, index, size, path)?, root)
}

/// Shows that the tree of `new_size` leaves and `new_root` begins with exactly the `old_size`
/// leaves of `old_root`: nothing was removed, changed or put in between. An empty tree precedes
/// every tree, and every tree itself; both with an empty path.
///
/// # Errors
/// [`Error::SizesReversed`], [`Error::PathLength`], [`Error::RootMismatch`].
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    path: &[Hash],
) -> Result<(), Error> {
    expect_length(consistency_ranges(old_size, new_size)?.len(), path.len())?;
    if old_size == 0 {
        expect_root(&empty_root(), old_root)?;
        return if new_size == 0 { expect_root(&empty_root(), new_root) } else { Ok(()) };
    }
    if old_size == new_size {
        return expect_root(old_root, new_root);
    }
    // A complete old tree is itself a node of the new one and left out of the path.
    let (first, path) = match path.split_first() {
        Some((first, rest)) if !old_size.is_power_of_two() => (first, rest),
        _ => (old_root, path),
    };
    let shift = (old_size - 1).trailing_ones();
    let (mut node, mut last) = ((old_size - 1) >> shift, (new_size - 1) >> shift);
    let (mut old, mut new) = (*first, *first);
    for beside in path {
        if node & 1 == 1 || node == last {
            old = node_hash(beside, &old);
            new = node_hash(beside, &new);
            let lone = if node == 0 { 0 } else { node.trailing_zeros() };
            node >>= lone;
            last >>= lone;
        } else {
            new = node_hash(&new, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    expect_root(&old, old_root)?;
    expect_root(&new, new_root)
}

/// The ranges of leaves whose subtree roots make an inclusion proof, lowest first.
pub(crate) fn inclusion_ranges(index: u64, size: u64) -> Result<Vec<Range<u64>>, Error> {
    if index >= size || size > SIZE_MAX {
        return Err(Error::IndexOutsideTree { index, size });
    }
    let mut ranges = Vec::with_capacity(size.ilog2() as usize + 1);
    let mut within = 0..size;
    while within.end - within.start > 1 {
        let (left, right) = split(&within);
        let (next, beside) = if index < left.end { (left, right) } else { (right, left) };
        ranges.push(beside);
        within = next;
    }
    ranges.reverse();
    Ok(ranges)
}

/// The ranges of leaves whose subtree roots make a consistency proof, lowest first.
pub(crate) fn consistency_ranges(old_size: u64, new_size: u64) -> Result<Vec<Range<u64>>, Error> {
    if old_size > new_size || new_size > SIZE_MAX {
        return Err(Error::SizesReversed { old_size, new_size });
    }
    if old_size == 0 || old_size == new_size {
        return Ok(Vec::new());
    }
    let mut ranges = Vec::with_capacity(new_size.ilog2() as usize + 2);
    let mut within = 0..new_size;
    while within.end != old_size {
        let (left, right) = split(&within);
        let (next, beside) = if old_size <= left.end { (left, right) } else { (right, left) };
        ranges.push(beside);
        within = next;
    }
    // Where the way never went right, the rest is the old tree itself, which the verifier has.
    if within.start != 0 {
        ranges.push(within);
    }
    ranges.reverse();
    Ok(ranges)
}

/// RFC 6962: the left part is the largest power of two below the length.
fn split(range: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let middle = range.start + (1 << (range.end - range.start - 1).ilog2());
    (range.start..middle, middle..range.end)
}

fn expect_length(expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::PathLength { expected, found }) }
}

fn expect_root(found: &Hash, root: &Hash) -> Result<(), Error> {
    if found == root { Ok(()) } else { Err(Error::RootMismatch) }
}

#[cfg(test)]
#[path = "proof_test.rs"]
pub(crate) mod tests;
