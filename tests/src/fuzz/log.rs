//! A segment of the log, changed anywhere: it opens or says why not, and what it gives back is what
//! was written.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dtm_storage::log::{Callback, Error, LogConfig, LogEntry, LogIdentity, NodeLog};
use dtm_storage::vfs::{MemVfs, Vfs};

const ID: LogIdentity = LogIdentity { cluster: 0xC1, node: 0xA0DE };
const FOLDER: &str = "/log";
const ENTRIES: u64 = 12;
/// Bytes of one edit in the input: offset, what is xored.
const EDIT_BYTES: usize = 4;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 32 << 10,
        round_bytes_max: 16 << 10,
        queue_bytes_max: 64 << 10,
        disk_reserve_bytes: 0,
        idle_mark_ms: 3_600_000,
        short_slice: false,
        ..LogConfig::default()
    }
}

fn entry(index: u64) -> LogEntry {
    let payload = Bytes::from(vec![index as u8; 40 + index as usize * 17]);
    LogEntry { index, term: 1, leader: 7, payload }
}

fn wait(call: impl FnOnce(Callback) -> Result<(), Error>) {
    let (sender, receiver) = sync_channel(1);
    call(Box::new(move |done| sender.send(done).expect("it is waited for")))
        .expect("the log takes it");
    let done = receiver.recv_timeout(Duration::from_secs(20)).expect("the log answers");
    done.expect("the disk is whole");
}

/// Name and bytes of the segment that every input changes.
fn segment() -> &'static (String, Vec<u8>) {
    static SEGMENT: OnceLock<(String, Vec<u8>)> = OnceLock::new();
    SEGMENT.get_or_init(|| {
        let disk = MemVfs::new(1);
        let folder = Path::new(FOLDER);
        let opened = NodeLog::open(Arc::new(disk.clone()), folder, config(), ID);
        let (log, _) = opened.expect("an empty folder opens");
        let group = log.group(1, 1, 1).expect("a new replica");
        wait(|done| group.save_vote(Bytes::from_static(b"vote"), done));
        for index in 0..ENTRIES {
            wait(|done| group.append(vec![entry(index)], done));
        }
        drop(log);
        let names = disk.list(folder).expect("listed");
        let name = names.into_iter().find(|name| name.starts_with("seg-")).expect("a segment");
        let bytes = disk.bytes(&folder.join(&name)).expect("there");
        (name, bytes)
    })
}

/// The first byte says how the rest is read: edits of a true segment, a true segment cut off, or
/// the segment itself.
pub(super) fn open(input: &[u8]) {
    let (name, whole) = segment();
    let Some((how, rest)) = input.split_first() else {
        return;
    };
    let bytes = match how % 3 {
        0 => edited(whole, rest),
        1 => whole[..cut(rest) % whole.len()].to_vec(),
        _ => rest.to_vec(),
    };
    let disk = MemVfs::new(1);
    let folder = Path::new(FOLDER);
    disk.put(&folder.join(name), bytes);
    let Ok((log, _)) = NodeLog::open(Arc::new(disk), folder, config(), ID) else {
        return;
    };
    let Ok(group) = log.group(1, 1, 1) else {
        return;
    };
    let state = group.state();
    for index in 0..=state.last.map_or(0, |last| last.index).min(2 * ENTRIES) {
        for found in group.read(index..index + 1, usize::MAX).unwrap_or_default() {
            assert_eq!(found, entry(found.index), "damage is never served");
        }
        if let Ok(found) = group.read_record(index) {
            assert_eq!(found, entry(index), "damage is never served");
        }
    }
    if let Some(vote) = state.vote {
        assert_eq!(&vote[..], b"vote", "a damaged vote is none");
    }
}

fn cut(input: &[u8]) -> usize {
    input.iter().take(3).fold(0, |at, byte| at * 256 + usize::from(*byte))
}

fn edited(whole: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for edit in edits.chunks_exact(EDIT_BYTES) {
        // Most of a segment is empty: edits fall on what was written.
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len().min(8 << 10);
        bytes[at] ^= edit[2];
    }
    bytes
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let (_, whole) = segment();
    let written = whole.len().min(8 << 10);
    vec![
        vec![0, 0, 40, 1, 0],
        vec![0, 16, 100, 255, 0, 17, 1, 3, 0],
        vec![1, 4, 0],
        [&[2], &whole[..written]].concat(),
    ]
}
