//! A group's log as openraft wants it, over the node's log or its in-memory twin.
//!
//! Durability: `save_vote` returns after fsync; `append` returns once the entries are readable and
//! reports the fsync through `IOFlushed`; `save_committed` and `purge` are not synced.

mod raft;

pub(crate) use dtm_logs::LeftWriter;
pub use dtm_logs::{
    Flushed, Forebear, IndexRange, LeftCommand, LeftFile, LeftHead, LeftStream, LeftSummary,
    Lineage, LogDamage, LogEntry, LogError, LogMarks, LogPosition, LogProvider, MemoryLog,
    MemoryLogs, NodeLogs, ReplicaLog, Scrubbed,
};
pub(crate) use raft::{LogStore, READ_BYTES_MAX, wait_flushed, wait_for_disk};
