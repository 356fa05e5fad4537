//! Apply, command by command, over the in-memory store.

use bytes::Bytes;
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{
    Actor, Admin, AppendBatch, Appended, ClusterRow, Command, DeclareLost, Genesis, OpenSession,
    Outcome, PutKey, Refusal, RefusalKind, SessionOpened, SourceRow, admin,
};
use dtm_types::format::{self, EntryBody, HeaderA, HeaderB, WrappedKey};
use dtm_types::{GroupId, Month, StreamKey, bundle};
use proptest::prelude::*;
use prost::Message;

use crate::seams::{MemoryStateStore, StateBatch, StateRead, StateStore};
use crate::{Committed, Machine, reads};

mod anchors;
mod approvals;
mod day;
mod entries;
mod layout;
mod lives;
mod lost;
mod nodes;
mod settings;
mod time;
mod total;

const TIME_US: i64 = 1_795_000_000_000_000;
const INGEST: GroupId = GroupId(1);

struct Group {
    store: MemoryStateStore,
    machine: Machine,
    index: u64,
}

impl Group {
    fn new(group: GroupId) -> Self {
        let store = MemoryStateStore::new(group);
        let machine = Machine::load(group, &store).expect("empty store");
        Self { store, machine, index: 0 }
    }

    fn bundle(commands: &[Command]) -> Bytes {
        let mut builder = bundle::Builder::new(TIME_US, &[7; 16], 1_024);
        for command in commands {
            builder.push(&command.encode_to_vec());
        }
        builder.finish()
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Outcome> {
        self.index += 1;
        let entry = Committed { index: self.index, bundle: Some(Self::bundle(commands)) };
        let mut batch = StateBatch::default();
        let outcomes =
            self.machine.apply(&self.store, &[entry], &mut batch).expect("apply is total");
        self.store.write(&batch).expect("memory");
        outcomes.into_iter().next().expect("one entry")
    }

    fn one(&mut self, op: Op) -> Outcome {
        self.apply(&[command(op)]).remove(0)
    }

    fn open(&mut self, stream: &str) -> SessionOpened {
        match self.one(open(stream)).result {
            Some(Answer::SessionOpened(opened)) => opened,
            other => panic!("{other:?}"),
        }
    }
}

fn command(op: Op) -> Command {
    let request_id = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    let actor = Some(Actor { kind: 1, id: vec![7; 16].into() });
    Command { request_id, actor, op: Some(op) }
}

fn open(stream: &str) -> Op {
    Op::OpenSession(OpenSession {
        source: "tinh-01".into(),
        stream: stream.into(),
        dataset: "dossier_progress".into(),
        month: Month::of_micros(TIME_US).0,
        stream_names_max: 3,
        quarantine_records_max: 10,
        quarantine_bytes_max: 100,
        ..OpenSession::default()
    })
}

fn key_op() -> Op {
    let key = WrappedKey {
        key_id: vec![1; 16].into(),
        purpose: format::KeyPurpose::Data.into(),
        source: "tinh-01".into(),
        month: Month::of_micros(TIME_US).0,
        cluster_key_id: vec![2; 16].into(),
        wrapped: vec![3; 73].into(),
    };
    Op::PutKey(PutKey { key: Some(key) })
}

fn batch(stream: &str, session: u64, first: u64, contents: &[u8]) -> Op {
    batch_with(stream, session, first, contents, Vec::new(), Vec::new())
}

fn batch_with(
    stream: &str,
    session: u64,
    first: u64,
    contents: &[u8],
    fingerprints: Vec<u8>,
    refused: Vec<u8>,
) -> Op {
    let count = contents.len();
    let header = HeaderA {
        version: 1,
        source: "tinh-01".into(),
        stream: stream.into(),
        session,
        first_sequence: first,
        last_sequence: first + count as u64 - 1,
        dataset: "dossier_progress".into(),
        schema_version: 1,
        key_id: vec![1; 16].into(),
        nonce: vec![4; 24].into(),
        count: count as u32,
        refusal_bitmap: refused.into(),
        record_root: vec![5; 32].into(),
        ..HeaderA::default()
    };
    let part_b = HeaderB { ciphertext_digest: vec![6; 32].into(), tag: vec![7; 16].into() };
    let tags: Vec<u8> = contents.iter().flat_map(|&c| [c.max(1); 16]).collect();
    let body = EntryBody {
        header_a: header.encode_to_vec().into(),
        header_b: part_b.encode_to_vec().into(),
        record_hashes: vec![8; 32 * count].into(),
        resend_tags: tags.into(),
        fingerprints: fingerprints.into(),
        sealed: vec![9; 10].into(),
    };
    Op::AppendBatch(AppendBatch { body: Some(body), ..AppendBatch::default() })
}

fn appended(outcome: Outcome) -> Appended {
    match outcome.result {
        Some(Answer::Appended(appended)) => appended,
        other => panic!("{other:?}"),
    }
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome.result {
        Some(Answer::Refusal(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn ready() -> (Group, SessionOpened) {
    let mut group = Group::new(INGEST);
    group.one(key_op());
    let opened = group.open("s");
    (group, opened)
}

// holds: ING-3
#[test]
fn a_stream_takes_only_the_next_sequence_of_the_current_session() {
    let (mut group, first) = ready();
    assert_eq!((first.session, first.next_sequence), (1, 1));
    assert!(first.data_key.is_some());
    assert_eq!(appended(group.one(batch("s", 1, 1, &[1, 2, 3]))).acked_through, 3);
    let gap = refusal(group.one(batch("s", 1, 5, &[5])));
    assert_eq!((gap.kind(), gap.sequence), (RefusalKind::Gap, 4));
    let overlap = refusal(group.one(batch("s", 1, 3, &[3, 4])));
    assert_eq!((overlap.kind(), overlap.sequence), (RefusalKind::Gap, 4));

    let second = group.open("s");
    assert_eq!((second.session, second.next_sequence), (2, 4));
    let old = refusal(group.one(batch("s", 1, 4, &[4])));
    assert_eq!((old.kind(), old.session), (RefusalKind::Superseded, 2));
    assert_eq!(appended(group.one(batch("s", 2, 4, &[4]))).acked_through, 4);
}

#[test]
fn what_was_reported_and_what_was_unmasked_is_counted_once() {
    let (mut group, _) = ready();
    let Op::AppendBatch(append) = batch("s", 1, 1, &[1, 2, 3]) else { panic!("a batch") };
    let told =
        |reported, unmasked| Op::AppendBatch(AppendBatch { reported, unmasked, ..append.clone() });
    // A proposer that says more than the batch holds is not believed.
    assert_eq!(appended(group.one(told(2, 9))).acked_through, 3);
    assert!(appended(group.one(told(2, 9))).already);
    let stream = StreamKey::parse("tinh-01", "s").expect("a name");
    let cursor = reads::cursor(&group.store, &stream).expect("memory").expect("a row");
    assert_eq!((cursor.reported, cursor.unmasked), (2, 3));
}

// holds: ING-2
#[test]
fn a_resend_is_told_from_other_content() {
    let (mut group, _) = ready();
    let stored = appended(group.one(batch("s", 1, 1, &[1, 2, 3])));
    let head = group.machine.ledger_head();
    let again = appended(group.one(batch("s", 1, 2, &[2, 3])));
    assert!(again.already);
    assert_eq!(
        (again.acked_through, again.leaf_index, again.unverified),
        (3, stored.leaf_index, 0)
    );
    let other = refusal(group.one(batch("s", 1, 2, &[2, 9])));
    assert_eq!((other.kind(), other.sequence), (RefusalKind::Conflict, 3));
    let others = refusal(group.one(batch("s", 1, 1, &[9, 2, 9])));
    assert_eq!((others.sequence, &others.conflicts[..]), (1, &[1, 3][..]), "each is named");
    assert_eq!(group.machine.ledger_head(), head, "a resend leaves no leaf");
}

#[test]
fn below_the_window_a_resend_is_acked_and_counted_as_unverified() {
    let (mut group, _) = ready();
    let mut next = 1;
    while next < 5_000 {
        next = appended(group.one(batch("s", 1, next, &[1; 100]))).acked_through + 1;
    }
    let through = next - 1;
    let old = appended(group.one(batch("s", 1, 1, &[9; 10])));
    assert_eq!((old.already, old.unverified), (true, 10));
    let edge = through - 4_095;
    let kept = refusal(group.one(batch("s", 1, edge, &[9])));
    assert_eq!((kept.kind(), kept.sequence), (RefusalKind::Conflict, edge));
}

// holds: ING-2
#[test]
fn one_message_through_two_streams_is_stored_once() {
    let (mut group, _) = ready();
    group.open("t");
    let fingerprint = |id: u8| vec![id; 16];
    let both = [fingerprint(1), fingerprint(2)].concat();
    assert_eq!(
        appended(group.one(batch_with("s", 1, 1, &[1, 2], both.clone(), vec![]))).duplicates,
        0
    );
    let doubled = appended(group.one(batch_with(
        "t",
        1,
        1,
        &[1, 2],
        [fingerprint(3), fingerprint(2)].concat(),
        vec![],
    )));
    assert_eq!((doubled.duplicates, doubled.acked_through), (1, 2));
    let place = reads::place(&group.store, group.index, 0).expect("row").expect("place");
    assert_eq!(place.duplicate_bitmap.as_ref(), [0b10]);
    assert_eq!(group.machine.counters(), (3, 0, 1));
}

#[test]
fn a_refused_record_leaves_no_fingerprint_and_fills_the_quarantine() {
    let (mut group, _) = ready();
    let op = batch_with("s", 1, 1, &[1, 2], [[1_u8; 16], [2; 16]].concat(), vec![0b01]);
    appended(group.one(op));
    let again = batch_with("s", 1, 3, &[3], vec![1; 16], vec![]);
    assert_eq!(appended(group.one(again)).duplicates, 0, "the refused one may be sent again");
    assert_eq!(reads::quota(&group.store, "tinh-01").expect("row").records, 1);
    let rows = reads::quarantined(&group.store, "tinh-01", None, 10).expect("rows");
    assert_eq!(rows.len(), 1);
    let reopened = group.open("s");
    assert_eq!(reopened.quarantine_records_left, 9);
}

#[test]
fn an_open_that_is_applied_twice_opens_one_session() {
    let (mut group, _) = ready();
    let again = command(open("s"));
    let outcomes = group.apply(&[again.clone(), again]);
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(group.open("s").session, 3);
}

#[test]
fn stream_names_are_limited() {
    let (mut group, _) = ready();
    group.open("t");
    group.open("u");
    assert_eq!(refusal(group.one(open("v"))).kind(), RefusalKind::Limit);
    assert_eq!(group.open("t").session, 2, "a known name stays open to use");
}

#[test]
fn what_was_acked_and_is_not_held_is_an_exact_range() {
    let (mut group, _) = ready();
    group.one(batch("s", 1, 1, &[1, 2]));
    let Op::OpenSession(mut op) = open("s") else { unreachable!() };
    op.acked_through = 5;
    let Some(Answer::SessionOpened(opened)) = group.one(Op::OpenSession(op)).result else {
        panic!()
    };
    assert_eq!((opened.loss_from, opened.loss_to), (3, 5));
}

#[test]
fn a_batch_under_an_unknown_key_or_of_a_wrong_shape_is_refused() {
    let mut group = Group::new(INGEST);
    group.open("s");
    assert_eq!(refusal(group.one(batch("s", 1, 1, &[1]))).kind(), RefusalKind::UnknownKey);
    group.one(key_op());
    let Op::AppendBatch(mut wrong) = batch("s", 1, 1, &[1, 2]) else { unreachable!() };
    wrong.body.as_mut().expect("body").resend_tags = vec![1; 16].into();
    assert_eq!(refusal(group.one(Op::AppendBatch(wrong))).kind(), RefusalKind::Malformed);
    assert_eq!(refusal(group.one(batch("never", 1, 1, &[1]))).kind(), RefusalKind::NotFound);
}

#[test]
fn the_first_key_of_a_month_holds() {
    let mut group = Group::new(INGEST);
    let Some(Answer::KeyHeld(first)) = group.one(key_op()).result else { panic!() };
    let Op::PutKey(mut put) = key_op() else { unreachable!() };
    put.key.as_mut().expect("key").key_id = vec![9; 16].into();
    let Some(Answer::KeyHeld(second)) = group.one(Op::PutKey(put)).result else { panic!() };
    assert!(first.stored_now && !second.stored_now);
    assert_eq!(first.key, second.key);
}

fn meta() -> Group {
    let mut group = Group::new(GroupId::META);
    let genesis = format::Genesis { group: 0, cause: "init".into(), ..format::Genesis::default() };
    group.one(Op::Genesis(Genesis { genesis: Some(genesis) }));
    let row = ClusterRow {
        cluster_id: vec![1; 16].into(),
        ingest_groups: 3,
        incarnation: 1,
        ..ClusterRow::default()
    };
    group.one(admin_op(admin::Op::PutCluster(row), None));
    group
}

fn admin_op(op: admin::Op, expected_version: Option<u64>) -> Op {
    Op::Admin(Admin { op: Some(op), expected_version, ..Admin::default() })
}

fn source_op(name: &str, expected: Option<u64>) -> Op {
    admin_op(
        admin::Op::PutSource(SourceRow { source: name.into(), ..SourceRow::default() }),
        expected,
    )
}

#[test]
fn sources_are_placed_once_and_spread() {
    let mut group = meta();
    let mut groups = Vec::new();
    for n in 0..6 {
        let Some(Answer::Done(done)) = group.one(source_op(&format!("tinh-{n}"), None)).result
        else {
            panic!()
        };
        groups.push(done.group);
    }
    groups.sort_unstable();
    assert_eq!(groups, [1, 1, 2, 2, 3, 3]);
    assert_eq!(refusal(group.one(source_op("tinh-0", None))).kind(), RefusalKind::Exists);
    assert_eq!(refusal(group.one(source_op("tinh-0", Some(7)))).kind(), RefusalKind::Version);
    let before = reads::source(&group.store, "tinh-0").expect("row").expect("source");
    group.one(source_op("tinh-0", Some(1)));
    let after = reads::source(&group.store, "tinh-0").expect("row").expect("source");
    assert_eq!((after.group, after.version), (before.group, 2));
}

// holds: SEC-2
#[test]
fn an_action_and_its_leaf_are_one_and_a_repeated_request_is_one_action() {
    let mut group = meta();
    let (size, _) = group.machine.ledger_head();
    let create = command(source_op("tinh-01", None));
    let first = group.apply(std::slice::from_ref(&create));
    let again = group.apply(&[create]);
    assert_eq!(first, again);
    assert_eq!(group.machine.ledger_head().0, size + 1);
    assert_eq!(refusal(group.one(source_op("TINH", None))).kind(), RefusalKind::Malformed);
    assert_eq!(group.machine.ledger_head().0, size + 1, "no effect, no leaf");
}

#[test]
fn commands_of_another_group_are_refused() {
    assert_eq!(refusal(meta().one(open("s"))).kind(), RefusalKind::WrongGroup);
    assert_eq!(
        refusal(Group::new(INGEST).one(source_op("a", None))).kind(),
        RefusalKind::WrongGroup
    );
}

#[test]
fn a_bundle_of_unknown_version_or_with_a_flipped_bit_stops_the_group() {
    let (mut group, _) = ready();
    let good = Group::bundle(&[command(open("s"))]);
    for at in [0, good.len() - 1] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        let entry = Committed { index: group.index + 1, bundle: Some(bad.into()) };
        assert!(group.machine.apply(&group.store, &[entry], &mut StateBatch::default()).is_err());
        group.machine = Machine::load(INGEST, &group.store).expect("rows");
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let stream = prop_oneof![Just("s"), Just("t")];
    prop_oneof![
        1 => stream.clone().prop_map(open),
        8 => (stream, 1_u64..4, 1_u64..60, prop::collection::vec(1_u8..4, 1..20), any::<bool>()).prop_map(
            |(stream, session, first, contents, ids)| {
                let prints = if ids { contents.iter().flat_map(|&c| [c; 16]).collect() } else { Vec::new() };
                batch_with(stream, session, first, &contents, prints, Vec::new())
            }
        ),
        1 => Just(key_op()),
    ]
}

proptest! {
    // holds: RAFT-1, ING-3, LED-1
    #[test]
    fn the_same_log_gives_the_same_rows_however_it_is_cut_or_restarted(
        ops in prop::collection::vec(any_op(), 1..60),
        cuts in prop::collection::vec(1_usize..5, 60),
        restarts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let entries: Vec<Committed> = ops.into_iter().enumerate().map(|(n, op)| Committed {
            index: n as u64 + 1,
            bundle: Some(Group::bundle(&[command(op)])),
        }).collect();
        let mut one = Group::new(INGEST);
        for entry in &entries {
            let mut batch = StateBatch::default();
            one.machine.apply(&one.store, std::slice::from_ref(entry), &mut batch).expect("total");
            one.store.write(&batch).expect("memory");
        }
        let mut other = Group::new(INGEST);
        let mut rest = entries.as_slice();
        for (cut, restart) in cuts.iter().zip(restarts) {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            if now.is_empty() { break; }
            let mut batch = StateBatch::default();
            other.machine.apply(&other.store, now, &mut batch).expect("total");
            other.store.write(&batch).expect("memory");
            rest = later;
            if restart {
                other.machine = Machine::load(INGEST, &other.store).expect("rows");
            }
        }
        if rest.is_empty() {
            let all = |g: &Group| g.store.scan(&[0], &[0xff], 100_000).expect("rows");
            prop_assert_eq!(all(&one), all(&other));
        }
        for stream in ["s", "t"] {
            let key = StreamKey::parse("tinh-01", stream).expect("valid");
            let places = reads::stream_places(&one.store, &key, 0, 1_000).expect("rows");
            let mut next = 1;
            for place in places {
                prop_assert_eq!(place.first_sequence, next);
                next = place.last_sequence + 1;
            }
        }
    }
}
