//! The log of one replica: what it promises, over the node's log and as its in-memory twin.
//!
//! Durability: what was asked for is on disk when its `flushed` runs; entries are readable before.

mod left;
mod lineage;
mod memory;
mod node;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dtm_types::{GroupId, ReplicaId};
use futures::future::BoxFuture;

pub use left::{LeftCommand, LeftFile, LeftHead, LeftStream, LeftSummary, LeftWriter};
pub use lineage::{Forebear, Lineage};
pub use memory::{MemoryLog, MemoryLogs};
pub use node::NodeLogs;

/// A Raft log id, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// Replica that led the term.
    pub leader: u64,
}

impl LogPosition {
    /// Where an entry stands.
    pub fn of(entry: &LogEntry) -> Self {
        Self { index: entry.index, term: entry.term, leader: entry.leader }
    }
}

/// A Raft entry; the payload is opaque to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// Replica that led the term.
    pub leader: u64,
    /// The bytes.
    pub payload: Bytes,
}

/// Indexes `from..=to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    /// First index.
    pub from: u64,
    /// Last index, inclusive.
    pub to: u64,
}

/// What a damaged log cannot show any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDamage {
    /// Entries above the purge mark, ascending.
    pub missing: Vec<IndexRange>,
    /// More entries may have followed the last known one.
    pub tail_unknown: bool,
    /// Both copies of a vote are gone.
    pub vote_lost: bool,
}

impl std::fmt::Display for LogDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} damaged ranges", self.missing.len())?;
        if let Some(first) = self.missing.first() {
            write!(f, " from index {}", first.from)?;
        }
        if self.tail_unknown {
            write!(f, ", tail unknown")?;
        }
        if self.vote_lost {
            write!(f, ", vote lost")?;
        }
        Ok(())
    }
}

/// Where a log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogMarks {
    /// Last vote saved.
    pub vote: Option<Bytes>,
    /// Last committed log id saved; may lag after a crash.
    pub committed: Option<Bytes>,
    /// Everything at or below is gone for Raft (the record store may still hold it).
    pub purged: Option<LogPosition>,
    /// Last entry, or the purge mark when nothing is above it.
    pub last: Option<LogPosition>,
    /// What keeps the replica from voting and leading, where something does.
    pub recovering: Option<LogDamage>,
}

/// Called once the request is on disk, on the log's writer thread: cheap, never blocks.
pub type Flushed = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Why the log did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The fail-stop latch of the node's log fell: only a restart helps.
    #[error("the log of this node has stopped: {0}")]
    Stopped(String),
    /// No room above the reserve. Nothing was written.
    #[error("the disk of the log is full")]
    DiskFull,
    /// A stored block is damaged: never served.
    #[error("log index {0} is damaged")]
    Damaged(u64),
    /// Not in this log (any more).
    #[error("log index {0} is not held")]
    NotFound(u64),
    /// Anything else the engine said.
    #[error("log: {0}")]
    Engine(String),
}

/// The log of one replica. Entries are readable as soon as `append` returns.
pub trait ReplicaLog: Send + Sync + 'static {
    /// Where the log stands.
    fn marks(&self) -> LogMarks;

    /// Largest payload of one entry, bytes.
    fn payload_bytes_max(&self) -> usize;

    /// Waits until the log takes `bytes` more. Cancel-safe.
    fn ready(&self, bytes: usize) -> BoxFuture<'_, Result<(), LogError>>;

    /// Appends entries without holes; `flushed` runs after fsync, in the order of the calls. Here
    /// and below: on `Err` nothing was changed and `flushed` never runs.
    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError>;

    /// Saves a vote; `flushed` runs after fsync.
    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError>;

    /// Remembers the committed log id, without an fsync of its own.
    fn save_committed(&self, committed: Bytes);

    /// Keeps entries up to the index; `None` keeps nothing above the purge mark. `Damaged` when it is
    /// not known what the index held.
    fn truncate_after(&self, last: Option<u64>, flushed: Flushed) -> Result<(), LogError>;

    /// Forgets entries up to the position for Raft; the record store keeps them.
    fn purge_to(&self, position: LogPosition) -> Result<(), LogError>;

    /// Starts anew above the position: a snapshot through it was installed. What was applied before
    /// (`visible_through`) stays readable as records, what lies above is hidden.
    fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        flushed: Flushed,
    ) -> Result<(), LogError>;

    /// Entries of the range that are held, without holes, as the log is at one moment, at most
    /// `bytes_max` bytes but at least one.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError>;

    /// One entry, also below the purge mark: the log's segments are the record store. Blocking.
    fn read_record(&self, index: u64) -> Result<LogEntry, LogError>;

    /// Stores entries of a snapshot below the purge mark, or fills damaged places above it;
    /// `flushed` runs after fsync.
    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError>;

    /// Which of the indexes `1..=through` are held nowhere, without reading payloads. Blocking.
    fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, LogError>;

    /// After the peers were asked: nothing is missing behind the last entry.
    fn declare_whole(&self, flushed: Flushed) -> Result<(), LogError>;

    /// Entries up to here need not stay in memory: applied here and replicated.
    fn release(&self, through: u64);
}

/// What reading a segment through found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// Damaged blocks by replica and index.
    pub damaged: Vec<(GroupId, ReplicaId, u64)>,
}

/// Opens the logs of a node's replicas.
pub trait LogProvider: Send + Sync + 'static {
    /// The log of a replica, made when there is none.
    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError>;

    /// Replicas found here, ascending by group.
    fn replicas(&self) -> Vec<(GroupId, ReplicaId)>;

    /// Forgets a replica for ever, its records included.
    fn drop_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), LogError>;

    /// Segments that no longer change, ascending.
    fn segments(&self) -> Vec<u64>;

    /// Reads and checks every block of a segment. Damage above a purge mark makes its replica
    /// recovering. Blocking.
    fn scrub(&self, segment: u64) -> Result<Scrubbed, LogError>;

    /// Why the log stopped, if it did: the first reason.
    fn stopped(&self) -> Option<String>;
}
