//! Why an agent ends.

use crate::{publish, spool};

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// The cluster said no for good.
    #[error(transparent)]
    Client(#[from] crate::Error),
    /// The input.
    #[error(transparent)]
    Input(#[from] publish::Error),
    /// The folder that is watched.
    #[error("folder {folder}: {reason}")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        reason: String,
    },
    /// The spool is another agent's: its records would go under a name that is not theirs.
    #[error("spool {spool} is for {what} {noted}, not {given}")]
    OtherOwner {
        /// The folder of the spool.
        spool: String,
        /// `cluster`, `source`, `dataset`, `stream` or `input`.
        what: &'static str,
        /// What it is for.
        noted: String,
        /// What was asked for.
        given: String,
    },
    /// The cluster lost what it had acked and the spool does not hold it any more.
    #[error("the cluster no longer holds {from} to {to} of stream {stream}, nor does the spool")]
    Loss {
        /// The stream.
        stream: String,
        /// First lost sequence.
        from: u64,
        /// Last lost sequence.
        to: u64,
    },
    /// A part of the agent ended by a fault of the software.
    #[error("the agent's reader ended without a word")]
    Reader,
}
