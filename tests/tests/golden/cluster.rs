//! What the cluster layer stores beside the machine's rows, what a snapshot is made of, what a
//! reading position holds.

use dtm_proto::cluster::{
    AppliedRow, Bundles, BundlesEnd, Entry, IndexRange, LogId, Manifest, Member, Membership,
    MissingBundles, PeerNode, Row, Rows, SnapshotEnd, StoredMembership, Target, Vote, VoterSet,
};
use dtm_proto::records::{GroupPosition, Position};
use sha2::{Digest, Sha256};

use crate::file::{Golden, digest, id};

fn log_id() -> LogId {
    LogId { term: 1, leader: 2, index: 3_000 }
}

fn membership() -> Membership {
    let node = PeerNode {
        node: id(1),
        site: "hn".into(),
        zone: "a".into(),
        peer_address: "n1:9444".into(),
        grpc_address: "n1:9443".into(),
        https_address: "n1:8443".into(),
    };
    let configs = [vec![1, 2, 300], vec![2, 4, 300]].map(|replicas| VoterSet { replicas });
    let member = |replica| Member { replica, node: Some(node.clone()) };
    Membership { configs: configs.into(), members: [1, 2, 4, 300].map(member).into() }
}

fn stored_membership() -> StoredMembership {
    StoredMembership { log_id: Some(log_id()), membership: Some(membership()) }
}

#[test]
fn rows_and_log_payloads_of_the_cluster_layer() {
    let mut golden = Golden::open("cluster", "dtm.cluster.v1");
    let applied = AppliedRow { applied: Some(log_id()), membership: Some(stored_membership()) };
    golden.message("AppliedRow", &applied);
    let ranges = vec![IndexRange { from: 1, to: 2 }, IndexRange { from: 300, to: 400 }];
    golden.message("MissingBundles", &MissingBundles { ranges });
    golden.message("Membership", &membership());
    golden.message("Vote", &Vote { term: 1, replica: 2, committed: true });
    golden.message("LogId", &log_id());
    golden.close();
}

#[test]
fn a_snapshot_on_its_way() {
    let mut golden = Golden::open("snapshot", "dtm.cluster.v1");
    let manifest = Manifest {
        target: Some(Target { group: 1, replica: 2 }),
        vote: Some(Vote { term: 1, replica: 2, committed: true }),
        last: Some(log_id()),
        membership: Some(stored_membership()),
        ledger_size: 5_000,
        ledger_root: digest(6),
    };
    golden.message("Manifest", &manifest);
    let rows = [(&b"\x12tinh-01\0main\0"[..], &b"cursor"[..]), (b"\x17", b"")];
    let mut hash = Sha256::new();
    for part in rows.iter().flat_map(|(key, value)| [key, value]) {
        hash.update(u32::try_from(part.len()).unwrap().to_le_bytes());
        hash.update(part);
    }
    let as_row = |(key, value): (&[u8], &[u8])| Row {
        key: key.to_vec().into(),
        value: value.to_vec().into(),
    };
    golden.message("Rows", &Rows { rows: rows.map(as_row).into() });
    let rows_digest = hash.finalize().to_vec().into();
    golden.message("SnapshotEnd", &SnapshotEnd { rows: 2, rows_digest });
    let entry = Entry { log_id: Some(log_id()), payload: vec![1; 9].into() };
    golden.message("Bundles", &Bundles { entries: vec![entry] });
    let lacking = vec![IndexRange { from: 10, to: 20 }];
    golden.message("BundlesEnd", &BundlesEnd { count: 1, lacking });
    golden.close();
}

#[test]
fn positions_of_readings() {
    let mut golden = Golden::open("positions", "dtm.records.v1");
    let group = GroupPosition { group: 1, index: 2_000, ordinal: 3, records: 4 };
    let groups = vec![group, GroupPosition { group: 12, ..GroupPosition::default() }];
    golden.message("Position/groups", &Position { incarnation: 1, groups, sequence: 0 });
    let stream = Position { incarnation: 1, groups: Vec::new(), sequence: 3_000 };
    golden.message("Position/stream", &stream);
    golden.close();
}
