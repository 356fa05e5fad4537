//! A group lives, is backed up in a chain, and is brought back to each moment of its life.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use dtm_machine::seams::{MemoryStateStore, SeededEntropy, StateBatch, StateRead, StateStore};
use dtm_machine::{Committed, Machine, keys};
use dtm_seal::{DataKey, Secret};
use dtm_types::command::command::Op;
use dtm_types::command::{AppendBatch, Command, Genesis, OpenSession, PutKey, SourceRow};
use dtm_types::format::{
    self, AnchoredGroup, EntryBody, HeaderA, HeaderB, KeyPurpose, Leaf, LedgerAnchor, WrappedKey,
};
use dtm_types::{BackupId, GroupId, Month, bundle};
use prost::Message;

use super::*;

const GROUP: GroupId = GroupId(1);
const BEGAN_US: i64 = 1_795_000_000_000_000;
const SECOND_US: i64 = 1_000_000;
/// What Raft writes for itself.
const BLANK: &[u8] = &[0xf0];

type Rows = Vec<(Bytes, Bytes)>;

/// A group, and what it was after each of its entries.
struct Life {
    store: MemoryStateStore,
    machine: Machine,
    entries: Vec<Entry>,
    was: Vec<Was>,
}

struct Was {
    time_us: i64,
    rows: Rows,
    ledger: (u64, Digest),
}

fn rows_of(store: &dyn StateRead) -> Rows {
    store.scan(&[0x01], &[0xff; 64], usize::MAX).unwrap()
}

fn at(second: i64) -> i64 {
    BEGAN_US + second * SECOND_US
}

impl Life {
    fn new() -> Self {
        let store = MemoryStateStore::new(GROUP);
        let machine = Machine::load(GROUP, &store).unwrap();
        let was = Was { time_us: 0, rows: Vec::new(), ledger: machine.ledger_head() };
        Self { store, machine, entries: Vec::new(), was: vec![was] }
    }

    fn enter(&mut self, bundle: Option<Bytes>) {
        let index = self.entries.len() as u64 + 1;
        let payload = bundle.clone().unwrap_or(Bytes::from_static(BLANK));
        self.entries.push(Entry { index, term: 1 + index / 4, leader: 3, payload });
        let mut batch = StateBatch::default();
        self.machine.apply(&self.store, &[Committed { index, bundle }], &mut batch).unwrap();
        self.store.write(&batch).unwrap();
        let (time_us, ledger) = (self.machine.group_time_us(), self.machine.ledger_head());
        self.was.push(Was { time_us, rows: rows_of(&self.store), ledger });
    }

    fn says(&mut self, second: i64, ops: Vec<Op>) {
        let mut builder = bundle::Builder::new(at(second), &[7; 16], 0);
        for op in ops {
            let request_id = Bytes::from(vec![self.entries.len() as u8; 16]);
            builder.push(&Command { request_id, op: Some(op), actor: None }.encode_to_vec());
        }
        self.enter(Some(builder.finish()));
    }

    /// The last entry that belongs to a moment.
    fn last_at(&self, until_us: i64) -> u64 {
        let behind = self.was.iter().position(|was| was.time_us > until_us);
        behind.unwrap_or(self.was.len()) as u64 - 1
    }

    /// Writes a backup of everything so far, cut along an anchor at entry `anchored`.
    fn back_up(
        &self,
        target: &dyn Target,
        number: u8,
        parent: Option<&Manifest>,
        anchored: u64,
    ) -> Manifest {
        let entropy = SeededEntropy::new(u64::from(number));
        let writer = Writer::new(target, &entropy, id(number), &key(number));
        let mut file = writer.file(GROUP, Kind::Rows).unwrap();
        rows_of(&self.store).iter().for_each(|(key, value)| file.row(key, value).unwrap());
        let (rows, state) = file.finish().unwrap();
        let from = parent.map_or(1, |of| of.group(GROUP).unwrap().last_index + 1);
        let mut file = writer.file(GROUP, Kind::Entries).unwrap();
        self.entries[from as usize - 1..].iter().for_each(|entry| file.entry(entry).unwrap());
        let (held, _) = file.finish().unwrap();
        let last = self.entries.last().unwrap();
        let (size, root) = self.machine.ledger_head();
        let part = GroupPart {
            group: GROUP.0,
            last_index: last.index,
            last_term: last.term,
            last_leader: last.leader,
            ledger_size: size,
            ledger_root: Bytes::copy_from_slice(&root),
            rows: Some(rows),
            entries: Some(held),
            entries_from: from,
            state_digest: Bytes::copy_from_slice(&state),
        };
        let was = &self.was[anchored as usize];
        let group = AnchoredGroup {
            group: GROUP.0,
            applied_index: anchored,
            group_time_us: was.time_us,
            ledger_size: was.ledger.0,
            ledger_root: Bytes::copy_from_slice(&was.ledger.1),
            incarnation: 1,
        };
        let anchor = LedgerAnchor { groups: vec![group], previous_leaf: None };
        let manifest = Manifest {
            parent: parent.map(|of| of.backup.clone()).unwrap_or_default(),
            parent_digest: parent
                .map(|of| read_manifest(target, &of.id().to_string()).unwrap().1)
                .map(|digest| Bytes::copy_from_slice(&digest))
                .unwrap_or_default(),
            cluster: Bytes::from_static(&[5; 16]),
            incarnation: 1,
            anchor: Some(Box::new(Leaf {
                group_time_us: was.time_us,
                anchor: Some(anchor),
                ..Leaf::default()
            })),
            groups: vec![part],
            ..Manifest::default()
        };
        writer.read_back(&manifest.groups, &mut |_| {}).unwrap();
        writer.finish(manifest).unwrap();
        read_manifest(target, &id(number).to_string()).unwrap().0
    }
}

fn key(byte: u8) -> DataKey {
    DataKey::from_bytes(&mut [byte; 32])
}

fn id(number: u8) -> BackupId {
    BackupId([number; 16])
}

fn genesis() -> Op {
    let genesis = format::Genesis { group: GROUP.0, ..format::Genesis::default() };
    Op::Genesis(Genesis { genesis: Some(genesis) })
}

fn put_key() -> Op {
    Op::PutKey(PutKey {
        key: Some(WrappedKey {
            key_id: vec![1; 16].into(),
            purpose: KeyPurpose::Data.into(),
            source: "tinh-01".into(),
            month: Month::of_micros(BEGAN_US).0,
            cluster_key_id: vec![2; 16].into(),
            wrapped: vec![3; 73].into(),
        }),
    })
}

fn open(source: &str, stream: &str, dataset: &str) -> Op {
    Op::OpenSession(OpenSession {
        source: source.into(),
        stream: stream.into(),
        dataset: dataset.into(),
        month: Month::of_micros(BEGAN_US).0,
        stream_names_max: 9,
        quarantine_records_max: 10,
        quarantine_bytes_max: 100,
        ..OpenSession::default()
    })
}

fn batch(source: &str, stream: &str, dataset: &str, first: u64) -> Op {
    let header = HeaderA {
        version: 1,
        source: source.into(),
        stream: stream.into(),
        session: 1,
        first_sequence: first,
        last_sequence: first + 1,
        dataset: dataset.into(),
        schema_version: 1,
        key_id: vec![1; 16].into(),
        nonce: vec![4; 24].into(),
        count: 2,
        record_root: vec![5; 32].into(),
        ..HeaderA::default()
    };
    let part_b = HeaderB { ciphertext_digest: vec![6; 32].into(), tag: vec![7; 16].into() };
    let body = EntryBody {
        header_a: header.encode_to_vec().into(),
        header_b: part_b.encode_to_vec().into(),
        record_hashes: vec![8; 64].into(),
        resend_tags: vec![first as u8; 32].into(),
        fingerprints: Bytes::new(),
        sealed: format!("{source}/{stream} {first}").into_bytes().into(),
    };
    Op::AppendBatch(AppendBatch { body: Some(body), ..AppendBatch::default() })
}

/// Three backups: entries 1 to 5, 6 to 9, 10 to 14. Two entries have no time, one has an earlier stamp
/// than the one before it.
fn lived(target: &dyn Target) -> (Life, Vec<(Manifest, DataKey)>) {
    let mut life = Life::new();
    life.enter(None);
    life.says(0, vec![genesis()]);
    life.says(2, vec![put_key(), open("tinh-01", "a", "notes"), open("tinh-02", "b", "notes")]);
    life.says(4, vec![open("tinh-01", "c", "cases"), batch("tinh-01", "a", "notes", 1)]);
    life.says(6, vec![batch("tinh-02", "b", "notes", 1), batch("tinh-01", "c", "cases", 1)]);
    let first = life.back_up(target, 1, None, 4);
    life.says(8, vec![batch("tinh-01", "a", "notes", 3)]);
    life.enter(None);
    life.says(7, vec![batch("tinh-01", "a", "notes", 5)]);
    life.says(10, vec![batch("tinh-01", "c", "cases", 3)]);
    let second = life.back_up(target, 2, Some(&first), 8);
    // One that is refused, and changes no row but the head.
    life.says(12, vec![batch("tinh-01", "a", "notes", 50)]);
    life.says(14, vec![batch("tinh-01", "a", "notes", 7)]);
    life.says(14, vec![batch("tinh-02", "b", "notes", 3)]);
    life.says(16, vec![batch("tinh-02", "b", "notes", 5)]);
    life.says(18, vec![open("tinh-02", "d", "cases")]);
    let third = life.back_up(target, 3, Some(&second), 14);
    let links = [first, second, third].into_iter().zip([key(1), key(2), key(3)]).collect();
    (life, links)
}

/// A meta that knows some sources and no anchor.
fn meta(sources: &[&str]) -> Then {
    let store = MemoryStateStore::new(GroupId::META);
    let mut batch = StateBatch::default();
    for source in sources {
        let row = SourceRow { source: (*source).into(), ..SourceRow::default() };
        batch.put(keys::named(keys::table::SOURCE, source), row.encode_to_vec());
    }
    store.write(&batch).unwrap();
    Then::of(&store).unwrap()
}

#[test]
fn what_was_put_together_is_held_against_the_chain_before_it_counts() {
    let target = MemoryTarget::default();
    let (life, links) = lived(&target);
    let chain = OpenChain { target: &target, links: &links };
    let both = meta(&["tinh-01", "tinh-02"]);
    for second in 0..=18 {
        let stand = chain.at(GROUP, at(second), 0, &mut |_| {}).unwrap();
        let store = MemoryStateStore::new(GROUP);
        chain.rows(GROUP, &stand, &store, &mut |_| {}).unwrap();
        let checked = chain.check(GROUP, &stand, &store, Some(&both)).unwrap();
        let was = &life.was[stand.index as usize];
        assert_eq!((checked.ledger_size, checked.ledger_root), was.ledger);
        // The anchor of the newest backup is held where no moment is asked for.
        let whole = chain.check(GROUP, &stand, &store, None);
        assert_eq!(whole.is_ok(), was.ledger.0 >= life.was[14].ledger.0, "at {second}: {whole:?}");
        // A leaf that is another one, at a cut and between two.
        let mut batch = StateBatch::default();
        batch.put(keys::tile(0, was.ledger.0 - 1), vec![1; 32]);
        store.write(&batch).unwrap();
        assert!(chain.check(GROUP, &stand, &store, Some(&both)).is_err(), "at {second}");
    }
    let (_, rows) = restored(chain, at(9), 0);
    let stand = chain.at(GROUP, at(9), 0, &mut |_| {}).unwrap();
    let store = MemoryStateStore::new(GROUP);
    let mut batch = StateBatch::default();
    rows.into_iter().for_each(|(key, value)| batch.put(key, value));
    store.write(&batch).unwrap();
    let found = chain.check(GROUP, &stand, &store, Some(&meta(&["tinh-01"]))).unwrap_err();
    assert!(found.to_string().contains("source tinh-02, which meta learnt of after"), "{found}");
}

/// Rows as of a moment.
fn restored(chain: OpenChain<'_>, until_us: i64, at_least: u64) -> (Stand, Rows) {
    let stand = chain.at(GROUP, until_us, at_least, &mut |_| {}).unwrap();
    let store = MemoryStateStore::new(GROUP);
    chain.rows(GROUP, &stand, &store, &mut |_| {}).unwrap();
    (stand, rows_of(&store))
}

#[test]
fn each_moment_has_the_rows_the_ledger_and_the_entries_that_it_had() {
    let target = MemoryTarget::default();
    let (life, links) = lived(&target);
    let chain = OpenChain { target: &target, links: &links };
    for half in 0..=36 {
        let until_us = BEGAN_US + half * SECOND_US / 2;
        let (stand, rows) = restored(chain, until_us, 0);
        let was = &life.was[stand.index as usize];
        assert_eq!(stand.index, life.last_at(until_us), "at {half} halves of a second");
        assert_eq!(stand.beyond, 14 - stand.index);
        assert!(rows == was.rows, "rows at {half} halves of a second");
        chain.had(GROUP, &stand, &[was.ledger]).unwrap();
        let mut entries = Vec::new();
        let mut take = |more: Vec<Entry>| {
            entries.extend(more);
            Ok(())
        };
        chain.entries(GROUP, &stand, &mut take).unwrap();
        assert_eq!(entries, life.entries[..stand.index as usize]);
        let entry = entries.last().unwrap();
        assert_eq!((stand.term, stand.leader), (entry.term, entry.leader));
        if let Some(part) = chain.cut(GROUP, &stand) {
            let mut digest = StateDigest::default();
            rows.iter().for_each(|(key, value)| digest.row(key, value));
            assert_eq!(part.state_digest, digest.finish()[..], "as it was recorded then");
        }
        assert_eq!(chain.cut(GROUP, &stand).is_some(), [5, 9, 14].contains(&stand.index));
    }
    let end = chain.end(GROUP);
    assert_eq!((end.index, end.beyond), (14, 0));
    assert_eq!(chain.at(GROUP, at(18), 0, &mut |_| {}).unwrap(), end);
}

#[test]
fn a_chain_gives_the_same_moment_however_it_was_cut() {
    let target = MemoryTarget::default();
    let (life, links) = lived(&target);
    let other = MemoryTarget::default();
    let whole = life.back_up(&other, 4, None, 14);
    let whole = [(whole, key(4))];
    for second in 0..=18 {
        let (stand, rows) = restored(OpenChain { target: &other, links: &whole }, at(second), 0);
        let chain = OpenChain { target: &target, links: &links };
        let (found, same) = restored(chain, at(second), 0);
        assert_eq!((stand.index, stand.term), (found.index, found.term));
        assert!(rows == same, "at second {second}");
    }
}

#[test]
fn what_is_anchored_already_belongs_to_the_moment() {
    let target = MemoryTarget::default();
    let (life, links) = lived(&target);
    let chain = OpenChain { target: &target, links: &links };
    // Entry 7 has no time: it belongs to the one before.
    for (at_least, last) in [(4, 4), (5, 5), (6, 7), (8, 8), (11, 11), (14, 14)] {
        let (stand, rows) = restored(chain, at(4), at_least);
        assert_eq!(stand.index, last);
        assert!(rows == life.was[last as usize].rows, "through {at_least}");
    }
}

#[test]
fn a_moment_that_is_not_in_the_chain_is_refused_with_the_one_that_is() {
    let target = MemoryTarget::default();
    let (_, links) = lived(&target);
    let chain = OpenChain { target: &target, links: &links };
    let early = chain.at(GROUP, at(0) - 1, 0, &mut |_| {}).unwrap_err();
    assert!(matches!(early, Error::TooEarly { first_us, .. } if first_us == at(0)), "{early}");
    let late = chain.at(GROUP, at(18) + 1, 0, &mut |_| {}).unwrap_err();
    assert!(matches!(late, Error::TooLate { newest_us, .. } if newest_us == at(18)), "{late}");
    // The anchor of the first backup is at second 4, that of the second at 8, that of the third at 18.
    for (second, name) in [(-9, 1), (4, 1), (5, 2), (8, 2), (9, 3), (18, 3)] {
        assert_eq!(find_at(&target, at(second)).unwrap(), id(name).to_string(), "at {second}");
    }
    assert!(matches!(find_at(&target, at(19)), Err(Error::TooLate { .. })));
    assert!(matches!(find_at(&MemoryTarget::default(), at(4)), Err(Error::Empty)));
}

#[test]
fn a_ledger_that_was_another_one_is_found() {
    let target = MemoryTarget::default();
    let (life, links) = lived(&target);
    let chain = OpenChain { target: &target, links: &links };
    let stand = chain.at(GROUP, at(8), 0, &mut |_| {}).unwrap();
    let (size, mut root) = life.was[stand.index as usize].ledger;
    chain.had(GROUP, &stand, &[(size, root), life.was[5].ledger, (0, [9; 32])]).unwrap();
    root[0] ^= 1;
    let found = chain.had(GROUP, &stand, &[(size, root)]).unwrap_err();
    assert!(found.to_string().contains("another root"), "{found}");
    let found = chain.had(GROUP, &stand, &[(99, root)]).unwrap_err();
    assert!(found.to_string().contains("not the one of the backup"), "{found}");
    // Rows of another group of the same size would not pass either.
    let mut other = links[2].0.clone();
    other.groups[0].ledger_root = Bytes::from_static(&[1; 32]);
    let others = [(links[0].0.clone(), key(1)), (links[1].0.clone(), key(2)), (other, key(3))];
    let chain = OpenChain { target: &target, links: &others };
    assert!(chain.had(GROUP, &chain.end(GROUP), &[]).is_err());
}

#[test]
fn a_changed_byte_is_refused_with_its_file_whichever_moment_needs_it() {
    let target = MemoryTarget::default();
    let (_, links) = lived(&target);
    let chain = OpenChain { target: &target, links: &links };
    let stand = chain.at(GROUP, at(14), 0, &mut |_| {}).unwrap();
    for (backup, file) in [(2, "g001.rows"), (3, "g001.entries")] {
        let name = id(backup).to_string();
        let content = target.content(&name).into_iter().find(|(of, _)| of == file).unwrap().1;
        let mut changed = content.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        target.spoil(&name, file, Some(changed));
        let store = MemoryStateStore::new(GROUP);
        let found = chain.rows(GROUP, &stand, &store, &mut |_| {}).unwrap_err();
        assert!(matches!(&found, Error::Damaged { file: of, .. } if of == file), "{found}");
        target.spoil(&name, file, Some(content));
    }
}

#[test]
fn the_batches_of_a_data_set_come_in_order_and_no_others() {
    let target = MemoryTarget::default();
    let (_, links) = lived(&target);
    let chain = OpenChain { target: &target, links: &links };
    let found = |dataset: &str, source: Option<&str>, until_us, step| {
        let wanted =
            Wanted { dataset: dataset.into(), source: source.map(str::to_owned), until_us };
        let mut found = Vec::new();
        let mut take = |batch: Batch| {
            assert_eq!(batch.key.key_id, batch.place.key_id);
            found.push(String::from_utf8(batch.body.sealed.to_vec()).unwrap());
            Ok(())
        };
        chain.batches_in_steps(GROUP, &wanted, step, &mut take).unwrap();
        found
    };
    let notes = ["tinh-01/a 1", "tinh-02/b 1", "tinh-01/a 3", "tinh-01/a 5", "tinh-01/a 7"];
    let notes = [&notes[..], &["tinh-02/b 3", "tinh-02/b 5"]].concat();
    for step in [1, 2, 7, 100] {
        assert_eq!(found("notes", None, None, step), notes, "{step} at a time");
    }
    assert_eq!(found("cases", None, None, 9), ["tinh-01/c 1", "tinh-01/c 3"]);
    assert_eq!(found("notes", Some("tinh-02"), None, 2), [notes[1], notes[5], notes[6]]);
    assert_eq!(found("notes", None, Some(at(6)), 9), notes[..2]);
    assert!(found("nothing", None, None, 9).is_empty());
}
