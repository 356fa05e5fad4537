//! Which streams are cut, by rows in memory.

use dtm_identity::Role;
use dtm_machine::keys::{self, table};
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
use dtm_types::command::{Agreement, OperatorRow, SourceCertificateRow, SourceKeyRow, SourceRow};
use dtm_types::format::Mode;
use dtm_types::{DAY_US, SourceId};
use prost::Message;

use super::*;

fn node(byte: u8) -> NodeId {
    NodeId([byte; 16])
}

fn caller(code: &str, credential: Credential) -> Caller {
    Caller::Source { source: SourceId::parse(code).expect("a code"), credential }
}

fn put(state: &MemoryStateStore, key: Vec<u8>, row: &impl Message) {
    let mut batch = StateBatch::default();
    batch.put(key, row.encode_to_vec());
    state.write(&batch).expect("memory takes it");
}

fn source(state: &MemoryStateStore, code: &str, suspended: bool) {
    let row = SourceRow { source: code.into(), suspended, ..SourceRow::default() };
    put(state, keys::named(table::SOURCE, code), &row);
}

fn key(state: &MemoryStateStore, code: &str, id: u8, revoked: bool) {
    let row = SourceKeyRow {
        source: code.into(),
        key_id: vec![id; 8].into(),
        not_after_us: DAY_US,
        revoked,
        ..SourceKeyRow::default()
    };
    put(state, keys::source_key(code, &[id; 8]), &row);
}

fn no_terms() -> Terms {
    Terms::of(&SourceRow::default(), "notes")
}

// holds: SEC-2
#[test]
fn a_stream_whose_agreement_was_changed_ends_to_be_opened_anew() {
    let state = MemoryStateStore::new(GroupId::META);
    let agreed = |dataset: &str, masked: bool| Agreement {
        dataset: dataset.into(),
        modes: vec![Mode::Realtime.into()],
        refuse_raw: masked,
        ..Agreement::default()
    };
    let with = |agreements: Vec<Agreement>| SourceRow {
        source: "a".into(),
        agreements,
        ..SourceRow::default()
    };
    let put_row = |row: &SourceRow| put(&state, keys::named(table::SOURCE, "a"), row);
    let first = with(vec![agreed("notes", false), agreed("other", false)]);
    put_row(&first);
    key(&state, "a", 1, false);
    let own = caller("a", Credential::Key([1; 8]));
    let rights = Arc::new(Rights::default());
    let cut = |entered: &Entered| *entered.cut.borrow();
    let (notes, reads) = (
        rights.enter(&own, Terms::of(&first, "notes")),
        rights.enter_reading(&own, 8).expect("room"),
    );
    let other = rights.enter(&own, Terms::of(&first, "other"));
    put_row(&with(vec![agreed("other", false), agreed("notes", false)]));
    assert_eq!(rights.check(&state, 1).expect("reads"), 0, "their order says nothing");

    put_row(&with(vec![agreed("notes", true), agreed("other", false)]));
    assert_eq!(rights.check(&state, 1).expect("reads"), 1);
    assert_eq!((cut(&notes), cut(&other), cut(&reads)), (Some(Cut::Changed), None, None));

    put_row(&with(vec![agreed("notes", true)]));
    assert_eq!(rights.check(&state, 1).expect("reads"), 1, "no agreement is left");
    assert_eq!((cut(&other), cut(&reads)), (Some(Cut::Changed), None));
}

#[test]
fn a_stream_goes_to_another_node_when_the_clock_of_this_one_goes_back() {
    let state = MemoryStateStore::new(GroupId::META);
    source(&state, "a", false);
    let row = SourceKeyRow {
        source: "a".into(),
        key_id: vec![1; 8].into(),
        not_before_us: 10,
        not_after_us: DAY_US,
        ..SourceKeyRow::default()
    };
    put(&state, keys::source_key("a", &[1; 8]), &row);
    let rights = Arc::new(Rights::default());
    let own = rights.enter(&caller("a", Credential::Key([1; 8])), no_terms());
    assert_eq!(rights.check(&state, 10).expect("reads"), 0);
    assert_eq!(rights.check(&state, 9).expect("reads"), 1);
    assert_eq!(*own.cut.borrow(), Some(Cut::Drained), "its key holds: the clock does not");
}

// holds: LIVE-1
#[test]
fn calls_that_come_together_open_no_more_reads_than_one_caller_may() {
    const MOST: u64 = 8;
    const CALLS: usize = 32;
    for _ in 0..50 {
        let rights = Arc::new(Rights::default());
        let together = std::sync::Barrier::new(CALLS);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let call = || {
                let own = caller("a", Credential::Key([1; 8]));
                together.wait();
                rights.enter_reading(&own, MOST).ok()
            };
            let calls: Vec<_> = (0..CALLS).map(|_| scope.spawn(call)).collect();
            calls.into_iter().filter_map(|call| call.join().expect("no panic")).collect()
        });
        assert_eq!(opened.len() as u64, MOST);
    }
}

// holds: SEC-2
#[test]
fn only_streams_without_a_right_are_cut() {
    let state = MemoryStateStore::new(GroupId::META);
    let certificate = |revoked| SourceCertificateRow {
        source: "b".into(),
        digest: vec![9; 32].into(),
        not_after_us: DAY_US,
        revoked,
        ..SourceCertificateRow::default()
    };
    source(&state, "a", false);
    source(&state, "b", false);
    key(&state, "a", 1, false);
    key(&state, "a", 2, false);
    put(&state, keys::source_certificate("b", &[9; 32]), &certificate(false));
    let rights = Arc::new(Rights::default());
    let first = rights.enter(&caller("a", Credential::Key([1; 8])), no_terms());
    let second = rights.enter(&caller("a", Credential::Key([2; 8])), no_terms());
    let third = rights.enter(&caller("b", Credential::Certificate([9; 32])), no_terms());
    let cut = |entered: &Entered| *entered.cut.borrow();
    assert_eq!(rights.check(&state, 1).expect("reads"), 0);

    key(&state, "a", 1, true);
    assert_eq!(rights.check(&state, 1).expect("reads"), 1);
    assert_eq!((cut(&first), cut(&second)), (Some(Cut::Revoked), None), "the other key holds");
    drop(first);

    put(&state, keys::source_certificate("b", &[9; 32]), &certificate(true));
    assert_eq!(rights.check(&state, 1).expect("reads"), 1);
    assert_eq!(cut(&third), Some(Cut::Revoked));
    drop(third);

    source(&state, "a", true);
    assert_eq!(rights.check(&state, 1).expect("reads"), 1, "suspended");
    source(&state, "a", false);
    let again = rights.enter(&caller("a", Credential::Key([2; 8])), no_terms());
    assert_eq!(rights.check(&state, DAY_US + 1).expect("reads"), 1, "expired");
    assert_eq!(rights.drain(), 0, "each is told once");
    drop((second, again));
    assert!(rights.open.lock().is_empty(), "closed streams are forgotten");
}

// holds: SEC-2
#[test]
fn what_reads_stands_on_the_credential_alone() {
    let state = MemoryStateStore::new(GroupId::META);
    let operator = |role: &str, revoked| OperatorRow {
        name: "lan".into(),
        role: role.into(),
        certificate_digest: vec![5; 32].into(),
        not_after_us: DAY_US,
        revoked,
        ..OperatorRow::default()
    };
    let put_operator = |row: OperatorRow| put(&state, keys::named(table::OPERATOR, "lan"), &row);
    source(&state, "a", false);
    key(&state, "a", 1, false);
    put_operator(operator("auditor", false));
    let lan =
        Caller::Operator { name: "lan".into(), role: Role::Auditor, certificate_digest: [5; 32] };
    let own = caller("a", Credential::Key([1; 8]));
    let rights = Arc::new(Rights::default());
    let (sends, reads, audits) = (
        rights.enter(&own, no_terms()),
        rights.enter_reading(&own, 8).expect("room"),
        rights.enter_reading(&lan, 8).expect("room"),
    );
    let cut = |entered: &Entered| *entered.cut.borrow();
    assert_eq!(rights.check(&state, 1).expect("reads"), 0);

    source(&state, "a", true);
    assert_eq!(rights.check(&state, 1).expect("reads"), 1);
    assert_eq!((cut(&sends), cut(&reads)), (Some(Cut::Revoked), None), "suspended");
    key(&state, "a", 1, true);
    assert_eq!(rights.check(&state, 1).expect("reads"), 1);
    assert_eq!((cut(&reads), cut(&audits)), (Some(Cut::Revoked), None), "the key is gone");

    put_operator(operator("approver", false));
    assert_eq!(rights.check(&state, 1).expect("reads"), 1, "another role");
    for (row, now_us) in [(operator("auditor", true), 1), (operator("auditor", false), DAY_US + 1)]
    {
        let audits = rights.enter_reading(&lan, 8).expect("room");
        put_operator(row);
        assert_eq!(rights.check(&state, now_us).expect("reads"), 1);
        assert_eq!(cut(&audits), Some(Cut::Revoked));
    }
    assert_eq!(cut(&audits), Some(Cut::Revoked));
}

#[test]
fn rows_are_trusted_for_five_seconds() {
    let rights = Rights::default();
    assert!(!rights.is_fresh(10), "never confirmed");
    assert_eq!(rights.age_ms(10), u64::MAX);
    rights.confirmed(1_000);
    assert!(rights.is_fresh(1_000 + STALE_US) && !rights.is_fresh(1_001 + STALE_US));
    assert_eq!(rights.age_ms(2_001_000), 2_000);
}

#[test]
fn a_node_is_cut_off_when_others_have_meta_or_too_few_answer() {
    let voters: BTreeSet<_> = [1, 2, 3].map(node).into_iter().collect();
    let old = QUORUM_SEEN_MS + 1;
    assert!(verdict(&voters, node(1), &[(node(2), 5)]), "another one has it confirmed");
    assert!(verdict(&voters, node(1), &[]), "alone");
    assert!(!verdict(&voters, node(1), &[(node(2), old)]), "a majority, and none has it");
    assert!(verdict(&voters, node(4), &[(node(2), old)]), "no voter itself, one of three");
    assert!(verdict(&voters, node(4), &[(node(2), old), (node(5), 3)]));
}

// holds: LIVE-1
// fault: F25
#[test]
fn one_reader_does_not_take_the_room_of_others() {
    let rights = Arc::new(Rights::default());
    let (own, other) = (Credential::Key([1; 8]), Credential::Key([2; 8]));
    let of_a = |credential| rights.enter_reading(&caller("a", credential), 2);
    let held = [of_a(own).expect("first"), of_a(other).expect("by another key")];
    let Err(refused) = of_a(own) else { panic!("a third one") };
    assert!(refused.message().contains("reads_open_max = 2"), "{refused}");
    rights.enter_reading(&caller("b", own), 2).expect("another source");
    drop(rights.enter(&caller("a", own), no_terms()));
    drop(held);
    of_a(own).expect("room again");
}
