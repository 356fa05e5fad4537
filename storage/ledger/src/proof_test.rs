use super::*;
use crate::{
    Frontier, Node, ProveError, Tile, TileReader, TiledHashes, consistency_proof, inclusion_proof,
    leaf_hash, tree_root,
};
use proptest::prelude::*;

/// The leaves of the reference tree of certificate-transparency.
pub(crate) fn rfc6962_leaves() -> Vec<Vec<u8>> {
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
        .into_iter()
        .chain(["606162636465666768696a6b6c6d6e6f"])
        .map(|leaf| hex::decode(leaf).expect("hex"))
        .collect()
}

/// RFC 6962, section 2.1, word for word, over leaf hashes.
pub(crate) fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves.len() {
        0 => empty_root(),
        1 => leaves[0],
        n => {
            let (left, right) = leaves.split_at(1 << (n - 1).ilog2());
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// RFC 6962, section 2.1.1, word for word.
fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
    let (mut path, beside) = if index < left.len() {
        (naive_path(index, left), right)
    } else {
        (naive_path(index - left.len(), right), left)
    };
    path.push(naive_root(beside));
    path
}

/// RFC 6962, section 2.1.2, word for word.
fn naive_subproof(old: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if known { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
    let (mut path, beside) = if old <= left.len() {
        (naive_subproof(old, left, known), right)
    } else {
        (naive_subproof(old - left.len(), right, false), left)
    };
    path.push(naive_root(beside));
    path
}

/// Tiles as a state machine would have stored them.
struct Stored(Vec<Vec<Hash>>);

impl Stored {
    fn of(leaves: &[Hash]) -> Self {
        let (mut frontier, mut rows) = (Frontier::new(), vec![Vec::new(); 8]);
        for leaf in leaves {
            frontier.append_with(*leaf, |node| {
                let row: &mut Vec<Hash> = &mut rows[usize::from(node.tile_level)];
                assert_eq!(row.len() as u64, node.index, "rows are filled without holes");
                row.push(node.hash);
            });
        }
        Self(rows)
    }
}

impl TileReader for &Stored {
    type Error = Tile;

    fn read_tile(&self, tile: Tile) -> Result<Vec<Hash>, Tile> {
        let first = tile.index as usize * 256;
        let row = &self.0[usize::from(tile.level)];
        row.get(first..first + usize::from(tile.width)).map(<[Hash]>::to_vec).ok_or(tile)
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

#[test]
fn proofs_of_the_reference_tree() {
    let hashes: Vec<Hash> = rfc6962_leaves().iter().map(|leaf| leaf_hash(leaf)).collect();
    let stored = Stored::of(&hashes);
    let path = |index, size| -> Vec<String> {
        let reader = TiledHashes::new(&stored, size);
        inclusion_proof(&reader, index, size).expect("inside").iter().map(hex::encode).collect()
    };
    assert!(path(0, 1).is_empty());
    assert_eq!(
        path(5, 8),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    let reader = TiledHashes::new(&stored, 8);
    let proof = consistency_proof(&reader, 6, 8).expect("in order");
    assert_eq!(
        proof.iter().map(hex::encode).collect::<Vec<_>>(),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
}

/// Every pair of sizes up to 70, and every index: the proof is the RFC's own and verifies.
#[test]
fn small_trees_exhaustively() {
    let all = leaves(70);
    let stored = Stored::of(&all);
    for size in 1..=all.len() {
        let reader = TiledHashes::new(&stored, size as u64);
        let root = naive_root(&all[..size]);
        assert_eq!(tree_root(&reader, size as u64), Ok(root));
        for index in 0..size {
            let path = inclusion_proof(&reader, index as u64, size as u64).expect("inside");
            assert_eq!(path, naive_path(index, &all[..size]));
            verify_inclusion(&all[index], index as u64, size as u64, &path, &root).expect("holds");
        }
        for old in 1..=size {
            let path = consistency_proof(&reader, old as u64, size as u64).expect("in order");
            assert_eq!(path, naive_subproof(old, &all[..size], true), "{old} {size}");
            let old_root = naive_root(&all[..old]);
            verify_consistency(old as u64, &old_root, size as u64, &root, &path).expect("holds");
        }
    }
}

#[test]
fn the_empty_tree_and_questions_that_do_not_fit() {
    let all = leaves(3);
    let (root, empty) = (naive_root(&all), empty_root());
    assert_eq!(verify_consistency(0, &empty, 3, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &root, 3, &root, &[]), Err(Error::RootMismatch));
    assert_eq!(verify_consistency(0, &empty, 0, &root, &[]), Err(Error::RootMismatch));
    assert_eq!(verify_consistency(3, &root, 3, &empty, &[]), Err(Error::RootMismatch));
    let reversed = Error::SizesReversed { old_size: 4, new_size: 3 };
    assert_eq!(verify_consistency(4, &root, 3, &root, &[]), Err(reversed));
    for (index, size) in [(3, 3), (0, 0), (u64::MAX, u64::MAX), (0, u64::MAX)] {
        assert!(verify_inclusion(&all[0], index, size, &[], &root).is_err(), "{index} {size}");
    }
    let stored = Stored::of(&all);
    let reader = TiledHashes::new(&stored, 9);
    assert!(matches!(inclusion_proof(&reader, 1, 9), Err(ProveError::Read(_))));
    let far = Node { level: 62, index: u64::MAX };
    assert!(crate::HashReader::read_hash(&reader, far).is_err());
}

proptest! {
    // holds: LED-1
    #[test]
    fn large_trees_and_nothing_forged(
        size in 1usize..70_000,
        pick: prop::sample::Index,
        old: prop::sample::Index,
        bend: prop::sample::Index,
        bit in 0usize..256,
    ) {
        let all = leaves(size);
        let stored = Stored::of(&all);
        let reader = TiledHashes::new(&stored, size as u64);
        let root = naive_root(&all);
        let flip = |hash: &mut Hash| hash[bit / 8] ^= 1 << (bit % 8);

        let index = pick.index(size);
        let path = inclusion_proof(&reader, index as u64, size as u64).expect("inside");
        let verify = |leaf: &Hash, index: usize, path: &[Hash], root: &Hash| {
            verify_inclusion(leaf, index as u64, size as u64, path, root)
        };
        prop_assert_eq!(verify(&all[index], index, &path, &root), Ok(()));
        let mut other = all[index];
        flip(&mut other);
        prop_assert!(verify(&other, index, &path, &root).is_err());
        let elsewhere = bend.index(size);
        if elsewhere != index {
            prop_assert!(verify(&all[index], elsewhere, &path, &root).is_err());
        }
        let mut longer = path.clone();
        longer.push(root);
        prop_assert!(verify(&all[index], index, &longer, &root).is_err());
        if !path.is_empty() {
            prop_assert!(verify(&all[index], index, &path[1..], &root).is_err());
            let mut bent = path.clone();
            flip(&mut bent[elsewhere % path.len()]);
            prop_assert!(verify(&all[index], index, &bent, &root).is_err());
        }

        let old = old.index(size) + 1;
        let old_root = naive_root(&all[..old]);
        let path = consistency_proof(&reader, old as u64, size as u64).expect("in order");
        let verify = |old_root: &Hash, root: &Hash, path: &[Hash]| {
            verify_consistency(old as u64, old_root, size as u64, root, path)
        };
        prop_assert_eq!(verify(&old_root, &root, &path), Ok(()));
        let (mut forked, mut rewritten) = (old_root, root);
        flip(&mut forked);
        flip(&mut rewritten);
        prop_assert!(verify(&forked, &root, &path).is_err());
        prop_assert!(verify(&old_root, &rewritten, &path).is_err());
        if !path.is_empty() {
            let mut bent = path.clone();
            flip(&mut bent[elsewhere % path.len()]);
            prop_assert!(verify(&old_root, &root, &bent).is_err());
            prop_assert!(verify(&old_root, &root, &path[1..]).is_err());
        }
        prop_assert_eq!(Frontier::at(&reader, old as u64).map(|edge| edge.root()), Ok(old_root));
    }
}
