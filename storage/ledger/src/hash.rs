//! Leaf and node hashes of RFC 6962, section 2.1.
//!
//! Hot path: [`node_hash`] runs once for each record of a batch and once for each leaf appended.
//! It is always 65 bytes, so both blocks are laid out by hand and go straight to the compression
//! function (SHA-NI where the processor has it), without the buffering of a general hasher.

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The prefix of a leaf. Record hashes use it too: they are the leaves of their batch's tree.
pub(crate) const LEAF_PREFIX: u8 = 0x00;
const NODE_PREFIX: u8 = 0x01;

/// FIPS 180-4, section 5.3.3: the initial value of SHA-256.
const SHA256_INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256(0x00 ‖ `bytes`): the hash of a leaf of the log.
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([LEAF_PREFIX]).chain_update(bytes).finalize().into()
}

/// SHA-256(0x01 ‖ `left` ‖ `right`): the hash of an inner node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut blocks = [[0u8; 64]; 2];
    blocks[0][0] = NODE_PREFIX;
    blocks[0][1..33].copy_from_slice(left);
    blocks[0][33..].copy_from_slice(&right[..31]);
    blocks[1][0] = right[31];
    blocks[1][1] = 0x80;
    blocks[1][56..].copy_from_slice(&(65u64 * 8).to_be_bytes());

    let mut state = SHA256_INITIAL;
    compress256(&mut state, &blocks);

    let mut digest = [0u8; 32];
    for (out, word) in digest.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// SHA-256 of nothing: the root of a tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn node_hash_is_sha256_of_the_65_bytes(left: [u8; 32], right: [u8; 32]) {
            let plain: Hash =
                Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into();
            prop_assert_eq!(node_hash(&left, &right), plain);
        }
    }

    #[test]
    fn a_leaf_never_passes_for_a_node() {
        let (left, right) = ([1u8; 32], [2u8; 32]);
        assert_ne!(leaf_hash(&[left, right].concat()), node_hash(&left, &right));
    }
}
