//! What can go wrong with the node's log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dtm_types::{ClusterId, NodeId};

/// Why the log of this node stopped. The first reason is kept for the life of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopReason {
    /// What was being done: `write`, `sync`, `seal`, …
    pub doing: &'static str,
    /// The error of the operating system, in words.
    pub cause: Arc<str>,
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed: {}", self.doing, self.cause)
    }
}

/// Errors of the node's log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The fail-stop latch is set: nothing is written any more, acknowledged data is on disk as
    /// far as it was acknowledged. Only a restart helps.
    #[error("the log of this node has stopped: {reason}")]
    Stopped {
        /// The first failure.
        reason: StopReason,
    },
    /// No room for another segment above the reserve. Nothing was written; the log goes on
    /// working and takes appends again when there is room.
    #[error(
        "the disk of the log is full: {needed_bytes} bytes asked, {free_bytes} free above the reserve"
    )]
    DiskFull {
        /// Bytes the append needs on disk.
        needed_bytes: u64,
        /// Bytes that were left.
        free_bytes: u64,
    },
    /// A stored block fails its checksum or is not what its place says. Never data.
    #[error("damaged block of group {group} at index {index}")]
    Damaged {
        /// The group.
        group: u32,
        /// The Raft index that cannot be read.
        index: u64,
    },
    /// The index is not in this log (any more).
    #[error("group {group} holds no entry {index}")]
    NotFound {
        /// The group.
        group: u32,
        /// The Raft index asked for.
        index: u64,
    },
    /// A payload is larger than a block may be.
    #[error("payload of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// This log holds as many replicas as a node may.
    #[error("this node holds {replicas_max} replicas, which is the most")]
    TooManyReplicas {
        /// The limit.
        replicas_max: usize,
    },
    /// The folder holds the log of another cluster or node.
    #[error("{path} belongs to cluster {}, node {}", ClusterId(.cluster.to_be_bytes()), NodeId(.node.to_be_bytes()))]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// Cluster found.
        cluster: u128,
        /// Node found.
        node: u128,
    },
    /// A file was written by a newer version, or is no segment at all.
    #[error("{path} has format version {found}, this build reads {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u8,
        /// Version this build knows.
        known: u8,
    },
    /// Another process holds the folder.
    #[error("the log folder {path} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The group was dropped or its replica replaced.
    #[error("replica {replica} of group {group} was dropped from this log")]
    Dropped {
        /// The group.
        group: u32,
        /// The replica.
        replica: u64,
    },
    /// Reading or opening failed.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: Arc<io::Error>,
    },
}

impl Error {
    /// True when the same call may succeed later on this node.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }

    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source: Arc::new(source) }
    }
}
