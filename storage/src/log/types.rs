//! The words of the log: who, where, what, how much.

use std::fmt;

use bytes::Bytes;

use super::error::Error;

/// One replica of one group in one life of the cluster. The log of each is separate for ever:
/// a replica id is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaKey {
    /// Raft group.
    pub group: u32,
    /// Which life of the cluster.
    pub incarnation: u64,
    /// Replica id, unique in the group for ever.
    pub replica: u64,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group, self.incarnation, self.replica)
    }
}

/// A Raft log id, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPosition {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// Replica that led the term.
    pub leader: u64,
}

/// A Raft entry; the payload is opaque to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// Replica that led the term.
    pub leader: u64,
    /// The bytes, never copied on their way to the disk.
    pub payload: Bytes,
}

impl LogEntry {
    /// Where the entry stands.
    pub fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term, leader: self.leader }
    }
}

/// Indexes `from..=to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRange {
    /// First index.
    pub from: u64,
    /// Last index, inclusive.
    pub to: u64,
}

/// Whether a replica may vote, lead and serve.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// Everything that was acknowledged is readable.
    #[default]
    Healthy,
    /// Something acknowledged cannot be read: the replica neither votes nor leads until repaired.
    Recovering {
        /// Entries above the purge mark that must be fetched from a peer, ascending.
        missing: Vec<IndexRange>,
        /// More entries may have followed the last known one: ask the peers, then
        /// `GroupLog::declare_whole`.
        tail_unknown: bool,
        /// Both copies of a vote are gone: only a new replica id helps.
        vote_lost: bool,
    },
}

impl Health {
    /// True when nothing is missing.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }
}

/// Called on the writer thread, in the order of the calls: must be cheap and must not block.
pub type Callback = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Whose log this is; written into each segment and checked at each opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    /// Cluster id.
    pub cluster: u128,
    /// Node id.
    pub node: u128,
}

/// How the space of a new segment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefill {
    /// `fallocate` only: no device bytes before the data (measured choice, ADR 0001).
    #[default]
    Allocate,
    /// Zeros are written and synced first: cheaper syncs on some file systems, twice the bytes.
    Zero,
}

/// Bounds and habits of the log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Size of a segment file. Payloads are at most a quarter of it.
    pub segment_bytes: u64,
    /// What one write and one sync gather at most (a larger single block is its own round).
    pub round_bytes_max: usize,
    /// Bytes queued for the writer; beyond it `ready` waits and `append` blocks.
    pub queue_bytes_max: usize,
    /// Payload bytes kept in memory for reading, besides what is not yet written.
    pub cache_bytes_max: usize,
    /// Free disk space that appends never touch.
    pub disk_reserve_bytes: u64,
    /// After this long without work the log proves on disk that its last round was synced.
    pub idle_mark_ms: u64,
    /// Segment files kept open for reading.
    pub open_files_max: usize,
    /// How segment space is made.
    pub prefill: Prefill,
    /// Ask the scheduler for a short slice for the writer thread (ignored where refused).
    pub short_slice: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            round_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            cache_bytes_max: 128 << 20,
            disk_reserve_bytes: 256 << 20,
            idle_mark_ms: 20,
            open_files_max: 128,
            prefill: Prefill::Allocate,
            short_slice: true,
        }
    }
}

impl LogConfig {
    /// Largest payload of one block.
    pub fn payload_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes / 4).expect("segments are far below the address space")
    }

    pub(super) fn check(&self) {
        assert!(self.segment_bytes >= 32 << 10, "a segment holds its checkpoints and some blocks");
        assert!(self.segment_bytes <= 2 << 30, "offsets in a segment are 32 bits");
        assert!(self.round_bytes_max >= 4096 && self.queue_bytes_max >= self.round_bytes_max);
    }
}
