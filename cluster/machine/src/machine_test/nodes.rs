//! Nodes: one of a name at a time, and what their newest start told stays.

use dtm_types::command::{BootNode, JoinTokenRow, NodeRow, RaiseVersion, RemoveNode, UseJoinToken};

use super::*;

fn act(meta: &mut Group, op: admin::Op) -> Answer {
    let outcome = meta.one(Op::Admin(Admin { op: Some(op), ..Admin::default() }));
    outcome.result.expect("answered")
}

fn row(byte: u8, name: &str) -> NodeRow {
    let version_max = u32::from(bundle::VERSION_MAX);
    NodeRow { node: vec![byte; 16].into(), name: name.into(), version_max, ..NodeRow::default() }
}

fn join(meta: &mut Group, token: u8, node: NodeRow) -> Answer {
    let token_hash = Bytes::from(vec![token; 32]);
    let expires_us = i64::MAX;
    let held = JoinTokenRow { token_hash: token_hash.clone(), expires_us, ..Default::default() };
    assert!(matches!(act(meta, admin::Op::PutJoinToken(held)), Answer::Done(_)));
    act(meta, admin::Op::UseJoinToken(UseJoinToken { token_hash, node: Some(node) }))
}

fn taken(answer: Answer, by: u8) {
    let Answer::Refusal(refusal) = answer else { panic!("a second node of the name: {answer:?}") };
    assert_eq!(refusal.kind(), RefusalKind::Exists);
    let other = dtm_types::NodeId([by; 16]).to_string();
    assert!(refusal.detail.contains(&other), "{}", refusal.detail);
    assert!(refusal.detail.contains("--node"), "{}", refusal.detail);
}

#[test]
fn a_name_belongs_to_one_node_that_is_not_removed() {
    let mut meta = Group::new(GroupId::META);
    assert!(matches!(act(&mut meta, admin::Op::PutNode(row(1, "n1"))), Answer::Done(_)));
    taken(join(&mut meta, 11, row(2, "n1")), 1);
    taken(act(&mut meta, admin::Op::PutNode(row(2, "n1"))), 1);
    let token_hash = Bytes::from(vec![11; 32]);
    let node = Some(row(2, "n2"));
    let again = act(&mut meta, admin::Op::UseJoinToken(UseJoinToken { token_hash, node }));
    assert!(matches!(again, Answer::Done(_)), "a refused join spends no token: {again:?}");
    // The row of a node is changed under its own name, and not to another's.
    let drained = NodeRow { draining: true, ..row(2, "n2") };
    assert!(matches!(act(&mut meta, admin::Op::PutNode(drained)), Answer::Done(_)));
    taken(act(&mut meta, admin::Op::PutNode(row(2, "n1"))), 1);
    let gone = RemoveNode { node: vec![1; 16].into(), ..RemoveNode::default() };
    assert!(matches!(act(&mut meta, admin::Op::RemoveNode(gone)), Answer::Done(_)));
    let joined = join(&mut meta, 12, row(3, "n1"));
    assert!(matches!(joined, Answer::Done(_)), "the name of a removed node is free: {joined:?}");
}

// Two joins of one name in one bundle: the second one sees the first.
#[test]
fn of_two_joins_at_once_one_gets_the_name() {
    let mut meta = Group::new(GroupId::META);
    for token in [21, 22] {
        let token_hash = Bytes::from(vec![token; 32]);
        let held = JoinTokenRow { token_hash, expires_us: i64::MAX, ..Default::default() };
        assert!(matches!(act(&mut meta, admin::Op::PutJoinToken(held)), Answer::Done(_)));
    }
    let join = |token: u8, byte| {
        let token_hash = Bytes::from(vec![token; 32]);
        let join = UseJoinToken { token_hash, node: Some(row(byte, "n2")) };
        let op = Some(admin::Op::UseJoinToken(join));
        command(Op::Admin(Admin { op, ..Admin::default() }))
    };
    let mut outcomes = meta.apply(&[join(21, 4), join(22, 5)]);
    taken(outcomes.remove(1).result.expect("answered"), 4);
    assert!(matches!(outcomes.remove(0).result, Some(Answer::Done(_))));
}

/// A node that starts anew between the moment its row was read and the moment it is written back.
fn written_back(meta: &mut Group) -> NodeRow {
    let done = |answer: Answer| assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    let first = NodeRow { boot_counter: 3, software_version: "1.1".into(), ..row(1, "n1") };
    done(act(meta, admin::Op::PutNode(first.clone())));
    let start = BootNode {
        node: first.node.clone(),
        boot_counter: 4,
        software_version: "1.0".into(),
        version_max: 1,
        sites_address: "n1:9445".into(),
    };
    done(act(meta, admin::Op::BootNode(start)));
    done(act(meta, admin::Op::PutNode(NodeRow { draining: true, ..first })));
    reads::node(&meta.store, dtm_types::NodeId([1; 16])).expect("memory").expect("a row")
}

#[test]
fn a_row_that_was_read_before_a_start_does_not_hide_it() {
    let mut meta = Group::new(GroupId::META);
    let raised = meta.one(Op::RaiseVersion(RaiseVersion { version: 2 }));
    assert!(!matches!(raised.result, Some(Answer::Refusal(_))), "{raised:?}");
    let found = written_back(&mut meta);
    assert!(found.draining, "what was asked for is written");
    let start = (found.boot_counter, &*found.software_version, found.version_max);
    assert_eq!(start, (4, "1.0", 1));
    assert_eq!(found.sites_address, "n1:9445");
    // A group that releases of before write too goes on as they do.
    let old = written_back(&mut Group::new(GroupId::META));
    assert_eq!((old.boot_counter, &*old.software_version), (4, "1.1"));
    assert_eq!(old.sites_address, "", "a field of version 2");
}
