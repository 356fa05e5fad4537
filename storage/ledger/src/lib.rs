//! The verifiable log of a group: the Merkle tree of RFC 6962 over SHA-256, its tiles as C2SP
//! tlog-tiles cuts them, inclusion and consistency proofs, and the small tree over the record
//! hashes of one batch, through which a single record is provable.
//!
//! ```text
//!  record ─ hash ─┐
//!  record ─ hash ─┼─ MerkleRoot ─ in the batch header ─ leaf_hash ─┐
//!  record ─ hash ─┘                                                ├─ Frontier ─ root, size
//!                              admin, key, session … ─ leaf_hash ──┘
//! ```
//!
//! Pure: no clock, files, randomness or runtime, and no crate of ours below it, so that it
//! builds alone into the offline verifier. Nobody owns state here: the state machine keeps the
//! [`Frontier`] of its group as a mirror of the stored one and stores the nodes that
//! [`Frontier::append_with`] hands out; proofs read them back through [`TileReader`] or
//! [`HashReader`].
//!
//! Invariants: a leaf is hashed with the prefix 0x00 and an inner node with 0x01, so neither can
//! pass for the other; a tree only grows (LED-1); nothing here trusts a length, an index or a
//! path that it was given.

mod frontier;
mod hash;
mod node;
mod proof;
mod prove;
mod record;
mod tile;

pub use frontier::Frontier;
pub use hash::{Hash, empty_root, leaf_hash, node_hash};
pub use node::{Node, SIZE_MAX};
pub use proof::{root_from_inclusion, verify_consistency, verify_inclusion};
pub use prove::{HashReader, ProveError, consistency_proof, inclusion_proof, tree_root};
pub use record::{MerkleRoot, RecordHash, RecordPath};
pub use tile::{TILE_HEIGHT, TILE_WIDTH, Tile, TileError, TileNode, TileReader, TiledHashes};

/// Why a proof, a frontier or a tile was refused. None of these is worth a retry: the same bytes
/// give the same answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The index lies at or beyond the size of the tree.
    #[error("index {index} lies outside a tree of {size} leaves")]
    IndexOutsideTree {
        /// The index asked about.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The older size is larger than the newer one.
    #[error("tree of {old_size} leaves cannot precede one of {new_size}")]
    SizesReversed {
        /// The size said to be older.
        old_size: u64,
        /// The size said to be newer.
        new_size: u64,
    },
    /// The path has another length than this index and size demand.
    #[error("proof holds {found} hashes where {expected} are due")]
    PathLength {
        /// Hashes that the tree's shape demands.
        expected: usize,
        /// Hashes found.
        found: usize,
    },
    /// The path leads to another root.
    #[error("proof leads to another root")]
    RootMismatch,
    /// The stored form of a frontier is of an unknown version.
    #[error("frontier is of version {0}, which this build does not know")]
    FrontierVersion(u8),
    /// The stored form of a frontier is cut off, too long or of an impossible size.
    #[error("frontier of {found} bytes is not well formed")]
    FrontierMalformed {
        /// Bytes found.
        found: usize,
    },
    /// A tile path is not one of C2SP tlog-tiles.
    #[error("tile path is not well formed")]
    TilePath,
}
