//! Entries of what is carried out outside apply: leadership, the cluster key.

use dtm_types::NodeId;
use dtm_types::command::{
    GroupRow, IssueNodeCertificate, NodeRow, RaiseVersion, RemoveNode, ReplicaRow,
    RotateClusterKey, TransferLeader,
};
use dtm_types::format::{Leaf, LeafKind};

use crate::keys::{Key, table};

use super::*;

const NODE: [u8; 16] = [5; 16];

impl Group {
    fn act(&mut self, op: admin::Op) -> Result<u64, RefusalKind> {
        match self.one(admin_op(op, None)).result {
            Some(Answer::Done(done)) => Ok(done.leaf_index),
            Some(Answer::Refusal(refusal)) => Err(refusal.kind()),
            other => panic!("{other:?}"),
        }
    }

    /// The last leaf's object ids.
    fn told(&self, leaf_index: u64) -> Vec<String> {
        assert_eq!(leaf_index + 1, self.machine.ledger_head().0, "the last leaf");
        let row = self.store.get(&Key::of(table::LEAF).u64(leaf_index).done()).expect("rows");
        let leaf = Leaf::decode(&row.expect("kept")[1..]).expect("a leaf");
        assert_eq!(leaf.kind(), LeafKind::Admin);
        leaf.object_ids
    }

    fn cluster(&self) -> ClusterRow {
        reads::cluster(&self.store).expect("rows").expect("founded")
    }
}

fn raised() -> Group {
    let mut group = meta();
    let raised = group.one(Op::RaiseVersion(RaiseVersion { version: 2 })).result;
    assert!(matches!(raised, Some(Answer::Done(_))), "{raised:?}");
    group
}

fn transfer(groups: &[u32], to: [u8; 16]) -> admin::Op {
    admin::Op::TransferLeader(TransferLeader { groups: groups.to_vec(), to: to.to_vec().into() })
}

fn rotate(key: u8, current: bool) -> admin::Op {
    admin::Op::RotateClusterKey(RotateClusterKey { key_id: vec![key; 16].into(), current })
}

// holds: SEC-2
#[test]
fn a_transfer_of_leadership_is_a_leaf_and_changes_no_row() {
    let mut group = raised();
    assert_eq!(group.act(transfer(&[0], NODE)), Err(RefusalKind::NotFound), "an unknown node");
    let row = NodeRow { node: NODE.to_vec().into(), ..NodeRow::default() };
    group.act(admin::Op::PutNode(row)).expect("a node");
    for number in [0, 1, 2] {
        let replica = ReplicaRow { replica: 1, node: NODE.to_vec().into(), ..Default::default() };
        let row = GroupRow { group: number, replicas: vec![replica], next_replica_id: 2 };
        group.act(admin::Op::PutGroup(row)).expect("a group");
    }
    let rows = |group: &Group| {
        let here = |from: u8, to: u8| group.store.scan(&[from], &[to], 1_000).expect("rows");
        // Without what remembers requests, and the ledger.
        [here(table::SOURCE, table::DETAIL), here(table::SOURCE_CERTIFICATE, 0xff)].concat()
    };
    let (before, (size, _)) = (rows(&group), group.machine.ledger_head());
    for (groups, to, why) in [
        (&[][..], NODE, RefusalKind::Malformed),
        (&[2, 1], NODE, RefusalKind::Malformed),
        (&[1, 1], NODE, RefusalKind::Malformed),
        (&[1, 7], NODE, RefusalKind::NotFound),
        (&[1], [6; 16], RefusalKind::NotFound),
    ] {
        assert_eq!(group.act(transfer(groups, to)), Err(why), "{groups:?}");
    }
    assert_eq!(group.machine.ledger_head().0, size, "what is refused leaves nothing");
    let leaf = group.act(transfer(&[0, 2], NODE)).expect("entered");
    assert_eq!(
        group.told(leaf),
        [format!("leader={}", NodeId(NODE)).as_str(), "group=0", "group=2"]
    );
    assert_eq!(rows(&group), before);
    group
        .act(admin::Op::RemoveNode(RemoveNode { node: NODE.to_vec().into(), ..Default::default() }))
        .expect("removed");
    assert_eq!(group.act(transfer(&[0], NODE)), Err(RefusalKind::NotFound), "a removed node");
}

// holds: SEC-2
#[test]
fn a_certificate_of_a_node_is_a_leaf_with_its_serial_and_only_of_a_node_that_is_there() {
    let mut group = raised();
    let issue = |node: &[u8], digest: usize, serial: usize| {
        admin::Op::IssueNodeCertificate(IssueNodeCertificate {
            node: node.to_vec().into(),
            digest: vec![0xab; digest].into(),
            serial: vec![0x41; serial].into(),
            not_after_us: 7,
        })
    };
    assert_eq!(group.act(issue(&NODE, 32, 16)), Err(RefusalKind::NotFound), "an unknown node");
    let row = NodeRow { node: NODE.to_vec().into(), ..NodeRow::default() };
    group.act(admin::Op::PutNode(row)).expect("a node");
    let (size, _) = group.machine.ledger_head();
    for (node, digest, serial) in
        [(&NODE[..15], 32, 16), (&NODE, 31, 16), (&NODE, 32, 0), (&NODE, 32, 21)]
    {
        let refused = group.act(issue(node, digest, serial));
        assert_eq!(refused, Err(RefusalKind::Malformed), "{digest} {serial}");
    }
    assert_eq!(group.machine.ledger_head().0, size, "what is refused leaves nothing");
    let leaf = group.act(issue(&NODE, 32, 3)).expect("entered");
    let certificate = format!("certificate={}", "ab".repeat(32));
    let node = format!("node={}", NodeId(NODE));
    assert_eq!(group.told(leaf), [&*node, &*certificate, "serial=414141"]);
    let gone = RemoveNode { node: NODE.to_vec().into(), ..Default::default() };
    group.act(admin::Op::RemoveNode(gone)).expect("removed");
    assert_eq!(group.act(issue(&NODE, 32, 3)), Err(RefusalKind::NotFound), "a removed node");
}

// holds: SEC-2
#[test]
fn a_cluster_key_is_current_only_after_the_entry_that_it_was_begun() {
    let mut group = raised();
    let (size, _) = group.machine.ledger_head();
    assert_eq!(group.act(rotate(3, true)), Err(RefusalKind::Version), "never begun");
    let short = RotateClusterKey { key_id: vec![3; 15].into(), current: false };
    let short = group.act(admin::Op::RotateClusterKey(short));
    assert_eq!(short, Err(RefusalKind::Malformed));
    assert_eq!(group.machine.ledger_head().0, size);

    let leaf = group.act(rotate(3, false)).expect("begun");
    assert_eq!(group.told(leaf)[1], "begun");
    let begun = group.cluster();
    assert_eq!(
        (&begun.cluster_key_id[..], &begun.pending_cluster_key_id[..]),
        (&[][..], &[3; 16][..])
    );
    // A second rotation takes the place of the first.
    group.act(rotate(4, false)).expect("begun");
    assert_eq!(group.act(rotate(3, true)), Err(RefusalKind::Version));
    let leaf = group.act(rotate(4, true)).expect("current");
    assert_eq!(group.told(leaf)[1], "current");
    let row = group.cluster();
    assert_eq!((&row.cluster_key_id[..], row.pending_cluster_key_id.len()), (&[4; 16][..], 0));
    assert_eq!(group.act(rotate(4, true)), Err(RefusalKind::Version), "once");
    assert_eq!((row.ingest_groups, row.incarnation), (3, 1), "the rest of the row stays");

    let put = admin::Op::PutCluster;
    let most = ClusterRow { ingest_groups: 256, ..row.clone() };
    assert_eq!(
        group.act(put(most)),
        Err(RefusalKind::Malformed),
        "a node's log holds 255 and meta"
    );
    let by_hand = ClusterRow { cluster_key_id: vec![9; 16].into(), ..row.clone() };
    assert_eq!(group.act(put(by_hand)), Err(RefusalKind::Malformed), "past the rotation");
    let by_hand = ClusterRow { pending_cluster_key_id: vec![9; 16].into(), ..row.clone() };
    assert_eq!(group.act(put(by_hand)), Err(RefusalKind::Malformed));
    group.act(put(ClusterRow { production: true, ..row })).expect("what is no key changes");
    assert_eq!(group.cluster().cluster_key_id, vec![4; 16]);
}

// Entries of version 1 mean for ever what they meant.
//
// holds: RAFT-1
#[test]
fn before_version_two_the_row_carried_the_key() {
    let mut group = meta();
    let row = ClusterRow { cluster_key_id: vec![9; 16].into(), ..group.cluster() };
    group.act(admin::Op::PutCluster(row)).expect("as it was");
    assert_eq!(group.cluster().cluster_key_id, vec![9; 16]);
}
