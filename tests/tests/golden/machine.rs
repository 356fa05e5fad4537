//! A log of version 1 and what it was applied to: the entries that are kept are applied anew and
//! must give the rows that are kept, key by key. So an old log means the same for ever (RAFT-1).

use dtm_machine::seams::{MemoryStateStore, StateBatch, StateRead, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_types::GroupId;
use prost::Message;

use crate::file::Golden;
use crate::scenario;

/// More rows than any scenario writes.
const ROWS_MAX: usize = 10_000;

fn applied(name: &str, group: GroupId, entries: Vec<bytes::Bytes>) {
    let mut golden = Golden::open(name, "bytes");
    let store = MemoryStateStore::new(group);
    let mut machine = Machine::load(group, &store).unwrap();
    for (index, entry) in (1..).zip(entries) {
        let kept = golden.bytes(&format!("entry/{index}"), entry);
        let mut batch = StateBatch::default();
        let entry = Committed { index, bundle: Some(kept) };
        let outcomes = machine.apply(&store, &[entry], &mut batch).unwrap();
        store.write(&batch).unwrap();
        for (ordinal, outcome) in outcomes.concat().iter().enumerate() {
            golden.bytes(&format!("outcome/{index}.{ordinal}"), outcome.encode_to_vec());
        }
    }
    for (key, value) in store.scan(&[0], &[0xff; 64], ROWS_MAX).unwrap() {
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        golden.bytes(&format!("row/{key}"), value);
    }
    golden.bytes("root", machine.ledger_head().1.to_vec());
    golden.close();
}

#[test]
fn a_log_of_an_ingest_group_and_its_rows() {
    applied("machine-ingest", GroupId(1), scenario::ingest());
}

#[test]
fn a_log_of_meta_and_its_rows() {
    applied("machine-meta", GroupId::META, scenario::meta());
}

#[test]
fn every_table_of_the_machine_is_written() {
    let mut tables = std::collections::BTreeSet::new();
    for name in ["machine-ingest", "machine-meta"] {
        let (_, values) = crate::file::read(&crate::file::folder().join(format!("{name}.txt")));
        let keys = values.iter().filter_map(|(name, _)| name.strip_prefix("row/"));
        tables.extend(keys.map(|key| u8::from_str_radix(&key[..2], 16).unwrap()));
    }
    let meta = (0x40..=0x4f).chain(0x58..=0x59);
    let all: std::collections::BTreeSet<u8> = (0x10..=0x1c).chain(meta).collect();
    assert_eq!(tables, all);
}
