//! Where a hash stands in the tree.

/// The largest tree: beyond it sizes and indexes would no longer fit in signed 64 bits, in which
/// other implementations of the formats hold them. 2^62 leaves are out of reach.
pub const SIZE_MAX: u64 = 1 << 62;

/// A complete subtree: the hash of the leaves `index << level .. (index + 1) << level`. Level 0
/// are the leaf hashes themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height of the subtree; at most 62.
    pub level: u8,
    /// Number of the subtree among those of its height, from 0.
    pub index: u64,
}

impl Node {
    /// The first leaf below this node.
    #[must_use]
    pub fn first_leaf(self) -> u64 {
        self.index << self.level
    }

    /// The complete subtrees that tile the leaves `0..size`, widest (leftmost) first: one for
    /// each bit that is set in `size`.
    pub fn peaks(size: u64) -> impl Iterator<Item = Node> {
        assert!(size <= SIZE_MAX, "a tree holds at most 2^62 leaves");
        (0..=62u8)
            .rev()
            .filter(move |level| size >> level & 1 == 1)
            .map(move |level| Node { level, index: (size >> level) - 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_tile_the_tree_without_hole_or_overlap() {
        for size in (0..2000).chain([SIZE_MAX - 1, SIZE_MAX]) {
            let mut next = 0;
            for peak in Node::peaks(size) {
                assert_eq!(peak.first_leaf(), next, "size {size}");
                next += 1u64 << peak.level;
            }
            assert_eq!(next, size);
        }
    }
}
