//! What apply and the Raft glue rely on in a `StateStore`.

use std::collections::BTreeMap;
use std::sync::Arc;

use dtm_machine::seams::{StateBatch, StateRead, StateStore};

/// An implementation under test. It starts empty.
pub trait Subject {
    /// The store.
    fn store(&self) -> Arc<dyn StateStore>;
    /// Throws away what a crash at this moment would, and opens what is left.
    fn crash(&mut self);
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Runs the suite; each part takes a fresh subject.
pub fn suite<S: Subject>(mut fresh: impl FnMut() -> S) {
    rows_are_ordered_and_bounded(&*fresh().store());
    a_range_that_ends_before_it_begins_is_empty(&*fresh().store());
    rows_are_bounded_in_bytes(&*fresh().store());
    the_last_change_in_a_batch_wins(&*fresh().store());
    frozen_views_do_not_move(&*fresh().store());
    a_crash_goes_back_to_a_whole_batch(&mut fresh());
    it_does_what_a_map_does(&mut fresh());
}

fn put(store: &dyn StateStore, key: &[u8], value: &[u8]) {
    let mut batch = StateBatch::default();
    batch.put(key, value);
    store.write(&batch).expect("the store is healthy");
}

fn get(store: &dyn StateRead, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key).expect("the store is healthy").map(|v| v.to_vec())
}

fn scan(store: &dyn StateRead, from: &[u8], to: &[u8], limit: usize) -> Rows {
    let rows = store.scan(from, to, limit).expect("the store is healthy");
    rows.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

fn last(store: &dyn StateRead, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    store.last(from, to).expect("the store is healthy").map(|(k, _)| k.to_vec())
}

fn rows_are_ordered_and_bounded(store: &dyn StateStore) {
    assert_eq!(get(store, b"a"), None);
    assert!(scan(store, b"", b"\xff", 10).is_empty());
    assert_eq!(last(store, b"", b"\xff"), None);
    let keys: [&[u8]; 6] = [b"b", b"", b"a\0", b"a", b"\xff\xff", b"c"];
    keys.iter().for_each(|key| put(store, key, key));
    let found: Vec<_> = scan(store, b"", b"\xff", 10).into_iter().map(|(k, _)| k).collect();
    assert_eq!(found, [&b""[..], b"a", b"a\0", b"b", b"c"], "ascending, the end excluded");
    assert_eq!(scan(store, b"a", b"c", 2).len(), 2, "no more than the limit");
    assert_eq!(scan(store, b"a", b"c", 0).len(), 0);
    assert!(scan(store, b"b", b"b", 9).is_empty(), "an empty range");
    assert_eq!(last(store, b"a", b"c").as_deref(), Some(&b"b"[..]));
    assert_eq!(last(store, b"a", b"a"), None);
    assert_eq!(last(store, b"d", b"\xff"), None);
    assert_eq!(last(store, b"", b"\xff\xff\xff").as_deref(), Some(&b"\xff\xff"[..]));
    put(store, b"a", b"");
    assert_eq!(get(store, b"a").as_deref(), Some(&b""[..]), "an empty value is a value");
}

fn a_range_that_ends_before_it_begins_is_empty(store: &dyn StateStore) {
    put(store, b"k", b"1");
    for (from, to) in [(&b"z"[..], &b"a"[..]), (b"k", b"k")] {
        assert!(scan(store, from, to, 9).is_empty());
        assert_eq!(last(store, from, to), None);
        assert!(scan(&*store.freeze(), from, to, 9).is_empty());
    }
}

fn rows_are_bounded_in_bytes(store: &dyn StateStore) {
    for key in [b"a", b"b", b"c", b"d"] {
        put(store, key, &[7; 99]);
    }
    put(store, b"e", &[7; 999]);
    let frozen = store.freeze();
    for rows in [store as &dyn StateRead, &*frozen] {
        let found = |from: &[u8], limit, bytes_max| {
            let rows = rows.scan_within(from, b"\xff", limit, bytes_max);
            rows.expect("the store is healthy").into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(found(b"", 9, 300), ["a", "b", "c"], "keys count too");
        assert_eq!(found(b"", 9, 299), ["a", "b"]);
        assert_eq!(found(b"", 2, 300), ["a", "b"], "the limit holds beside it");
        assert_eq!(found(b"d", 9, 300), ["d"], "a row that does not fit waits");
        assert_eq!(found(b"e", 9, 300), ["e"], "and comes alone");
        assert_eq!(found(b"", 9, 0), ["a"], "one row always comes");
        assert_eq!(found(b"", 9, usize::MAX).len(), 5);
        assert!(found(b"f", 9, 300).is_empty());
        assert!(found(b"", 0, 300).is_empty());
    }
}

fn the_last_change_in_a_batch_wins(store: &dyn StateStore) {
    let mut batch = StateBatch::default();
    batch.put(b"k", b"1");
    batch.delete(b"k");
    batch.put(b"k", b"2");
    batch.put(b"gone", b"1");
    batch.delete(b"gone");
    batch.delete(b"never");
    store.write(&batch).expect("the store is healthy");
    assert_eq!(get(store, b"k").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(store, b"gone"), None);
    store.write(&StateBatch::default()).expect("an empty batch is fine");
}

fn frozen_views_do_not_move(store: &dyn StateStore) {
    put(store, b"k", b"1");
    let frozen = store.freeze();
    put(store, b"k", b"2");
    put(store, b"l", b"2");
    store.flush().expect("the store is healthy");
    assert_eq!(get(&*frozen, b"k").as_deref(), Some(&b"1"[..]));
    assert_eq!(scan(&*frozen, b"", b"\xff", 9).len(), 1);
    assert_eq!(last(&*frozen, b"", b"\xff").as_deref(), Some(&b"k"[..]));
    assert_eq!(scan(&*store.freeze(), b"", b"\xff", 9).len(), 2);
}

fn a_crash_goes_back_to_a_whole_batch(subject: &mut impl Subject) {
    let write = |store: &dyn StateStore, n: u8| {
        let mut batch = StateBatch::default();
        (0..50u8).for_each(|i| batch.put([i], [n]));
        batch.put(b"position", [n]);
        store.write(&batch).expect("the store is healthy");
    };
    write(&*subject.store(), 1);
    subject.store().flush().expect("the store is healthy");
    (2..5).for_each(|n| write(&*subject.store(), n));
    subject.crash();
    let store = subject.store();
    let at = get(&*store, b"position").expect("what was flushed is there")[0];
    assert!((1..5).contains(&at));
    assert!((0..50u8).all(|i| get(&*store, &[i]) == Some(vec![at])), "half a batch at {at}");
}

/// A few thousand changes beside a plain map, with flushes and crashes between them.
fn it_does_what_a_map_does(subject: &mut impl Subject) {
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut seed = 0x9e37_79b9_u64;
    let mut roll = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for step in 0..600u64 {
        let mut batch = StateBatch::default();
        for _ in 0..=roll(8) {
            let key = roll(97).to_be_bytes()[6..].to_vec();
            if roll(3) == 0 {
                model.remove(&key);
                batch.delete(key);
            } else {
                let value = vec![step as u8; roll(100) as usize];
                model.insert(key.clone(), value.clone());
                batch.put(key, value);
            }
        }
        subject.store().write(&batch).expect("the store is healthy");
        if step % 150 == 149 {
            subject.store().flush().expect("the store is healthy");
            subject.crash();
        }
        if step % 20 == 0 {
            let expected: Rows = model.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            assert_eq!(
                scan(&*subject.store(), b"", b"\xff\xff\xff", 1000),
                expected,
                "step {step}"
            );
        }
    }
}
