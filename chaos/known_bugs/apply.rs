//! A bundle that was forwarded twice, at a change of leaders, stands in the log twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use dtm_chaos::checker::{Checker, Image, Property, Verdict};
use dtm_chaos::sandbox::commands;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateRead, StateStore};
use dtm_machine::{Committed, Machine};
use dtm_types::{GroupId, StreamKey, bundle};

const GROUP: GroupId = GroupId(1);
const RECORDS: u32 = 3;

/// Drives one machine over committed entries.
trait Driver {
    fn apply(&self, store: &MemoryStateStore, entries: &[Committed]);
}

/// As the cluster does: one machine, all entries through one overlay, one write.
struct OneMachine;

impl Driver for OneMachine {
    fn apply(&self, store: &MemoryStateStore, entries: &[Committed]) {
        let mut machine = Machine::load(GROUP, store).unwrap();
        let mut batch = StateBatch::default();
        machine.apply(store, entries, &mut batch).unwrap();
        store.write(&batch).unwrap();
    }
}

/// The bug: each entry is judged by the rows before the whole write, not by those of its
/// predecessor in it.
struct EachAgainstOldRows;

impl Driver for EachAgainstOldRows {
    fn apply(&self, store: &MemoryStateStore, entries: &[Committed]) {
        let mut all = StateBatch::default();
        for entry in entries {
            let mut machine = Machine::load(GROUP, store).unwrap();
            machine.apply(store, std::slice::from_ref(entry), &mut all).unwrap();
        }
        store.write(&all).unwrap();
    }
}

fn bundle_of(command: &Bytes) -> Bytes {
    let mut builder = bundle::Builder::new(commands::TIME_US, &[1; 16], command.len());
    builder.push(command);
    builder.finish()
}

fn forwarded_twice(driver: &dyn Driver) -> Verdict {
    let stream = StreamKey::parse("tinh-01", "main").unwrap();
    let batch = |first| commands::batch(&stream, 1, first, RECORDS);
    let log: Vec<Bytes> = [commands::put_key(&stream), commands::open(&stream, 1), batch(1)]
        .iter()
        .map(bundle_of)
        .collect();
    let again = bundle_of(&batch(4));
    let store = MemoryStateStore::new(GROUP);
    let mut bundles = BTreeMap::new();
    let mut commit = |bytes: Bytes| {
        let index = bundles.len() as u64 + 1;
        bundles.insert(index, bytes.clone());
        Committed { index, bundle: Some(bytes) }
    };
    for bytes in log {
        driver.apply(&store, &[commit(bytes)]);
    }
    driver.apply(&store, &[commit(again.clone()), commit(again)]);
    let rows = store.scan(&[1], &[0xff; 64], usize::MAX).unwrap();
    let mut image = Image::of_rows("one", GROUP, rows.into_iter().collect());
    image.bundles = bundles;
    let mut checker = Checker::new();
    let number = checker.stream("tinh-01", "main");
    for sequence in 1..=u64::from(2 * RECORDS) {
        checker.sent(number, sequence, commands::digest(&stream, sequence)).unwrap();
    }
    checker.acked(number, u64::from(2 * RECORDS)).unwrap();
    let node = checker.node("one");
    for record in image.records() {
        checker.observed(node, number, record.sequence, record.digest);
    }
    checker.verdict()
}

// holds: ING-2
#[test]
fn a_bundle_forwarded_twice_is_stored_once() {
    let verdict = forwarded_twice(&OneMachine);
    assert!(verdict.holds(), "{verdict}");
}

#[test]
fn bundle_applied_twice_is_caught() {
    let verdict = forwarded_twice(&EachAgainstOldRows);
    assert!(verdict.broken().contains(&Property::Ing2), "{verdict}");
}
