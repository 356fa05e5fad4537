//! A torn tail is cut, at whatever byte, and never comes back.

use bytes::Bytes;

use super::kit::*;
use crate::log::Health;
use crate::vfs::MemVfs;

/// A log of one segment whose last append begins and ends at the offsets answered.
fn log_with_last_round() -> (Vec<u8>, std::path::PathBuf, usize, usize) {
    let vfs = MemVfs::new(1);
    let (node, _) = open(&vfs, unmarked());
    let log = node.group(1, 1, 1).expect("group");
    append(&log, entries(0..=3, 1, 200));
    done(|callback| log.save_vote(Bytes::from_static(b"vote"), callback)).expect("saved");
    let path = segments(&vfs)[0].clone();
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).expect("written") + 1;
    let before = end(&vfs.bytes(&path).expect("there"));
    append(&log, entries(4..=6, 1, 200));
    let bytes = vfs.bytes(&path).expect("there");
    let after = end(&bytes);
    vfs.kill();
    (bytes, path, before, after)
}

// fault: F5
#[test]
fn a_tail_torn_at_any_byte_is_cut_and_never_resurrected() {
    let (whole, path, before, after) = log_with_last_round();
    for (fill, step) in [(0u8, 1), (0xA5, 7)] {
        for cut in (before..after).step_by(step) {
            let vfs = MemVfs::new(2);
            let mut bytes = whole.clone();
            bytes[cut..after].fill(fill);
            vfs.put(&path, bytes);
            let (node, recovery) = open(&vfs, unmarked());
            assert!(recovery.recovering.is_empty(), "cut at {cut}: {recovery:?}");
            let log = node.group(1, 1, 1).expect("group");
            let kept = read_all(&log);
            assert!(kept.len() >= 4 && kept.len() < 7, "cut at {cut}: {} kept", kept.len());
            assert_eq!(kept, entries(0..=6, 1, 200)[..kept.len()]);
            assert_eq!(log.state().vote, Some(Bytes::from_static(b"vote")));
            // Other entries take the place; the old ones stay gone.
            let next = kept.len() as u64;
            append(&log, entries(next..=next, 2, 20));
            drop(node);
            let (node, recovery) = open(&vfs, unmarked());
            assert_eq!(recovery.torn_bytes, 0);
            let log = node.group(1, 1, 1).expect("group");
            assert_eq!(log.state().last, Some(at(next, 2)));
            assert_eq!(read_all(&log)[kept.len()..], entries(next..=next, 2, 20));
        }
    }
}

// fault: F5
#[test]
fn a_hole_in_the_last_round_is_a_torn_tail_even_with_whole_blocks_behind() {
    let (whole, path, before, _) = log_with_last_round();
    let vfs = MemVfs::new(3);
    let mut bytes = whole;
    bytes[before + 4] ^= 0xFF;
    vfs.put(&path, bytes);
    let (node, recovery) = open(&vfs, unmarked());
    assert!(recovery.recovering.is_empty() && recovery.torn_bytes > 0, "{recovery:?}");
    let log = node.group(1, 1, 1).expect("group");
    assert_eq!(read_all(&log), entries(0..=3, 1, 200));
    assert_eq!(log.state().health, Health::Healthy);
}

#[test]
fn the_last_round_is_rewritten_before_it_counts() {
    // After a failed sync the kernel shows bytes that are not on the disk and calls them clean.
    let vfs = MemVfs::new(4);
    let (node, _) = open(&vfs, unmarked());
    let log = node.group(1, 1, 1).expect("group");
    append(&log, entries(0..=0, 1, 100));
    settle(&vfs);
    vfs.set_faults(crate::vfs::Faults { sync_error_after: Some(0), ..Default::default() });
    let result = done(|callback| log.append(entries(1..=1, 1, 100), callback));
    assert!(result.is_err());
    assert_eq!(vfs.counts().sync_errors, 1);
    vfs.kill();
    drop(node);
    let (node, _) = open(&vfs, unmarked());
    let log = node.group(1, 1, 1).expect("group");
    let seen = read_all(&log);
    vfs.crash(0);
    drop(node);
    let (node, _) = open(&vfs, unmarked());
    let log = node.group(1, 1, 1).expect("group");
    assert_eq!(read_all(&log), seen, "what a reopened log showed is on disk");
}
