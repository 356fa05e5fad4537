//! The store against its contract, its folder rules and its damage rules.

use std::path::Path;

use dtm_machine::seams::{StateBatch, StateRead, StateStore};
use dtm_types::{ClusterId, GroupId, NodeId};

use super::*;

pub(super) fn owner() -> Owner {
    Owner { cluster: ClusterId([1; 16]), node: NodeId([2; 16]) }
}

pub(super) fn small() -> StateConfig {
    StateConfig { block_cache_bytes: 1 << 20, ..StateConfig::default() }
}

pub(super) fn open(dir: &Path) -> StateDb {
    StateDb::open(dir, owner(), &small()).unwrap()
}

pub(super) fn put(key: &[u8], value: &[u8]) -> StateBatch {
    let mut batch = StateBatch::default();
    batch.put(key, value);
    batch
}

fn value(store: &dyn StateRead, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|v| v.to_vec())
}

fn all(store: &dyn StateRead) -> Vec<Vec<u8>> {
    let rows = store.scan(&[], &[0xff; 9], 1000).unwrap();
    rows.into_iter().map(|(k, _)| k.to_vec()).collect()
}

#[test]
fn groups_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (a, b) = (db.group(GroupId(1)).unwrap(), db.group(GroupId(2)).unwrap());
    a.write(&put(b"k", b"a")).unwrap();
    a.write(&put(&[0xff; 3], b"a")).unwrap();
    b.write(&put(b"", b"b")).unwrap();
    assert_eq!(value(&*a, b"k"), Some(b"a".to_vec()));
    assert_eq!(value(&*b, b"k"), None);
    assert_eq!(all(&*a), [b"k".to_vec(), vec![0xff; 3]]);
    assert_eq!(all(&*b), [b"".to_vec()]);
    assert_eq!(b.last(b"", b"z").unwrap().unwrap().0, b""[..]);
    assert!(a.last(b"a", b"k").unwrap().is_none());
    assert!(matches!(db.group(GroupId(u32::MAX)), Err(Error::GroupReserved(_))));
}

#[test]
fn another_cluster_or_node_is_refused_and_nothing_written() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let other = Owner { cluster: ClusterId([9; 16]), ..owner() };
    let refused = StateDb::open(dir.path(), other, &small()).map(|_| ());
    assert!(matches!(refused, Err(Error::OtherCluster { .. })), "{refused:?}");
    let other = Owner { node: NodeId([9; 16]), ..owner() };
    let refused = StateDb::open(dir.path(), other, &small()).map(|_| ());
    assert!(matches!(refused, Err(Error::OtherNode { .. })), "{refused:?}");
    drop(open(dir.path()));
}

#[test]
fn a_folder_is_held_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = StateDb::open(dir.path(), owner(), &small()).map(|_| ());
    assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    let frozen = first.group(GroupId(1)).unwrap().freeze();
    drop(first);
    let third = StateDb::open(dir.path(), owner(), &small()).map(|_| ());
    assert!(matches!(third, Err(Error::InUse { .. })), "a frozen view holds it: {third:?}");
    drop(frozen);
    drop(open(dir.path()));
}

#[test]
fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut batch = rocksdb::WriteBatch::default();
    batch.put(keys::owner(), [0, 0, 0, 9]);
    let engine = engine::Engine::open(dir.path(), &small());
    assert!(engine.is_err(), "still held");
    drop(db);
    let engine = engine::Engine::open(dir.path(), &small()).unwrap();
    engine.write(batch).unwrap();
    engine.flush().unwrap();
    drop(engine);
    let refused = StateDb::open(dir.path(), owner(), &small()).map(|_| ());
    assert!(matches!(refused, Err(Error::Format { found: 9, known: 1, .. })), "{refused:?}");
}

#[test]
fn a_frozen_view_does_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let store = db.group(GroupId(3)).unwrap();
    store.write(&put(b"k", b"1")).unwrap();
    let frozen = store.freeze();
    store.write(&put(b"k", b"2")).unwrap();
    store.write(&put(b"l", b"2")).unwrap();
    let staging = db.stage(GroupId(3)).unwrap();
    staging.commit(&put(b"k", b"3")).unwrap();
    db.flush().unwrap();
    assert_eq!(value(&*frozen, b"k"), Some(b"1".to_vec()));
    assert_eq!(all(&*frozen), [b"k".to_vec()]);
    assert_eq!(value(&*store, b"k"), Some(b"3".to_vec()));
    drop((db, store));
    assert_eq!(value(&*frozen, b"k"), Some(b"1".to_vec()), "it keeps the database open");
}

#[test]
fn staged_rows_replace_the_old_ones_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let store = db.group(GroupId(3)).unwrap();
    store.write(&put(b"old", b"1")).unwrap();
    let neighbour = db.group(GroupId(4)).unwrap();
    neighbour.write(&put(b"n", b"1")).unwrap();
    let staging = db.stage(GroupId(3)).unwrap();
    staging.write(&put(b"new", b"2")).unwrap();
    assert!(matches!(db.stage(GroupId(3)).map(|_| ()), Err(Error::StagingInProgress(_))));
    assert!(matches!(db.drop_group(GroupId(3)), Err(Error::StagingInProgress(_))));
    assert_eq!(all(&*store), [b"old".to_vec()], "not before the commit");
    assert_eq!(all(&staging), [b"new".to_vec()]);
    staging.commit(&put(b"position", b"9")).unwrap();
    let lost = tempfile::tempdir().unwrap();
    db.copy_as_crashed(lost.path()).unwrap();
    let again = open(lost.path()).group(GroupId(3)).unwrap();
    assert!(!all(&*again).contains(&b"new".to_vec()), "nothing of it before the flush");
    db.flush().unwrap();
    assert_eq!(all(&*store), [b"new".to_vec(), b"position".to_vec()]);
    assert_eq!(all(&*neighbour), [b"n".to_vec()]);
    let copy = tempfile::tempdir().unwrap();
    db.copy_as_crashed(copy.path()).unwrap();
    let again = open(copy.path()).group(GroupId(3)).unwrap();
    assert_eq!(all(&*again), [b"new".to_vec(), b"position".to_vec()], "durable with the flush");
}

#[test]
fn unfinished_staging_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let store = db.group(GroupId(3)).unwrap();
    store.write(&put(b"old", b"1")).unwrap();
    let staging = db.stage(GroupId(3)).unwrap();
    staging.write(&put(b"new", b"2")).unwrap();
    db.flush().unwrap();
    let copy = tempfile::tempdir().unwrap();
    db.copy_as_crashed(copy.path()).unwrap();
    drop(staging);
    let fresh = db.stage(GroupId(3)).unwrap();
    assert!(all(&fresh).is_empty(), "dropped with the staging");
    let again = open(copy.path());
    assert_eq!(all(&*again.group(GroupId(3)).unwrap()), [b"old".to_vec()]);
    assert!(all(&again.stage(GroupId(3)).unwrap()).is_empty(), "removed at the opening");
}

#[test]
fn a_dropped_group_stays_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let store = db.group(GroupId(3)).unwrap();
    store.write(&put(b"k", b"1")).unwrap();
    db.group(GroupId(4)).unwrap().write(&put(b"n", b"1")).unwrap();
    db.drop_group(GroupId(3)).unwrap();
    assert!(all(&*store).is_empty());
    let copy = tempfile::tempdir().unwrap();
    db.copy_as_crashed(copy.path()).unwrap();
    let again = open(copy.path());
    assert!(all(&*again.group(GroupId(3)).unwrap()).is_empty());
    assert_eq!(all(&*again.group(GroupId(4)).unwrap()), [b"n".to_vec()]);
}

#[test]
fn durable_reads_tell_what_a_crash_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let store = db.group(GroupId(1)).unwrap();
    store.write(&put(b"applied", b"1")).unwrap();
    assert_eq!(store.get_durable(b"applied").unwrap(), None);
    store.flush().unwrap();
    assert_eq!(db.flushed_sequence(), db.sequence());
    store.write(&put(b"applied", b"2")).unwrap();
    assert!(db.flushed_sequence() < db.sequence());
    assert_eq!(store.get_durable(b"applied").unwrap().unwrap(), b"1"[..]);
    assert_eq!(value(&*store, b"applied"), Some(b"2".to_vec()));
    let copy = tempfile::tempdir().unwrap();
    db.copy_as_crashed(copy.path()).unwrap();
    let again = open(copy.path()).group(GroupId(1)).unwrap();
    assert_eq!(value(&*again, b"applied"), Some(b"1".to_vec()));
}
