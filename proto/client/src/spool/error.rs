//! What can go wrong with a spool.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// Failures of a spool.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk said no.
    #[error("spool file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Another process uses the folder.
    #[error("spool folder {path} is in use by another process")]
    Locked {
        /// The folder.
        path: String,
    },
    /// Bytes that were taken do not read any more.
    #[error("spool file {path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// No room: nothing was taken.
    #[error(
        "the spool is full: {bytes} bytes, spool_bytes_max = {spool_bytes_max}{}", waits(.site_bytes)
    )]
    Full {
        /// Bytes on disk.
        bytes: u64,
        /// Of those, of records that are acked and wait until the standby has them.
        site_bytes: u64,
        /// The limit.
        spool_bytes_max: u64,
    },
    /// The disk failed before; the spool takes nothing until it is opened anew.
    #[error("the spool stopped after a failed write: {reason}")]
    Stopped {
        /// The first failure.
        reason: String,
    },
    /// A block over 4 GiB.
    #[error("a block of {bytes} bytes is too long")]
    TooLong {
        /// Its size.
        bytes: u64,
    },
}

fn waits(site_bytes: &u64) -> String {
    match site_bytes {
        0 => String::new(),
        _ => format!(", {site_bytes} of them acked and waiting for the standby"),
    }
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source: Arc::new(source) }
    }

    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Locked { .. })
    }
}
