//! What the tests share: a small log, entries, callbacks that can be waited for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;

use crate::log::{
    Callback, Error, GroupLog, Health, LogConfig, LogEntry, LogIdentity, LogPosition, NodeLog,
    Recovery,
};
use crate::vfs::MemVfs;

pub(super) const ID: LogIdentity = LogIdentity { cluster: 0xC1, node: 0xA0DE };

/// Small segments, so that tests meet many.
pub(super) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        round_bytes_max: 16 << 10,
        queue_bytes_max: 64 << 10,
        cache_bytes_max: 32 << 10,
        disk_reserve_bytes: 0,
        idle_mark_ms: 2,
        open_files_max: 4,
        short_slice: false,
        ..LogConfig::default()
    }
}

/// No idle marks: the last round stays without proof, as after a power cut.
pub(super) fn unmarked() -> LogConfig {
    LogConfig { idle_mark_ms: 3_600_000, ..small() }
}

pub(super) fn dir() -> PathBuf {
    PathBuf::from("/log")
}

pub(super) fn open(vfs: &MemVfs, cfg: LogConfig) -> (NodeLog, Recovery) {
    NodeLog::open(Arc::new(vfs.clone()), &dir(), cfg, ID).expect("opens")
}

/// A callback and where its answer arrives.
pub(super) fn waiter() -> (Callback, Receiver<Result<(), Error>>) {
    let (sender, receiver) = sync_channel(1);
    let tell = move |result| {
        // A test that no longer waits is fine.
        let _ = sender.send(result);
    };
    (Box::new(tell), receiver)
}

pub(super) fn wait(receiver: &Receiver<Result<(), Error>>) -> Result<(), Error> {
    receiver.recv_timeout(Duration::from_secs(20)).expect("the log answers")
}

/// Runs one call of the log to its callback.
pub(super) fn done(call: impl FnOnce(Callback) -> Result<(), Error>) -> Result<(), Error> {
    let (callback, receiver) = waiter();
    call(callback)?;
    wait(&receiver)
}

pub(super) fn entry(index: u64, term: u64, bytes: usize) -> LogEntry {
    let payload: Vec<u8> =
        (0..bytes).map(|at| (at as u64 * 31 + index * 7 + term * 13) as u8).collect();
    LogEntry { index, term, leader: term * 10, payload: Bytes::from(payload) }
}

pub(super) fn entries(
    range: std::ops::RangeInclusive<u64>,
    term: u64,
    bytes: usize,
) -> Vec<LogEntry> {
    range.map(|index| entry(index, term, bytes)).collect()
}

pub(super) fn append(log: &GroupLog, list: Vec<LogEntry>) {
    done(|callback| log.append(list, callback)).expect("appended");
}

pub(super) fn at(index: u64, term: u64) -> LogPosition {
    LogPosition { index, term, leader: term * 10 }
}

pub(super) fn read_all(log: &GroupLog) -> Vec<LogEntry> {
    log.read(0..u64::MAX, usize::MAX).expect("readable")
}

/// Paths of the segments on the disk, oldest first.
pub(super) fn segments(vfs: &MemVfs) -> Vec<PathBuf> {
    use crate::vfs::Vfs;
    let names = vfs.list(&dir()).expect("listed");
    names
        .iter()
        .filter(|name| name.starts_with("seg-"))
        .map(|name| Path::new("/log").join(name))
        .collect()
}

/// Waits until the spare segment stands ready, so that the next sync is a round's.
pub(super) fn settle(vfs: &MemVfs) {
    for _ in 0..500 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        if segments(vfs).len() > 1 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            return;
        }
    }
    panic!("no spare segment was made");
}

pub(super) fn is_vote_lost(health: &Health) -> bool {
    matches!(health, Health::Recovering { vote_lost: true, .. })
}
