//! Leaves of every kind with their hashes, the tree over them, the frontier.

use dtm_ledger::{Frontier, leaf_hash};
use dtm_types::format::{AnchoredGroup, Genesis, Leaf, LeafKind, LedgerAnchor};
use prost::Message;

use crate::file::{Golden, digest, id};
use crate::formats;

pub(crate) fn genesis() -> Genesis {
    Genesis {
        cluster_id: id(1),
        group: 2,
        incarnation: 3,
        cause: "promotion".into(),
        previous_incarnation: 5,
        previous_size: 600,
        previous_root: digest(7),
    }
}

pub(crate) fn anchored(group: u32) -> AnchoredGroup {
    AnchoredGroup {
        group,
        incarnation: 2,
        ledger_size: 3_000,
        ledger_root: digest(4),
        applied_index: 5_000,
        group_time_us: 1_795_000_000_000_006,
    }
}

fn anchor() -> LedgerAnchor {
    LedgerAnchor { groups: vec![anchored(0), anchored(300)], previous_leaf: Some(0) }
}

/// A leaf of each kind with what that kind holds, and one of version 2.
fn leaves() -> Vec<(&'static str, Leaf)> {
    let blank = |kind: LeafKind, ids: &[&str]| Leaf {
        version: 1,
        kind: kind.into(),
        group_time_us: 1_795_000_000_000_003,
        actor_id: id(4),
        request_id: id(5),
        object_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..Leaf::default()
    };
    let detailed = |kind, ids: &[&str]| Leaf { detail_digest: digest(7), ..blank(kind, ids) };
    let batch = Leaf {
        header_a: formats::header_a().encode_to_vec().into(),
        header_b: formats::header_b().encode_to_vec().into(),
        duplicate_bitmap: vec![0b100, 1].into(),
        ..blank(LeafKind::Batch, &[])
    };
    let genesis = Leaf { genesis: Some(genesis()), ..blank(LeafKind::Genesis, &[]) };
    let anchor = Leaf { anchor: Some(anchor()), ..blank(LeafKind::Anchor, &[]) };
    let reseal = Leaf { reseal: Some(formats::reseal()), ..blank(LeafKind::Reseal, &["reseal"]) };
    vec![
        ("batch", batch),
        ("session", blank(LeafKind::Session, &["tinh-01/main", "session=2"])),
        ("admin", detailed(LeafKind::Admin, &["source=tinh-01", "version=3"])),
        ("access", detailed(LeafKind::Access, &["source=tinh-01"])),
        ("refusals", blank(LeafKind::Refusals, &["192.0.2.0/24 unauthenticated 7"])),
        ("key", blank(LeafKind::Key, &["key=1", "purpose=1", "tinh-01", "month=24322"])),
        ("anchor", blank(LeafKind::Anchor, &["group=1"])),
        ("reseal", reseal),
        ("genesis", genesis),
        ("anchor.whole", anchor),
    ]
}

#[test]
fn leaves_of_every_kind() {
    let (mut golden, leaves) = (Golden::open("leaves", "dtm.format.v1"), leaves());
    let kinds: Vec<i32> = leaves.iter().map(|(_, leaf)| leaf.kind).collect();
    assert_eq!(kinds[..9], (1..=9).collect::<Vec<_>>(), "a leaf of each kind");
    for (name, leaf) in &leaves {
        golden.message(&format!("Leaf/{name}"), leaf);
    }
    golden.close();
}

#[test]
fn hashes_and_frontiers_of_the_leaves() {
    let mut golden = Golden::open("ledger", "bytes");
    let mut frontier = Frontier::new();
    golden.bytes("root/0", frontier.root().to_vec());
    for (name, leaf) in &leaves() {
        let hash = leaf_hash(&leaf.encode_to_vec());
        golden.bytes(&format!("leaf_hash/{name}"), hash.to_vec());
        frontier.append(hash);
        let (size, root) = (frontier.size(), frontier.root());
        golden.bytes(&format!("root/{size}"), root.to_vec());
        let kept = golden.bytes(&format!("frontier/{size}"), frontier.encode());
        assert_eq!(Frontier::decode(&kept).as_ref(), Ok(&frontier), "it opens");
    }
    golden.close();
}
