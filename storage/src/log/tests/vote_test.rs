//! A damaged page costs no replica its vote, and a vote that is lost is found lost.

use std::path::PathBuf;

use bytes::Bytes;

use super::kit::*;
use crate::log::block::{HEADER_BYTES, Header, Kind};
use crate::log::scan::scan;
use crate::log::{Health, NodeLog};
use crate::vfs::MemVfs;

const PAGE_BYTES: usize = 4096;
const BUSY: u32 = 1;
const IDLE: u32 = 2;

fn vote(node: &NodeLog, group: u32, vote: &[u8]) {
    let log = node.group(group, 1, 1).expect("group");
    done(|callback| log.save_vote(Bytes::copy_from_slice(vote), callback)).expect("saved");
}

/// One round for each entry, as under a load that never pauses: no idle mark is written.
fn load(node: &NodeLog, count: u64, bytes: usize) {
    let log = node.group(BUSY, 1, 1).expect("group");
    let first = log.state().last.map_or(1, |last| last.index + 1);
    for index in first..first + count {
        append(&log, vec![entry(index, 1, bytes)]);
    }
}

/// The segment as it is on the disk when the process is killed.
fn killed(vfs: &MemVfs, node: NodeLog) -> (PathBuf, Vec<u8>) {
    let path = segments(vfs)[0].clone();
    let bytes = vfs.bytes(&path).expect("there");
    vfs.kill();
    drop(node);
    (path, bytes)
}

fn open_image(path: &std::path::Path, bytes: Vec<u8>) -> NodeLog {
    let vfs = MemVfs::new(3);
    vfs.put(path, bytes);
    open(&vfs, unmarked()).0
}

// holds: RAFT-1
// fault: F6
#[test]
fn one_damaged_page_costs_no_idle_replica_its_vote() {
    // Small blocks: a page holds many. Larger ones: the last of a page reaches into the next.
    for payload_bytes in [40, 900, 1800] {
        let vfs = MemVfs::new(1);
        let (node, _) = open(&vfs, unmarked());
        vote(&node, IDLE, b"of term 7");
        load(&node, 36_000 / (HEADER_BYTES + payload_bytes) as u64, payload_bytes);
        let (path, bytes) = killed(&vfs, node);
        let blocks = scan(&bytes, 1, ID.cluster).blocks;
        let second = |header: &Header| header.kind == Kind::Vote && header.flags & 1 == 1;
        let behind = blocks.iter().rposition(|seen| second(&seen.header)).expect("a vote") + 1;
        let first = (blocks[behind].offset + 8).next_multiple_of(PAGE_BYTES);
        let last = blocks.last().expect("blocks").offset;
        let mut holes = 0;
        for page in (first..).step_by(PAGE_BYTES).take_while(|page| page + PAGE_BYTES < last) {
            let mut damaged = bytes.clone();
            damaged[page..page + PAGE_BYTES].fill(0);
            let inside =
                blocks.iter().filter(|seen| (page..page + PAGE_BYTES).contains(&seen.offset));
            holes += usize::from(inside.count() > 1);
            let node = open_image(&path, damaged);
            let state = node.group(IDLE, 1, 1).expect("group").state();
            assert_eq!(state.vote, Some(Bytes::from_static(b"of term 7")));
            assert!(!is_vote_lost(&state.health), "{payload_bytes}, page at {page}: {state:?}");
            let Health::Recovering { tail_unknown: true, .. } = state.health else {
                panic!("what the page held is not known: {state:?}");
            };
        }
        assert!(holes > 3, "{payload_bytes}: {holes}");
    }
}

// holds: RAFT-1
// fault: F6
#[test]
fn a_vote_that_is_lost_with_both_copies_is_found_lost_however_short_the_hole() {
    for ends_with_its_page in [true, false] {
        let vfs = MemVfs::new(2);
        let (node, _) = open(&vfs, unmarked());
        vote(&node, IDLE, b"an older");
        load(&node, 1, 40);
        let path = segments(&vfs)[0].clone();
        let end = scan(&vfs.bytes(&path).expect("there"), 1, ID.cluster).end;
        // So much that the first copy, eight bytes of vote, ends exactly with its page.
        let filler = PAGE_BYTES - (end + 2 * HEADER_BYTES + 8) % PAGE_BYTES;
        load(&node, 1, filler - if ends_with_its_page { 0 } else { 80 });
        vote(&node, IDLE, b"the last");
        load(&node, 8, 600);
        let (path, mut bytes) = killed(&vfs, node);
        let blocks = scan(&bytes, 1, ID.cluster).blocks;
        let votes: Vec<_> = blocks.iter().filter(|seen| seen.header.kind == Kind::Vote).collect();
        let copies = &votes[votes.len() - 2..];
        let length = copies[1].offset + HEADER_BYTES - copies[0].offset;
        assert_eq!(ends_with_its_page, length < 300, "{length}");
        let mut one = bytes.clone();
        for seen in copies {
            bytes[seen.offset..seen.offset + HEADER_BYTES].fill(0);
        }
        let node = open_image(&path, bytes);
        let health = node.group(IDLE, 1, 1).expect("group").state().health;
        assert!(is_vote_lost(&health), "{health:?}");
        // One copy is enough.
        one[copies[1].offset..copies[1].offset + HEADER_BYTES].fill(0);
        let state = open_image(&path, one).group(IDLE, 1, 1).expect("group").state();
        assert_eq!(state.vote, Some(Bytes::from_static(b"the last")));
        assert!(!is_vote_lost(&state.health), "{state:?}");
    }
}

/// Groups that vote and write in turns, over several segments and one restart.
fn elections(vfs: &MemVfs) -> Vec<Option<Bytes>> {
    for life in 0..2u8 {
        let (node, _) = open(vfs, unmarked());
        for round in 0..12u8 {
            for group in [3, 4, 5].into_iter().filter(|group| (round as u32).is_multiple_of(*group))
            {
                vote(&node, group, &[life, round, group as u8]);
            }
            load(&node, 4, 300 * usize::from(round % 4));
        }
        load(&node, 20, 500);
        for group in [3, 4, 5] {
            vote(&node, group, &[life, 99, group as u8]);
        }
        load(&node, 20, 500);
        vfs.kill();
        drop(node);
    }
    let (node, _) = open(vfs, unmarked());
    [3, 4, 5].map(|group| node.group(group, 1, 1).expect("group").state().vote).to_vec()
}

// holds: RAFT-1
// fault: F6
#[test]
fn damaged_pages_lose_no_vote_alone_and_none_silently_together() {
    let vfs = MemVfs::new(4);
    let truth = elections(&vfs);
    let images: Vec<_> = segments(&vfs)
        .into_iter()
        .map(|path| (path.clone(), vfs.bytes(&path).expect("there")))
        .collect();
    let mut lost = 0;
    for (path, bytes) in &images {
        // The evidence that a round was synced lies behind it: the last pages are a tail.
        let number = u64::from_le_bytes(bytes[16..24].try_into().expect("8 bytes"));
        let end = scan(bytes, number, ID.cluster).end.saturating_sub(2 * PAGE_BYTES);
        for page in (0..end).step_by(PAGE_BYTES) {
            for pages in [1, 2, 3] {
                let copy = MemVfs::new(5);
                for (path, bytes) in &images {
                    copy.put(path, bytes.clone());
                }
                let mut damaged = bytes.clone();
                let to = (page + pages * PAGE_BYTES).min(end);
                damaged[page..to].fill(0);
                // Without its footer an older segment is read in full.
                if let Some(last) = damaged.last_mut() {
                    *last ^= 1;
                }
                copy.put(path, damaged);
                let (node, _) = open(&copy, unmarked());
                for (group, vote) in [3, 4, 5].into_iter().zip(&truth) {
                    let state = node.group(group, 1, 1).expect("group").state();
                    let is_lost = is_vote_lost(&state.health);
                    assert!(is_lost || state.vote == *vote, "segment {number}, page at {page}");
                    assert!(!is_lost || pages > 1, "segment {number}, page at {page}");
                    lost += u32::from(is_lost);
                }
            }
        }
    }
    assert!(lost > 0, "two pages take a vote");
}
