//! Apply is total: no number in a command, however odd, stops a group. What one replica panics on,
//! every replica panics on, at each start again.

use dtm_types::command::{
    Anchor, BootNode, CloseSession, CountRefusals, DatasetRow, DenyApproval, GrantApproval,
    GroupRow, JoinTokenRow, NodeRow, OperatorRow, RaiseVersion, RefusalCount, RemoveNode,
    ReplicaRow, RequestApproval, ResendQuarantined, RevokeOperator, RevokeSourceCertificate,
    RevokeSourceKey, RewrapKeys, SourceCertificateRow, SourceKeyRow, UseJoinToken,
};
use dtm_types::format::AnchoredGroup;

use super::*;

/// Where arithmetic ends, for both widths and signs.
const ODD: [u64; 6] =
    [0, 1, u32::MAX as u64, StreamKey::SEQUENCE_MAX + 1, i64::MAX as u64, u64::MAX];
/// Highest field number of a command's messages.
const FIELDS: u32 = 40;
/// Nesting of a command's messages.
const DEPTH: usize = 5;
const VARINT: u64 = 0;
const BYTES: u64 = 2;

/// The message with each of its numbers, present or not, replaced by each odd one, at each depth. A
/// field that is not a number yields bytes that do not decode.
fn odd_ones(message: &[u8], depth: usize) -> Vec<Vec<u8>> {
    let Some(fields) = fields(message) else { return Vec::new() };
    let mut all = Vec::new();
    for tag in 1..=FIELDS {
        for value in ODD {
            // The last one of a field counts.
            let mut with = message.to_vec();
            prost::encoding::uint64::encode(tag, &value, &mut with);
            all.push(with);
        }
    }
    if depth == 0 {
        return all;
    }
    for (start, end, tag) in fields {
        let content = inner(&message[start..end]);
        for changed in odd_ones(content, depth - 1) {
            let mut with = message[..start].to_vec();
            prost::encoding::bytes::encode(tag, &changed, &mut with);
            with.extend_from_slice(&message[end..]);
            all.push(with);
        }
    }
    all
}

/// Places of the fields that may hold a message; `None` when the bytes are none.
fn fields(message: &[u8]) -> Option<Vec<(usize, usize, u32)>> {
    let (mut rest, mut places) = (message, Vec::new());
    while !rest.is_empty() {
        let start = message.len() - rest.len();
        let key = prost::encoding::decode_varint(&mut rest).ok()?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| (1..=FIELDS).contains(tag))?;
        match key & 7 {
            VARINT => drop(prost::encoding::decode_varint(&mut rest).ok()?),
            BYTES => {
                let bytes =
                    usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
                rest = rest.get(bytes..)?;
                places.push((start, message.len() - rest.len(), tag));
            }
            _ => return None,
        }
    }
    Some(places)
}

fn inner(field: &[u8]) -> &[u8] {
    let mut rest = field;
    for _ in 0..2 {
        prost::encoding::decode_varint(&mut rest).expect("was read before");
    }
    rest
}

/// Applies every odd form of the command, each followed by `then`.
fn survives(group: &mut Group, op: Op, then: impl Fn(&mut Group)) {
    let mut applied = 0;
    for odd in odd_ones(&command(op).encode_to_vec(), DEPTH) {
        if let Ok(Command { op: Some(op), .. }) = Command::decode(odd.as_slice()) {
            group.one(op);
            then(group);
            applied += 1;
        }
    }
    assert!(applied > 0, "nothing odd was applied");
}

// holds: LIVE-1
// fault: F25
#[test]
fn no_number_of_a_stream_command_stops_a_group() {
    let (source, stream) = (|| "tinh-01".to_owned(), || "s".to_owned());
    let Op::PutKey(put) = key_op() else { unreachable!() };
    let keys = put.key.into_iter().collect();
    let counts = vec![RefusalCount { prefix: "::".into(), code: "x".into(), count: 1 }];
    let ops = [
        open("s"),
        batch("s", 1, 1, &[1, 2]),
        batch_with("s", 1, 1, &[1, 2], vec![3; 32], vec![1]),
        Op::DeclareLost(DeclareLost {
            source: source(),
            stream: stream(),
            session: 1,
            from_sequence: 1,
            to_sequence: 2,
        }),
        Op::CloseSession(CloseSession { source: source(), stream: stream(), ..Default::default() }),
        key_op(),
        Op::CountRefusals(CountRefusals { counts }),
        Op::RewrapKeys(RewrapKeys { keys }),
        Op::RaiseVersion(RaiseVersion { version: 1 }),
    ];
    for op in ops {
        let mut group = Group::new(INGEST);
        group.one(key_op());
        group.open("s");
        survives(&mut group, op, |group| {
            let Some(Answer::SessionOpened(opened)) = group.one(open("s")).result else { return };
            let Some(Answer::SessionOpened(_)) = group.one(open("t")).result else { return };
            group.one(batch("s", opened.session, opened.next_sequence, &[1, 2]));
            group.machine = Machine::load(INGEST, &group.store).expect("rows");
        });
    }
}

/// One of each command of meta.
fn admin_ops() -> [admin::Op; 16] {
    use admin::Op as A;
    let (source, node) = (|| "tinh-01".to_owned(), || Bytes::from_static(&[3; 16]));
    let row = || NodeRow { node: node(), name: "n1".into(), ..NodeRow::default() };
    let digest = || Bytes::from_static(&[4; 32]);
    let replicas = vec![ReplicaRow { replica: 1, node: node(), ..ReplicaRow::default() }];
    [
        A::PutSource(SourceRow { source: source(), ..SourceRow::default() }),
        A::PutSourceKey(SourceKeyRow {
            source: source(),
            key_id: vec![1; 8].into(),
            ..SourceKeyRow::default()
        }),
        A::RevokeSourceKey(RevokeSourceKey { source: source(), key_id: vec![1; 8].into() }),
        A::PutSourceCertificate(SourceCertificateRow {
            source: source(),
            digest: digest(),
            ..SourceCertificateRow::default()
        }),
        A::RevokeSourceCertificate(RevokeSourceCertificate { source: source(), digest: digest() }),
        A::PutDataset(DatasetRow { dataset: "d".into(), schema_version: 1, ..Default::default() }),
        A::PutOperator(OperatorRow { id: node(), name: "o".into(), ..OperatorRow::default() }),
        A::RevokeOperator(RevokeOperator { name: "o".into() }),
        A::PutNode(row()),
        A::BootNode(BootNode { node: node(), boot_counter: 2, ..BootNode::default() }),
        A::PutJoinToken(JoinTokenRow { token_hash: digest(), expires_us: 1, ..Default::default() }),
        A::UseJoinToken(UseJoinToken { token_hash: digest(), node: Some(row()) }),
        A::PutGroup(GroupRow { group: 1, replicas, next_replica_id: 2 }),
        A::PutCluster(ClusterRow { cluster_id: vec![1; 16].into(), ..ClusterRow::default() }),
        A::ResendQuarantined(ResendQuarantined { source: source(), ..Default::default() }),
        A::RemoveNode(RemoveNode { node: node(), ..RemoveNode::default() }),
    ]
}

// holds: LIVE-1
#[test]
fn no_number_of_an_administrative_command_stops_meta() {
    for op in admin_ops() {
        let mut group = meta();
        group.one(source_op("tinh-01", None));
        survives(&mut group, admin_op(op.clone(), None), |group| {
            for (n, version) in [None, Some(1), Some(u64::MAX)].into_iter().enumerate() {
                group.one(admin_op(op.clone(), version));
                group.one(source_op(&format!("tinh-{n}"), version));
            }
            group.machine = Machine::load(GroupId::META, &group.store).expect("rows");
        });
    }
}

/// One of each command of meta that came with version 2 and names numbers of its own.
fn later_ops() -> Vec<Op> {
    use admin::Op as A;
    let (id, root) = (|| Bytes::from_static(&[3; 16]), || Bytes::from_static(&[4; 32]));
    let asked = RequestApproval {
        id: id(),
        kind: "k".into(),
        object: "o".into(),
        object_digest: crate::approval::digest("k", "o").to_vec().into(),
        ..RequestApproval::default()
    };
    let object_digest = asked.object_digest.clone();
    let granted = GrantApproval { id: id(), object_digest, ..GrantApproval::default() };
    let denied = DenyApproval { id: id(), ..DenyApproval::default() };
    let removal = RemoveNode { node: id(), approval: id(), replicas_min: 3 };
    let group = AnchoredGroup { group: 1, ledger_root: root(), ..AnchoredGroup::default() };
    let anchor = Op::Anchor(Anchor { groups: vec![group], incarnation: 1 });
    let actions = [
        A::RequestApproval(asked),
        A::GrantApproval(granted),
        A::DenyApproval(denied),
        A::RemoveNode(removal),
    ];
    actions.into_iter().map(|op| admin_op(op, None)).chain([anchor]).collect()
}

// holds: LIVE-1
#[test]
fn no_number_of_an_operation_of_version_two_stops_meta() {
    for op in later_ops() {
        let mut group = meta();
        group.one(Op::RaiseVersion(RaiseVersion { version: 2 }));
        let cluster = ClusterRow {
            cluster_id: vec![1; 16].into(),
            ingest_groups: 3,
            incarnation: 1,
            production: true,
            ..ClusterRow::default()
        };
        let node = NodeRow { node: vec![3; 16].into(), ..NodeRow::default() };
        let who = OperatorRow {
            id: vec![5; 16].into(),
            name: "o".into(),
            role: "operator".into(),
            certificate_digest: vec![7; 32].into(),
            not_after_us: i64::MAX,
            ..OperatorRow::default()
        };
        let row = GroupRow { group: 1, ..GroupRow::default() };
        for op in [
            admin::Op::PutCluster(cluster),
            admin::Op::PutNode(node),
            admin::Op::PutOperator(who),
            admin::Op::PutGroup(row),
        ] {
            assert!(matches!(group.one(admin_op(op, None)).result, Some(Answer::Done(_))));
        }
        survives(&mut group, op.clone(), |group| {
            group.one(op.clone());
            group.machine = Machine::load(GroupId::META, &group.store).expect("rows");
        });
    }
}

// holds: LIVE-1, ING-1
#[test]
fn what_is_declared_lost_leaves_a_sequence_to_go_on_with() {
    let (mut group, opened) = ready();
    let lost = |from_sequence, to_sequence| {
        Op::DeclareLost(DeclareLost {
            source: "tinh-01".into(),
            stream: "s".into(),
            session: opened.session,
            from_sequence,
            to_sequence,
        })
    };
    let beyond = refusal(group.one(lost(1, u64::MAX)));
    assert_eq!(beyond.kind(), RefusalKind::Malformed, "{beyond:?}");
    let Some(Answer::Done(_)) = group.one(lost(1, StreamKey::SEQUENCE_MAX)).result else {
        panic!("every sequence there is may be lost")
    };
    let again = group.open("s");
    assert_eq!(again.next_sequence, StreamKey::SEQUENCE_MAX + 1);
    let past = group.one(batch("s", again.session, again.next_sequence, &[1]));
    assert_eq!(refusal(past).kind(), RefusalKind::Malformed);
}
