//! Versions: what stops a group, what raises it, what a replica of another release does.

use bytes::Bytes;
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{
    Admin, Command, CountRefusals, GroupRow, JoinTokenRow, NodeRow, RaiseVersion, RefusalKind,
    ReplicaRow, UseJoinToken, admin,
};
use dtm_types::{GroupId, bundle};
use prost::Message;

use crate::machine::ApplyError;
use crate::seams::{MemoryStateStore, StateBatch, StateStore};
use crate::{Committed, Machine};

const GROUP: GroupId = GroupId(1);

fn bundle_of(version: u8, command: &[u8]) -> Bytes {
    let mut builder = bundle::Builder::of_version(version, 1, &[7; 16], 64);
    builder.push(command);
    builder.finish()
}

fn raise(version: u32) -> Vec<u8> {
    let op = Some(Op::RaiseVersion(RaiseVersion { version }));
    Command { op, ..Command::default() }.encode_to_vec()
}

/// Applies one command as entry `index`; rows are written only when it succeeds.
fn apply(
    machine: &mut Machine,
    store: &MemoryStateStore,
    index: u64,
    bundle: Bytes,
) -> Result<Option<Answer>, ApplyError> {
    let mut batch = StateBatch::default();
    let entry = Committed { index, bundle: Some(bundle) };
    let outcomes = machine.apply(store, &[entry], &mut batch)?;
    store.write(&batch).expect("memory");
    Ok(outcomes[0][0].result.clone())
}

// holds: RAFT-1
#[test]
fn an_operation_of_a_later_release_stops_the_group() {
    let store = MemoryStateStore::new(GROUP);
    let mut unknown = Vec::new();
    prost::encoding::bytes::encode(99, &b"an operation of later".to_vec(), &mut unknown);
    for command in [unknown, Vec::new()] {
        let mut machine = Machine::load(GROUP, &store).expect("empty");
        let stopped = apply(&mut machine, &store, 1, bundle_of(1, &command));
        let Err(ApplyError::UnknownOperation { index: 1, ordinal: 0, .. }) = stopped else {
            panic!("{stopped:?}");
        };
    }
    let store = MemoryStateStore::new(GroupId::META);
    let mut machine = Machine::load(GroupId::META, &store).expect("empty");
    let admin = Command { op: Some(Op::Admin(Admin::default())), ..Command::default() };
    let stopped = apply(&mut machine, &store, 1, bundle_of(1, &admin.encode_to_vec()));
    assert!(matches!(stopped, Err(ApplyError::UnknownOperation { .. })), "{stopped:?}");
}

// holds: RAFT-1
#[test]
fn a_version_rises_by_an_entry_and_stops_who_does_not_know_it() {
    let (old_store, new_store) = (MemoryStateStore::new(GROUP), MemoryStateStore::new(GROUP));
    let mut old = Machine::load_up_to(1, GROUP, &old_store).expect("empty");
    let mut new = Machine::load_up_to(2, GROUP, &new_store).expect("empty");
    assert_eq!((old.version(), new.version()), (1, 1));
    let early = apply(&mut new, &new_store, 1, bundle_of(2, &raise(2)));
    assert!(matches!(early, Err(ApplyError::Version { version: 2, at: 1, .. })), "{early:?}");
    let mut new = Machine::load_up_to(2, GROUP, &new_store).expect("nothing was written");

    let skip = apply(&mut new, &new_store, 1, bundle_of(1, &raise(3))).expect("refused");
    assert!(matches!(skip, Some(Answer::Refusal(_))), "{skip:?}");
    let skip = apply(&mut old, &old_store, 1, bundle_of(1, &raise(3))).expect("refused alike");
    assert!(matches!(skip, Some(Answer::Refusal(_))), "{skip:?}");

    let (size, _) = new.ledger_head();
    apply(&mut new, &new_store, 2, bundle_of(1, &raise(2))).expect("raised");
    assert_eq!((new.version(), new.ledger_head().0), (2, size + 1), "with its leaf");
    apply(&mut new, &new_store, 3, bundle_of(2, &raise(2))).expect("again is nothing");
    assert_eq!(new.ledger_head().0, size + 1);
    let empty =
        Command { op: Some(Op::CountRefusals(CountRefusals::default())), ..Command::default() };
    apply(&mut new, &new_store, 4, bundle_of(2, &empty.encode_to_vec())).expect("goes on");

    let stopped = apply(&mut old, &old_store, 2, bundle_of(1, &raise(2)));
    assert!(
        matches!(stopped, Err(ApplyError::Version { version: 2, known: 1, .. })),
        "{stopped:?}"
    );
    // The software is replaced: the group goes on where it stopped.
    let mut replaced = Machine::load_up_to(2, GROUP, &old_store).expect("loads");
    apply(&mut replaced, &old_store, 2, bundle_of(1, &raise(2))).expect("raised");
    apply(&mut replaced, &old_store, 3, bundle_of(2, &raise(2))).expect("again is nothing");
    apply(&mut replaced, &old_store, 4, bundle_of(2, &empty.encode_to_vec())).expect("goes on");
    assert_eq!(replaced.ledger_head(), new.ledger_head());
    // And put back to the old release: it does not even load.
    let back = Machine::load_up_to(1, GROUP, &old_store);
    assert!(matches!(back, Err(ApplyError::Version { version: 2, .. })), "{back:?}");
}

#[test]
fn a_node_that_knows_less_than_the_cluster_is_at_does_not_join() {
    let store = MemoryStateStore::new(GroupId::META);
    let mut machine = Machine::load_up_to(2, GroupId::META, &store).expect("empty");
    let mut index = 0;
    let mut admin = |request: u8, op| {
        let op = Some(Op::Admin(Admin { op: Some(op), ..Admin::default() }));
        let request_id = vec![request; 16].into();
        let command = Command { request_id, op, ..Command::default() }.encode_to_vec();
        index += 1;
        let version = if index == 1 { 1 } else { 2 };
        let raised = apply(&mut machine, &store, index, bundle_of(version, &raise(2)));
        raised.expect("raised").expect("answered");
        index += 1;
        apply(&mut machine, &store, index, bundle_of(2, &command)).expect("total")
    };
    let token_hash = Bytes::from(vec![9; 32]);
    let row = JoinTokenRow { token_hash: token_hash.clone(), expires_us: 99, ..Default::default() };
    admin(1, admin::Op::PutJoinToken(row));
    let join = |version_max| {
        let node = Some(NodeRow { node: vec![5; 16].into(), version_max, ..NodeRow::default() });
        admin::Op::UseJoinToken(UseJoinToken { token_hash: token_hash.clone(), node })
    };
    for (request, older) in [(2, 0), (3, 1)] {
        let Some(Answer::Refusal(refusal)) = admin(request, join(older)) else {
            panic!("{older} joins");
        };
        assert_eq!(refusal.kind(), RefusalKind::Version);
        assert!(refusal.detail.contains("version 2"), "{}", refusal.detail);
    }
    let joined = admin(4, join(2));
    assert!(matches!(joined, Some(Answer::Done(_))), "the token was not spent: {joined:?}");
}

#[test]
fn replica_ids_and_their_marks_are_for_good() {
    let store = MemoryStateStore::new(GroupId::META);
    let mut machine = Machine::load(GroupId::META, &store).expect("empty");
    let mut index = 0;
    let mut put = |next: u64, replicas: &[(u64, u8, bool, bool)]| {
        let replicas = replicas.iter().map(|&(replica, node, removed, confirmed)| ReplicaRow {
            replica,
            node: vec![node; 16].into(),
            removed,
            confirmed,
            ..ReplicaRow::default()
        });
        let row = GroupRow { group: 1, replicas: replicas.collect(), next_replica_id: next };
        let op = Some(Op::Admin(Admin { op: Some(admin::Op::PutGroup(row)), ..Admin::default() }));
        let command = Command { op, ..Command::default() }.encode_to_vec();
        index += 1;
        let answer = apply(&mut machine, &store, index, bundle_of(1, &command)).expect("total");
        matches!(answer, Some(Answer::Done(_)))
    };
    assert!(put(4, &[(1, 1, false, true), (3, 2, false, false)]), "2 was skipped");
    assert!(put(4, &[(1, 1, false, true), (3, 2, false, true)]), "confirmed");
    assert!(!put(4, &[(1, 1, false, true), (3, 2, false, false)]), "and not taken back");
    assert!(!put(4, &[(1, 1, false, true)]), "forgotten");
    assert!(put(5, &[(1, 1, false, true), (3, 2, true, true), (4, 2, false, false)]), "lost");
    let revived = [(1, 1, false, true), (3, 2, false, true), (4, 2, false, false)];
    assert!(!put(5, &revived), "a removed id comes back");
    let skipped =
        [(1, 1, false, true), (2, 3, false, false), (3, 2, true, true), (4, 2, false, false)];
    assert!(!put(5, &skipped), "an id below the next one is not given");
    let moved = [(1, 9, false, true), (3, 2, true, true), (4, 2, false, false)];
    assert!(!put(5, &moved), "an id changes its node");
}

#[test]
fn a_replica_that_leaves_does_not_stay() {
    let store = MemoryStateStore::new(GroupId::META);
    let mut machine = Machine::load(GroupId::META, &store).expect("empty");
    let mut index = 0;
    let mut put = |leaving, removed| {
        let replica = 1;
        let row = ReplicaRow { replica, leaving, removed, confirmed: true, ..Default::default() };
        let row = GroupRow { group: 1, replicas: vec![row], next_replica_id: 2 };
        let op = Some(Op::Admin(Admin { op: Some(admin::Op::PutGroup(row)), ..Admin::default() }));
        let command = Command { op, ..Command::default() }.encode_to_vec();
        index += 1;
        let answer = apply(&mut machine, &store, index, bundle_of(1, &command)).expect("total");
        matches!(answer, Some(Answer::Done(_)))
    };
    assert!(put(false, false) && put(true, false), "it is to leave");
    assert!(!put(false, false), "and not taken back");
    assert!(put(true, true), "it has left");
    assert!(!put(false, true) && !put(true, false), "for good");
}
