//! What a log does when nothing goes wrong.

use bytes::Bytes;

use super::kit::*;
use crate::log::{Error, Health, IndexRange, NodeLog};
use crate::vfs::MemVfs;

#[test]
fn appended_entries_are_read_back_and_survive_a_crash() {
    let vfs = MemVfs::new(1);
    let (node, recovery) = open(&vfs, small());
    assert_eq!(recovery, Default::default());
    let log = node.group(3, 7, 1).expect("group");
    append(&log, entries(0..=9, 1, 300));
    done(|callback| log.save_vote(Bytes::from_static(b"vote 1"), callback)).expect("saved");
    assert_eq!(read_all(&log), entries(0..=9, 1, 300));
    vfs.crash(0);
    drop(node);
    let (node, recovery) = open(&vfs, small());
    assert_eq!(recovery.recovering.len(), 0);
    let log = node.group(3, 7, 1).expect("group");
    assert_eq!(read_all(&log), entries(0..=9, 1, 300));
    let state = log.state();
    assert_eq!(state.last, Some(at(9, 1)));
    assert_eq!(state.vote, Some(Bytes::from_static(b"vote 1")));
    assert_eq!(state.health, Health::Healthy);
    // Another replica of the group sees nothing of it.
    let other = node.group(3, 8, 1).expect("group");
    assert_eq!(other.state().last, None);
    assert_eq!(other.read(0..100, 1000).expect("empty"), vec![]);
}

#[test]
fn truncation_purge_and_reset_hold_over_reopening() {
    let vfs = MemVfs::new(2);
    let (node, _) = open(&vfs, small());
    let a = node.group(1, 1, 1).expect("group");
    let b = node.group(2, 1, 1).expect("group");
    append(&a, entries(0..=20, 1, 100));
    append(&b, entries(1..=20, 1, 100));
    done(|callback| a.truncate_after(Some(10), callback)).expect("cut");
    append(&a, entries(11..=12, 2, 50));
    done(|callback| a.purge_to(at(5, 1), callback)).expect("purged");
    done(|callback| b.purge_to(at(8, 1), callback)).expect("purged");
    done(|callback| b.reset(at(100, 4), Some(12), callback)).expect("reset");
    append(&b, entries(101..=103, 4, 10));
    a.save_committed(Bytes::from_static(b"committed"));
    for round in 0..3 {
        let node = if round == 0 { None } else { Some(open(&vfs, small()).0) };
        let (a, b) = match &node {
            None => (a.clone(), b.clone()),
            Some(node) => {
                (node.group(1, 1, 1).expect("group"), node.group(2, 1, 1).expect("group"))
            }
        };
        let mut expected = entries(6..=10, 1, 100);
        expected.extend(entries(11..=12, 2, 50));
        assert_eq!(read_all(&a), expected, "round {round}");
        assert_eq!(a.state().last_purged, Some(at(5, 1)));
        assert_eq!(a.state().committed, Some(Bytes::from_static(b"committed")));
        assert_eq!(read_all(&b), entries(101..=103, 4, 10));
        assert_eq!(b.state().last_purged, Some(at(100, 4)));
        // The record store: below the purge mark, and hidden where a reset left doubt.
        assert_eq!(a.read_record(3).expect("kept"), entry(3, 1, 100));
        assert_eq!(a.read_record(11).expect("kept"), entry(11, 2, 50));
        for index in 1..=12 {
            assert_eq!(b.read_record(index).expect("was applied"), entry(index, 1, 100));
        }
        assert!(matches!(b.read_record(13), Err(Error::NotFound { index: 13, .. })));
        assert_eq!(a.lacking(12).expect("known"), vec![]);
        assert_eq!(b.lacking(103).expect("known"), vec![IndexRange { from: 13, to: 100 }]);
        assert_eq!(b.lacking(20).expect("known"), vec![IndexRange { from: 13, to: 20 }]);
        if round == 0 {
            // Closing writes the mark that carries the committed position.
            drop_all(&vfs);
        }
    }
    drop(node);
}

/// A kill without closing: what was synced stays.
fn drop_all(vfs: &MemVfs) {
    std::thread::sleep(std::time::Duration::from_millis(100));
    vfs.kill();
}

#[test]
fn snapshot_records_are_readable_below_the_purge_mark() {
    let vfs = MemVfs::new(3);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    done(|callback| log.reset(at(50, 3), None, callback)).expect("reset");
    done(|callback| log.store_records(entries(10..=50, 2, 500), callback)).expect("stored");
    append(&log, entries(51..=60, 3, 500));
    drop(node);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    assert_eq!(read_all(&log), entries(51..=60, 3, 500));
    assert_eq!(log.read_record(30).expect("record"), entry(30, 2, 500));
    assert!(matches!(log.read_record(9), Err(Error::NotFound { .. })));
}

#[test]
fn many_segments_reopen_and_only_the_newest_is_scanned() {
    let vfs = MemVfs::new(4);
    let (node, _) = open(&vfs, small());
    let logs: Vec<_> = (0..4).map(|group| node.group(group, 1, 1).expect("group")).collect();
    for index in 0..400 {
        for log in &logs {
            append(log, vec![entry(index, 1, 1500)]);
        }
    }
    assert!(node.segments().len() > 20);
    // The cache is far smaller than the log: most is read from disk.
    for log in &logs {
        assert_eq!(read_all(log), entries(0..=399, 1, 1500));
    }
    drop(node);
    let (node, recovery) = open(&vfs, small());
    assert_eq!(recovery.segments_scanned, 1);
    let log = node.group(2, 1, 1).expect("group");
    assert_eq!(read_all(&log), entries(0..=399, 1, 1500));
    assert_eq!(log.read(7..100, 1501).expect("at least one"), entries(7..=7, 1, 1500));
    assert_eq!(log.read(7..100, 0).expect("at least one"), entries(7..=7, 1, 1500));
    // Retention: nothing that a log needs goes, the rest does.
    let oldest = node.segments()[0].number;
    assert!(!node.retire(oldest).expect("asked"));
    for group in 0..4 {
        let log = node.group(group, 1, 1).expect("group");
        done(|callback| log.purge_to(at(300, 1), callback)).expect("purged");
    }
    assert!(node.retire(oldest).expect("asked"));
    assert!(matches!(log.read_record(0), Err(Error::NotFound { .. })));
    assert_eq!(log.read_record(299).expect("kept"), entry(299, 1, 1500));
    drop(node);
    let (_node, recovery) = open(&vfs, small());
    assert_eq!(recovery.recovering.len(), 0, "{recovery:?}");
}

// holds: RAFT-1
#[test]
fn what_was_cut_is_no_record_any_more() {
    let vfs = MemVfs::new(13);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    append(&log, entries(1..=20, 1, 100));
    // Into another segment.
    let fill = |node: &NodeLog| {
        let other = node.group(2, 1, 1).expect("group");
        let next = other.state().last.map_or(0, |last| last.index + 1);
        (next..next + 100).for_each(|index| append(&other, vec![entry(index, 1, 1000)]));
    };
    fill(&node);
    done(|callback| log.purge_to(at(5, 1), callback)).expect("purged");
    done(|callback| log.truncate_after(Some(8), callback)).expect("cut");
    for index in 9..=20 {
        assert!(matches!(log.read_record(index), Err(Error::NotFound { .. })), "above the end");
    }
    // The rows hold more, as after the repair of a damaged tail.
    done(|callback| log.purge_to(at(20, 2), callback)).expect("purged");
    done(|callback| log.store_records(entries(9..=12, 2, 50), callback)).expect("stored");
    let check = |node: &NodeLog, what: &str| {
        let log = node.group(1, 1, 1).expect("group");
        for index in 1..=8 {
            assert_eq!(log.read_record(index).expect(what), entry(index, 1, 100));
        }
        for index in 9..=12 {
            assert_eq!(log.read_record(index).expect(what), entry(index, 2, 50));
        }
        for index in 13..=20 {
            let found = log.read_record(index);
            assert!(matches!(found, Err(Error::NotFound { .. })), "{what}: {index} {found:?}");
        }
        let lacking = log.lacking(20).expect("known");
        assert_eq!(lacking, vec![IndexRange { from: 13, to: 20 }], "{what}");
    };
    check(&node, "in the open segment");
    fill(&node);
    check(&node, "in sealed segments");
    drop((log, node));
    check(&open(&vfs, small()).0, "after reopening");
}
