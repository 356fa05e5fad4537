use super::*;
use crate::leaf_hash;
use crate::proof::tests::{naive_root, rfc6962_leaves};
use proptest::prelude::*;

#[test]
fn roots_of_the_reference_tree() {
    // The vectors of the certificate-transparency reference implementation.
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::new();
    assert_eq!(hex::encode(frontier.root()), roots[0]);
    for (index, leaf) in rfc6962_leaves().iter().enumerate() {
        assert_eq!(frontier.append(leaf_hash(leaf)), index as u64);
        assert_eq!(hex::encode(frontier.root()), roots[index + 1]);
    }
    assert_eq!(frontier.size(), 8);
}

#[test]
fn stored_form_is_golden() {
    let mut frontier = Frontier::new();
    assert_eq!(hex::encode(frontier.encode()), "010000000000000000");
    for leaf in &rfc6962_leaves()[..3] {
        frontier.append(leaf_hash(leaf));
    }
    assert_eq!(
        hex::encode(frontier.encode()),
        "010000000000000003\
         fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125\
         0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7"
    );
}

#[test]
fn a_stored_form_of_another_shape_is_refused() {
    let mut frontier = Frontier::new();
    frontier.append([7; 32]);
    frontier.append([8; 32]);
    frontier.append([9; 32]);
    let good = frontier.encode();
    for cut in 0..good.len() {
        assert!(Frontier::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert!(Frontier::decode(&[good.as_slice(), &[0]].concat()).is_err());
    assert!(Frontier::decode(&[good.as_slice(), &[0; 32]].concat()).is_err());
    let mut newer = good.clone();
    newer[0] = 2;
    assert_eq!(Frontier::decode(&newer), Err(Error::FrontierVersion(2)));
    let mut huge = vec![1, 0x80, 0, 0, 0, 0, 0, 0, 0];
    huge.extend_from_slice(&[0; 32]);
    assert!(Frontier::decode(&huge).is_err());
}

proptest! {
    #[test]
    fn agrees_with_the_naive_tree_and_survives_storing(
        leaves in prop::collection::vec(any::<Hash>(), 0..700),
        restart: prop::sample::Index,
    ) {
        let restart = restart.index(leaves.len() + 1);
        let mut frontier = Frontier::new();
        let mut stored = Vec::new();
        for (index, leaf) in leaves.iter().enumerate() {
            if index == restart {
                frontier = Frontier::decode(&frontier.encode()).expect("own bytes");
            }
            frontier.append_with(*leaf, |node| stored.push(node));
        }
        prop_assert_eq!(frontier.root(), naive_root(&leaves));
        prop_assert_eq!(Frontier::decode(&frontier.encode()), Ok(frontier));
        let full_tiles = leaves.len() / 256;
        prop_assert_eq!(stored.iter().filter(|node| node.tile_level == 0).count(), leaves.len());
        prop_assert_eq!(stored.iter().filter(|node| node.tile_level == 1).count(), full_tiles);
        for node in stored {
            let span = 256usize.pow(u32::from(node.tile_level));
            let first = node.index as usize * span;
            prop_assert_eq!(node.hash, naive_root(&leaves[first..first + span]));
        }
    }
}
