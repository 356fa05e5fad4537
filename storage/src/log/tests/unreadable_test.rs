//! A place that the disk does not give is damage: found, named, repaired, and never the end.

use std::path::{Path, PathBuf};

use super::damage_test::{check, content, small_log};
use super::kit::*;
use crate::log::{Error, Health, NodeLog};
use crate::vfs::MemVfs;

const PAGE_BYTES: u64 = 4096;

/// A log like [`small_log`] whose process was killed under load: nothing followed its last rounds.
fn killed_log() -> (MemVfs, PathBuf) {
    let (vfs, _) = small_log();
    let (node, _) = open(&vfs, unmarked());
    for round in 0..4u64 {
        for group in 0..3u32 {
            let log = node.group(group, 1, 1).expect("group");
            let first = log.state().last.map_or(0, |last| last.index + 1);
            append(&log, entries(first..=first + 1, 9, 300 + 200 * round as usize));
            if round % 2 == 1 {
                let vote = vec![group as u8, 9, round as u8];
                done(|callback| log.save_vote(vote.into(), callback)).expect("saved");
            }
        }
    }
    // The last round that was told: nothing behind it proves that it was synced.
    let log = node.group(0, 1, 1).expect("group");
    let next = log.state().last.map_or(0, |last| last.index + 1);
    append(&log, vec![entry(next, 9, 700)]);
    let path = segments(&vfs)[1].clone();
    vfs.kill();
    drop(node);
    (vfs, path)
}

/// A copy of a disk, on which nothing is unreadable yet.
fn copy(vfs: &MemVfs) -> MemVfs {
    let copy = MemVfs::new(12);
    for path in segments(vfs) {
        copy.put(&path, vfs.bytes(&path).expect("there"));
    }
    copy
}

fn pages(vfs: &MemVfs, path: &Path) -> Vec<u64> {
    let len = vfs.bytes(path).expect("there").len() as u64;
    (0..len).step_by(4096).collect()
}

// holds: ING-1 RAFT-1
// fault: F6
#[test]
fn one_unreadable_page_anywhere_is_repaired_or_harmless() {
    for (vfs, path) in [small_log(), killed_log()] {
        let truth = content(&open(&copy(&vfs), small()).0);
        let mut recovering = 0;
        for page in pages(&vfs, &path) {
            let damaged = copy(&vfs);
            damaged.fail_reads(&path, page..page + 1);
            recovering += check(&damaged, &truth, &format!("page at {page}")).len();
            assert!(damaged.counts().read_errors > 0);
        }
        assert!(recovering > 5, "{recovering}");
    }
}

// holds: ING-1 RAFT-1
// fault: F6
#[test]
fn several_unreadable_pages_hide_nothing() {
    for (vfs, path) in [small_log(), killed_log()] {
        let truth = content(&open(&copy(&vfs), small()).0);
        let (mut lost, all) = (0, pages(&vfs, &path));
        for first in &all {
            for second in &all {
                let damaged = copy(&vfs);
                damaged.fail_reads(&path, *first..first + PAGE_BYTES + 1);
                damaged.fail_reads(&path, *second..second + 1);
                let (node, _) = open(&damaged, small());
                for (group, (entries, vote)) in (0..3).zip(&truth) {
                    let log = node.group(group, 1, 1).expect("group");
                    let state = log.state();
                    if state.health.is_healthy() {
                        assert_eq!(read_all(&log), *entries, "pages at {first}, {second}");
                    }
                    let is_lost = is_vote_lost(&state.health);
                    assert!(is_lost || state.vote == *vote, "pages at {first}, {second}");
                    lost += u32::from(is_lost);
                }
            }
        }
        assert!(lost > 0, "a vote lies on two pages");
    }
}

fn long_log(node: &NodeLog) {
    let log = node.group(1, 1, 1).expect("group");
    for index in 0..200 {
        append(&log, vec![entry(index, 1, 1000)]);
    }
}

// fault: F6
#[test]
fn an_unreadable_page_of_a_sealed_segment_makes_its_replica_recovering_when_read() {
    let vfs = MemVfs::new(13);
    let (node, _) = open(&vfs, small());
    long_log(&node);
    drop(node);
    let path = segments(&vfs)[0].clone();
    let (node, _) = open(&vfs, small());
    vfs.fail_reads(&path, 8192..8193);
    let log = node.group(1, 1, 1).expect("group");
    let Err(Error::Damaged { index, .. }) = log.read(0..200, usize::MAX) else {
        panic!("a page is unreadable");
    };
    let report = node.scrub(1).expect("scrubbed");
    assert!(report.damaged.contains(&(log.key(), index)), "{report:?}");
    let Health::Recovering { missing, tail_unknown: false, vote_lost: false } = log.state().health
    else {
        panic!("{:?}", log.state());
    };
    for range in missing {
        done(|callback| log.repair(entries(range.from..=range.to, 1, 1000), callback))
            .expect("repaired");
    }
    assert!(log.state().health.is_healthy());
    assert_eq!(read_all(&log), entries(0..=199, 1, 1000));
}

// fault: F6
#[test]
fn unreadable_headers_and_footers_do_not_end_the_node() {
    let vfs = MemVfs::new(14);
    let (node, _) = open(&vfs, small());
    long_log(&node);
    drop(node);
    for path in segments(&vfs) {
        let damaged = copy(&vfs);
        let bytes = damaged.bytes(&path).expect("there");
        let end = bytes.len() as u64;
        damaged.fail_reads(&path, 0..1);
        // Without a footer the last page is empty.
        if bytes[bytes.len() - 32..].starts_with(b"DTMLOGT1") {
            damaged.fail_reads(&path, end - 1..end);
        }
        NodeLog::check_owner(&damaged, &dir(), ID).expect("no other's");
        let (node, recovery) = open(&damaged, small());
        assert!(recovery.unreadable_pages >= 1, "{recovery:?}");
        let log = node.group(1, 1, 1).expect("group");
        if let Health::Recovering { missing, tail_unknown, vote_lost } = log.state().health {
            assert!(!vote_lost);
            for range in missing {
                done(|callback| log.repair(entries(range.from..=range.to, 1, 1000), callback))
                    .expect("repaired");
            }
            if tail_unknown {
                done(|callback| log.declare_whole(callback)).expect("declared");
                let next = log.state().last.map_or(0, |last| last.index + 1);
                append(&log, (next..200).map(|index| entry(index, 1, 1000)).collect());
            }
        }
        assert!(log.state().health.is_healthy());
        assert_eq!(read_all(&log), entries(0..=199, 1, 1000));
    }
}
