//! The way into a group: commands go in, outcomes come back once they are committed and applied.

use bytes::Bytes;
use dtm_types::command::Outcome;
use dtm_types::{ErrorCode, GroupId};

/// Called exactly once with what became of a command. Cheap: it runs on the apply path.
pub type Reply = Box<dyn FnOnce(Result<Outcome, ProposeError>) + Send>;

/// Accepts commands for a group.
pub trait Proposer: Send + Sync {
    /// Queues one encoded [`Command`](dtm_types::command::Command) and returns at once.
    ///
    /// Commands that one caller proposes to one group are applied in the order of the calls, or not
    /// at all: after a failed one, later ones may still be applied (apply's sequence check, not the
    /// queue, keeps a stream's order). `reply` gets `Ok` only after the entry is on disk on a
    /// majority of the group's voters and applied on the leader.
    fn propose(&self, group: GroupId, command: Bytes, reply: Reply);
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written; another node leads (its gRPC address, where known).
    #[error("group {group} is led elsewhere{}", leader.as_ref().map(|l| format!(": {l}")).unwrap_or_default())]
    NotLeader {
        /// The group.
        group: GroupId,
        /// gRPC address of the leader.
        leader: Option<String>,
    },
    /// Nothing was written: no quorum, no leader, or the node is leaving.
    #[error("group {group} is unavailable: {cause}")]
    Unavailable {
        /// The group.
        group: GroupId,
        /// In words.
        cause: String,
    },
    /// Nothing was written: a queue is full.
    #[error("group {group} is overloaded, retry after {retry_after_ms} ms")]
    Overloaded {
        /// The group.
        group: GroupId,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// It may have been committed or not. Never reported as a failure.
    #[error("outcome in group {group} is unknown: {cause}")]
    OutcomeUnknown {
        /// The group.
        group: GroupId,
        /// In words.
        cause: String,
    },
    /// Nothing was written: the disk is full.
    #[error("disk of the leader of group {group} is full")]
    DiskFull {
        /// The group.
        group: GroupId,
    },
    /// Nothing was written: the command holds what the group, or the software that was asked, is not
    /// raised to.
    #[error("{cause}")]
    NotSupported {
        /// The group.
        group: GroupId,
        /// In words, with the group.
        cause: String,
    },
    /// Nothing was written, and never will be: no log would hold the command.
    #[error(
        "a command of {bytes} bytes for group {group} is above the {bytes_max} that a log takes"
    )]
    TooLarge {
        /// The group.
        group: GroupId,
        /// Bytes of the command.
        bytes: usize,
        /// The most.
        bytes_max: usize,
    },
    /// The node's fail-stop latch fell.
    #[error("node stopped: {reason}")]
    Stopped {
        /// The first reason.
        reason: String,
    },
}

impl ProposeError {
    /// The code a caller sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader { .. } => ErrorCode::NotLeader,
            Self::Unavailable { .. } => ErrorCode::Unavailable,
            Self::Overloaded { .. } => ErrorCode::Overloaded,
            Self::OutcomeUnknown { .. } => ErrorCode::OutcomeUnknown,
            Self::DiskFull { .. } => ErrorCode::DiskFull,
            Self::NotSupported { .. } => ErrorCode::NotSupported,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Stopped { .. } => ErrorCode::NodeStopped,
        }
    }

    /// Whether trying again may help, elsewhere or later. All but a command of a later version
    /// and one that is too large.
    pub fn retryable(&self) -> bool {
        self.code().retryable()
    }
}
