//! Passes over replicas in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use bytes::Bytes;
use dtm_machine::keys;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateRead, StateStore};
use dtm_types::GroupId;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use crate::pass::Error;
use crate::*;

const RANGE_BYTES: usize = 400;
const PAGE_ROWS: usize = 7;

/// Replicas 1 to 3 vote, 4 and 5 learn; 1 asks unless told otherwise.
struct Memory {
    own: u64,
    stores: BTreeMap<u64, MemoryStateStore>,
    /// Ceases to answer after so many questions.
    silent: Mutex<BTreeMap<u64, u32>>,
    paced: Mutex<u64>,
}

fn memory() -> Memory {
    let store = |_| {
        let store = MemoryStateStore::new(GroupId(1));
        let mut batch = StateBatch::default();
        for index in 1..=100_u64 {
            batch.put(keys::place(index, 0), format!("place {index}"));
            batch.put(keys::leaf(index), format!("leaf {index}"));
        }
        batch.put(keys::head(), "head");
        store.write(&batch).expect("memory");
        store
    };
    let stores = (1..=5).map(|id| (id, store(id))).collect();
    Memory { own: 1, stores, silent: Mutex::default(), paced: Mutex::default() }
}

impl Memory {
    fn plant(&self, replica: u64, key: Vec<u8>, value: Option<&str>) {
        let mut batch = StateBatch::default();
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
        self.stores[&replica].write(&batch).expect("memory");
    }

    fn answers(&self, replica: u64) -> bool {
        let mut silent = self.silent.lock().expect("held by nobody who panicked");
        let Some(left) = silent.get_mut(&replica) else { return true };
        *left = left.saturating_sub(1);
        *left > 0
    }

    fn pass(&self) -> Result<Report, Error> {
        let voters = BTreeSet::from([1, 2, 3]);
        let replicas = self.stores.keys().copied().collect();
        let question = Question { own: self.own, voters, replicas };
        pass(self, &question).now_or_never().expect("memory does not wait")
    }

    fn found(&self) -> Vec<(Vec<u8>, Vec<u64>)> {
        let report = self.pass().expect("a majority answers");
        let of = |found: Difference| (found.key.to_vec(), found.odd.into_iter().collect());
        report.named.into_iter().map(of).collect()
    }
}

impl Replicas for Memory {
    fn cut(&self, from: Bytes) -> BoxFuture<'_, Option<Cut>> {
        ready(cut(&self.stores[&self.own], &from, RANGE_BYTES).ok()).boxed()
    }

    fn digest(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<RangeDigest>> {
        let read = || digest(&self.stores[&replica], &range, 1 << 20).expect("memory");
        ready(self.answers(replica).then(read)).boxed()
    }

    fn list(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<Page>> {
        let read = || list(&self.stores[&replica], &range, PAGE_ROWS).expect("memory");
        ready(self.answers(replica).then(read)).boxed()
    }

    fn pace(&self, bytes: u64) -> BoxFuture<'_, ()> {
        *self.paced.lock().expect("held by nobody who panicked") += bytes;
        ready(()).boxed()
    }
}

#[test]
fn equal_replicas_are_compared_to_the_last_row() {
    let memory = memory();
    let report = memory.pass().expect("all answer");
    assert_eq!((report.rows, report.differing, report.undecided), (201, 0, 0));
    assert_eq!(report.compared, (1..=5).collect());
    assert_eq!(report.sound(), report.compared);
    assert_eq!(*memory.paced.lock().expect("held"), report.bytes, "each range is paced");
}

#[test]
fn a_planted_difference_is_found_on_any_replica_whoever_asks() {
    for own in 1..=3 {
        for odd in 1..=5 {
            let mut memory = memory();
            memory.own = own;
            memory.plant(odd, keys::leaf(50), Some("another leaf"));
            memory.plant(odd, keys::place(101, 0), Some("only here"));
            memory.plant(odd, keys::head(), None);
            let keys = [keys::place(101, 0), keys::leaf(50), keys::head()];
            let expected: Vec<_> = keys.into_iter().map(|key| (key, vec![odd])).collect();
            assert_eq!(memory.found(), expected, "{own} asks, {odd} is off");
            let report = memory.pass().expect("all answer");
            assert_eq!(report.odd, BTreeMap::from([(odd, 3)]));
            assert_eq!(report.sound(), (1..=5).filter(|id| *id != odd).collect());
        }
    }
}

#[test]
fn each_row_has_its_own_majority() {
    let memory = memory();
    memory.plant(1, keys::leaf(5), Some("a"));
    memory.plant(2, keys::leaf(6), Some("b"));
    memory.plant(4, keys::leaf(6), Some("c"));
    assert_eq!(memory.found(), [(keys::leaf(5), vec![1]), (keys::leaf(6), vec![2, 4])]);
}

#[test]
fn where_no_value_has_a_majority_nobody_is_off() {
    let memory = memory();
    memory.plant(1, keys::leaf(5), Some("a"));
    memory.plant(2, keys::leaf(5), Some("b"));
    assert_eq!(memory.found(), [(keys::leaf(5), vec![])]);
    let report = memory.pass().expect("all answer");
    assert_eq!((report.differing, report.undecided, report.odd.len()), (1, 1, 0));
}

#[test]
fn a_replica_that_lost_all_its_rows_is_off_and_bounded() {
    for odd in [1, 3, 5] {
        let memory = memory();
        let rows = memory.stores[&odd].scan(ROWS_FROM, ROWS_TO, usize::MAX).expect("memory");
        rows.into_iter().for_each(|(key, _)| memory.plant(odd, key.to_vec(), None));
        let report = memory.pass().expect("all answer");
        assert_eq!(report.odd, BTreeMap::from([(odd, 201)]), "{odd}");
        assert_eq!((report.differing, report.undecided), (201, 0));
        assert!(report.named.len() < 201, "not all of them are kept");
    }
}

#[test]
fn who_ceases_to_answer_is_left_out_as_long_as_a_majority_is_left() {
    let memory = memory();
    let silence = |replica, after| {
        memory.silent.lock().expect("held").insert(replica, after);
    };
    silence(2, 3);
    silence(4, 2);
    memory.plant(5, keys::head(), Some("another"));
    let report = memory.pass().expect("two of three answer");
    assert_eq!(report.compared, BTreeSet::from([1, 3, 5]));
    assert_eq!(report.odd, BTreeMap::from([(5, 1)]));
    silence(3, 3);
    assert!(matches!(memory.pass(), Err(Error::TooFew { answering: 1, voters: 3 })));
}
