//! Failing syncs, full disks, foreign folders.

use bytes::Bytes;

use super::kit::*;
use crate::log::{Error, LogConfig, LogIdentity, NodeLog};
use crate::vfs::{Faults, MemVfs};

// fault: F10
#[test]
fn one_failed_sync_stops_every_group_for_good() {
    let vfs = MemVfs::new(1);
    let (node, _) = open(&vfs, unmarked());
    let a = node.group(1, 1, 1).expect("group");
    let b = node.group(2, 1, 1).expect("group");
    append(&a, entries(0..=3, 1, 100));
    settle(&vfs);
    vfs.set_faults(Faults { sync_error_after: Some(0), ..Faults::default() });
    let result = done(|callback| a.append(entries(4..=4, 1, 100), callback));
    let Err(Error::Stopped { reason }) = result else { panic!("told {result:?}") };
    assert_eq!(reason.doing, "sync");
    assert_eq!(vfs.counts().sync_errors, 1);
    // The disk works again; the log does not.
    let later = done(|callback| b.append(entries(0..=0, 1, 10), callback));
    assert!(matches!(later, Err(Error::Stopped { .. })));
    let vote = done(|callback| b.save_vote(Bytes::from_static(b"v"), callback));
    assert!(matches!(vote, Err(Error::Stopped { .. })));
    assert_eq!(node.stopped(), Some(reason));
    assert!(node.group(9, 1, 1).is_err());
    // Reading goes on.
    assert_eq!(a.read(0..4, usize::MAX).expect("readable"), entries(0..=3, 1, 100));
    let syncs = vfs.syncs();
    drop(node);
    assert_eq!(vfs.syncs(), syncs, "no sync is tried again");
}

// fault: F10
#[test]
fn a_failed_write_stops_and_everything_queued_is_told() {
    let vfs = MemVfs::new(2);
    let (node, _) = open(&vfs, unmarked());
    let log = node.group(1, 1, 1).expect("group");
    append(&log, entries(0..=0, 1, 10));
    settle(&vfs);
    vfs.set_faults(Faults { write_error_after: Some(0), ..Faults::default() });
    let mut answers = Vec::new();
    for index in 1..50 {
        let (callback, answer) = waiter();
        if log.append(vec![entry(index, 1, 900)], callback).is_err() {
            break;
        }
        answers.push(answer);
    }
    assert!(!answers.is_empty());
    for answer in &answers {
        assert!(matches!(wait(answer), Err(Error::Stopped { .. })));
    }
    assert_eq!(vfs.counts().write_errors, 1);
}

// fault: F12
#[test]
fn a_full_disk_refuses_before_writing_and_recovers() {
    let vfs = MemVfs::new(3);
    let cfg = LogConfig { disk_reserve_bytes: 10 << 10, ..small() };
    vfs.set_faults(Faults { capacity_bytes: Some(300 << 10), ..Faults::default() });
    let (node, _) = open(&vfs, cfg.clone());
    let log = node.group(1, 1, 1).expect("group");
    let mut next = 0;
    let error = loop {
        assert!(next < 1000, "the disk never gets full");
        match done(|callback| log.append(vec![entry(next, 1, 2000)], callback)) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }) && error.retryable(), "{error}");
    assert!(node.stopped().is_none());
    assert!(next > 50, "most of the disk was used: {next}");
    // Nothing of the refused append is visible; reads and votes go on.
    assert_eq!(log.state().last, Some(at(next - 1, 1)));
    done(|callback| log.append(vec![entry(next, 2, 1)], callback)).expect("a blank entry has room");
    done(|callback| log.truncate_after(Some(next - 1), callback)).expect("a mark has room");
    done(|callback| log.save_vote(Bytes::from_static(b"v"), callback)).expect("a vote has room");
    assert_eq!(read_all(&log).len() as u64, next);
    // Room again, by a larger disk here and by retention below.
    vfs.set_faults(Faults { capacity_bytes: Some(600 << 10), ..Faults::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("rt");
    let taken = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        runtime.block_on(async {
            let wait = tokio::time::timeout(std::time::Duration::from_secs(5), log.ready(2000));
            wait.await.expect("answers").is_ok()
        })
    });
    assert!(taken);
    append(&log, vec![entry(next, 1, 2000)]);
    drop(node);
    // A log on a disk that is full opens and reads.
    vfs.set_faults(Faults { capacity_bytes: Some(1), ..Faults::default() });
    let vfs_full = vfs.clone();
    match NodeLog::open(std::sync::Arc::new(vfs_full), &dir(), cfg.clone(), ID) {
        Ok((node, _)) => {
            let log = node.group(1, 1, 1).expect("group");
            assert_eq!(read_all(&log).len() as u64, next + 1);
            let refused = done(|callback| log.append(vec![entry(next + 1, 1, 10)], callback));
            assert!(matches!(refused, Err(Error::DiskFull { .. })));
        }
        Err(error) => panic!("does not open: {error}"),
    }
}

#[test]
fn a_foreign_folder_and_a_second_process_are_refused() {
    let vfs = MemVfs::new(4);
    let (node, _) = open(&vfs, small());
    let again = NodeLog::open(std::sync::Arc::new(vfs.clone()), &dir(), small(), ID);
    assert!(matches!(again, Err(Error::Locked { .. })));
    let log = node.group(1, 1, 1).expect("group");
    append(&log, entries(0..=0, 1, 10));
    drop(node);
    for id in [LogIdentity { cluster: 1, ..ID }, LogIdentity { node: 1, ..ID }] {
        let other = NodeLog::open(std::sync::Arc::new(vfs.clone()), &dir(), small(), id);
        assert!(matches!(other, Err(Error::Foreign { .. })));
    }
}

#[test]
fn a_replica_too_many_is_refused_and_changes_nothing() {
    let vfs = MemVfs::new(6);
    let (node, _) = open(&vfs, small());
    for group in 0..256 {
        node.group(group, 1, 1).expect("meta and 255 more");
    }
    let more = node.group(256, 1, 1);
    assert!(matches!(more, Err(Error::TooManyReplicas { replicas_max: 256 })));
    assert_eq!(node.groups().len(), 256);
    let known = node.group(7, 1, 1).expect("is there");
    done(|callback| node.drop_replica(known.key(), callback)).expect("dropped");
    node.group(256, 1, 1).expect("in its place");
}

// fault: F22
#[test]
fn a_dropped_replica_never_comes_back_under_its_name_or_another() {
    let vfs = MemVfs::new(5);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    append(&log, entries(0..=5, 1, 100));
    done(|callback| node.drop_replica(log.key(), callback)).expect("dropped");
    let late = done(|callback| log.append(entries(6..=6, 1, 10), callback));
    assert!(matches!(late, Err(Error::Dropped { .. })));
    let new = node.group(1, 2, 1).expect("group");
    append(&new, entries(0..=1, 3, 50));
    drop(node);
    let (node, _) = open(&vfs, small());
    assert_eq!(node.groups().len(), 1);
    let new = node.group(1, 2, 1).expect("group");
    assert_eq!(read_all(&new), entries(0..=1, 3, 50));
    assert!(matches!(new.read_record(4), Err(Error::NotFound { .. })));
}
