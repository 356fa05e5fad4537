//! Damage inside the log is found, named, repaired, and never taken for a torn tail.

use std::path::PathBuf;

use bytes::Bytes;

use super::kit::*;
use crate::log::block::{HEADER_BYTES, Header, Kind};
use crate::log::scan::scan;
use crate::log::{Error, GroupLog, Health, LogEntry, NodeLog};
use crate::vfs::MemVfs;

/// Three groups with some history in one segment, closed in order, then killed.
pub(super) fn small_log() -> (MemVfs, PathBuf) {
    let vfs = MemVfs::new(1);
    let (node, _) = open(&vfs, small());
    for round in 0..3u64 {
        for group in 0..3u32 {
            let log = node.group(group, 1, 1).expect("group");
            let first = log.state().last.map_or(0, |last| last.index + 1);
            append(&log, entries(first..=first + 2, round + 1, 150));
            let vote = vec![group as u8, round as u8];
            done(|callback| log.save_vote(Bytes::from(vote), callback)).expect("saved");
            if round == 1 {
                done(|callback| log.truncate_after(Some(4), callback)).expect("cut");
            }
        }
    }
    drop(node);
    let path = segments(&vfs)[0].clone();
    (vfs, path)
}

pub(super) type Content = Vec<(Vec<LogEntry>, Option<Bytes>)>;

pub(super) fn content(node: &NodeLog) -> Content {
    (0..3)
        .map(|group| {
            let log = node.group(group, 1, 1).expect("group");
            (read_all(&log), log.state().vote)
        })
        .collect()
}

/// Opens a damaged copy; answers the groups that are recovering, after checking that the others
/// are whole and that repair from the true content mends the rest.
pub(super) fn check(vfs: &MemVfs, truth: &Content, what: &str) -> Vec<u32> {
    let (node, recovery) = open(vfs, small());
    let mut recovering = Vec::new();
    for group in 0..3u32 {
        let log = node.group(group, 1, 1).expect("group");
        let (entries, vote) = &truth[group as usize];
        let state = log.state();
        let Health::Recovering { missing, tail_unknown, vote_lost } = state.health else {
            assert_eq!(read_all(&log), *entries, "{what}: group {group} lost entries silently");
            assert_eq!(state.vote, *vote, "{what}: group {group} lost its vote silently");
            continue;
        };
        recovering.push(group);
        assert!(recovery.recovering.contains_key(&log.key()));
        assert!(!vote_lost, "{what}: one damaged block never takes both copies of a vote");
        let fetched: Vec<LogEntry> = entries
            .iter()
            .filter(|entry| missing.iter().any(|r| (r.from..=r.to).contains(&entry.index)))
            .cloned()
            .collect();
        for entry in &fetched {
            let unreadable = log.read(entry.index..entry.index + 1, 10);
            assert!(matches!(unreadable, Err(Error::Damaged { .. })), "{what}");
        }
        done(|callback| log.repair(fetched, callback)).expect("repaired");
        if tail_unknown {
            done(|callback| log.declare_whole(callback)).expect("declared");
            let next = log.state().last.map_or(0, |last| last.index + 1);
            let rest: Vec<_> = entries.iter().filter(|e| e.index >= next).cloned().collect();
            append(&log, rest);
        }
        assert_eq!(log.state().health, Health::Healthy, "{what}: group {group}");
        assert_eq!(read_all(&log), *entries, "{what}: group {group} after repair");
    }
    drop(node);
    let (node, recovery) = open(vfs, small());
    assert!(recovery.recovering.is_empty(), "{what}: repair holds: {recovery:?}");
    assert_eq!(content(&node), *truth, "{what}: after reopening");
    recovering
}

// holds: ING-1
// fault: F6
#[test]
fn a_flipped_bit_in_any_block_is_repaired_or_harmless() {
    let (vfs, path) = small_log();
    let bytes = vfs.bytes(&path).expect("there");
    let truth = content(&open(&vfs, small()).0);
    let found = scan(&bytes, 1, ID.cluster);
    assert!(found.blocks.len() > 40);
    let mut entries_hit = 0;
    for seen in &found.blocks {
        let header_bits = (0..HEADER_BYTES).step_by(9);
        let payload_bit = (seen.header.payload_bytes > 0).then_some(HEADER_BYTES + 1);
        for at in header_bits.chain(payload_bit) {
            let damaged = MemVfs::new(7);
            damaged.put(&path, bytes.clone());
            assert!(damaged.flip_bit(&path, (seen.offset + at) as u64, at as u8));
            let what = format!("{:?} at {} byte {at}", seen.header.kind, seen.offset);
            let recovering = check(&damaged, &truth, &what);
            if seen.header.kind == Kind::Entry && !recovering.is_empty() {
                entries_hit += 1;
                assert_eq!(recovering, vec![seen.header.key.group], "{what}: only its own group");
            }
        }
    }
    assert!(entries_hit > 100, "{entries_hit}");
}

// fault: F6
#[test]
fn neighbouring_blocks_lost_together_are_never_lost_silently() {
    let (vfs, path) = small_log();
    let bytes = vfs.bytes(&path).expect("there");
    let (node, _) = open(&vfs, small());
    let truth = content(&node);
    drop(node);
    let found = scan(&bytes, 1, ID.cluster);
    // The last block is the closing mark: damage before it is inside.
    for lost in [2usize, 3, 5, 9] {
        for window in found.blocks[..found.blocks.len() - 1].windows(lost) {
            let damaged = MemVfs::new(8);
            let mut copy = bytes.clone();
            for seen in window {
                copy[seen.offset..seen.offset + HEADER_BYTES].fill(0x55);
            }
            damaged.put(&path, copy);
            let (node, recovery) = open(&damaged, small());
            assert!(recovery.torn_bytes == 0, "inside is never a tail: {recovery:?}");
            for group in 0..3u32 {
                let log = node.group(group, 1, 1).expect("group");
                let state = log.state();
                if state.health.is_healthy() {
                    assert_eq!(read_all(&log), truth[group as usize].0);
                }
                if !is_vote_lost(&state.health) {
                    assert_eq!(state.vote, truth[group as usize].1);
                }
            }
        }
    }
}

// fault: F6
// fault: F9
#[test]
fn damage_in_a_sealed_segment_is_found_when_read_and_repaired() {
    let vfs = MemVfs::new(9);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    for index in 0..200 {
        append(&log, vec![entry(index, 1, 1000)]);
    }
    drop(node);
    let path = segments(&vfs)[0].clone();
    let bytes = vfs.bytes(&path).expect("there");
    let blocks = scan(&bytes, 1, ID.cluster).blocks;
    let victim = blocks.iter().find(|seen| seen.header.position.index == 5).expect("entry 5");
    assert!(vfs.flip_bit(&path, (victim.offset + HEADER_BYTES + 500) as u64, 3));
    let (node, recovery) = open(&vfs, small());
    assert_eq!(recovery.segments_scanned, 1, "sealed segments are not read");
    let log = node.group(1, 1, 1).expect("group");
    let report = node.scrub(1).expect("scrubbed");
    assert_eq!(report.damaged, vec![(log.key(), 5)]);
    assert!(matches!(log.read(5..6, 10), Err(Error::Damaged { group: 1, index: 5 })));
    assert!(!log.state().health.is_healthy());
    done(|callback| log.repair(vec![entry(5, 1, 1000)], callback)).expect("repaired");
    assert!(log.state().health.is_healthy());
    drop(node);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    assert_eq!(read_all(&log), entries(0..=199, 1, 1000));
    assert!(node.metrics().damaged_reads == 0);
}

// fault: F6
#[test]
fn a_damaged_footer_costs_a_scan_and_nothing_else() {
    let vfs = MemVfs::new(10);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    for index in 0..200 {
        append(&log, vec![entry(index, 1, 1000)]);
    }
    drop(node);
    let path = segments(&vfs)[1].clone();
    let len = vfs.bytes(&path).expect("there").len() as u64;
    for offset in [len - 1, len - 20, len - 60] {
        assert!(vfs.flip_bit(&path, offset, 0));
        let (node, recovery) = open(&vfs, small());
        assert_eq!(recovery.segments_scanned, 2, "offset {offset}");
        assert!(recovery.recovering.is_empty(), "{recovery:?}");
        let log = node.group(1, 1, 1).expect("group");
        assert_eq!(read_all(&log), entries(0..=199, 1, 1000));
        drop(node);
        assert!(vfs.flip_bit(&path, offset, 0));
    }
    assert!(vfs.flip_bit(&path, len - 1, 0));
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    done(|callback| log.purge_to(at(150, 1), callback)).expect("purged");
    for index in 0..=150 {
        assert_eq!(log.read_record(index).expect("kept"), entry(index, 1, 1000));
    }
}

/// A log of five entries whose third has a flipped bit at this offset of its block.
fn damaged_in_the_middle(offset: usize) -> MemVfs {
    let vfs = MemVfs::new(11);
    let (node, _) = open(&vfs, small());
    append(&node.group(1, 1, 1).expect("group"), entries(1..=5, 1, 200));
    drop(node);
    let path = segments(&vfs)[0].clone();
    let found = scan(&vfs.bytes(&path).expect("there"), 1, ID.cluster);
    let third = |header: &Header| header.kind == Kind::Entry && header.position.index == 3;
    let seen = found.blocks.iter().find(|seen| third(&seen.header)).expect("the third");
    assert!(vfs.flip_bit(&path, (seen.offset + offset) as u64, 1));
    vfs
}

// holds: ING-1 RAFT-1
// fault: F6
#[test]
fn cutting_damage_away_leaves_the_log_recovering_until_declared_whole() {
    type Cut = fn(&GroupLog) -> Result<(), Error>;
    let cuts: [(Cut, u64); 2] = [
        (|log| done(|callback| log.truncate_after(Some(2), callback)), 3),
        (|log| done(|callback| log.reset(at(9, 2), Some(2), callback)), 10),
    ];
    for (cut, next) in cuts {
        let vfs = damaged_in_the_middle(HEADER_BYTES + 1);
        let (node, recovery) = open(&vfs, small());
        let log = node.group(1, 1, 1).expect("group");
        assert!(recovery.recovering.contains_key(&log.key()));
        cut(&log).expect("cut");
        let unsure =
            Health::Recovering { missing: Vec::new(), tail_unknown: true, vote_lost: false };
        assert_eq!(log.state().health, unsure);
        append(&log, vec![entry(next, 3, 50)]);
        drop((log, node));
        // Read back from the blocks, then from the footer that the first opening wrote.
        for _ in 0..2 {
            let (node, _) = open(&vfs, unmarked());
            let log = node.group(1, 1, 1).expect("group");
            assert_eq!(log.state().health, unsure);
            assert_eq!(read_all(&log).last(), Some(&entry(next, 3, 50)));
        }
        let (node, _) = open(&vfs, small());
        let log = node.group(1, 1, 1).expect("group");
        done(|callback| log.declare_whole(callback)).expect("declared");
        assert_eq!(log.state().health, Health::Healthy);
        // Cuts of a whole log leave it whole.
        done(|callback| log.truncate_after(Some(next - 1), callback)).expect("cut");
        drop((log, node));
        let (node, recovery) = open(&vfs, small());
        assert!(recovery.recovering.is_empty(), "{recovery:?}");
        assert_eq!(node.group(1, 1, 1).expect("group").state().health, Health::Healthy);
    }
}

// fault: F6
#[test]
fn a_cut_behind_an_entry_of_unknown_term_is_refused() {
    // In its header: nothing is known of it but that it was there.
    let vfs = damaged_in_the_middle(20);
    let (node, _) = open(&vfs, small());
    let log = node.group(1, 1, 1).expect("group");
    let refused = done(|callback| log.truncate_after(Some(3), callback));
    assert!(matches!(refused, Err(Error::Damaged { group: 1, index: 3 })), "{refused:?}");
    assert_eq!(log.read(4..6, 1000).expect("not cut"), entries(4..=5, 1, 200));
    done(|callback| log.truncate_after(Some(4), callback)).expect("cut");
    assert_eq!(log.state().last.map(|last| last.index), Some(4));
}
