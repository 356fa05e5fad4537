//! Where the payload lies: the bundles of a group by log index, for as long as they are retained.

use bytes::Bytes;

/// Reads bundles that were committed.
pub trait RecordStore: Send + Sync {
    /// The bundle at a log index, verified against its checksum before it is returned. Blocking
    /// (a disk read in the worst case): call it from a blocking thread.
    fn bundle(&self, index: u64) -> Result<Bytes, RecordError>;
}

/// Why a bundle cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Never written, or its segment was retired by retention.
    #[error("log index {0} is not held")]
    NotHeld(u64),
    /// It must be here and is not, and no other replica gave it in time: ask again later.
    #[error("log index {0} is missing here and no other replica gave it in time")]
    Missing(u64),
    /// The checksum does not match: never served.
    #[error("log index {index} is damaged: {cause}")]
    Damaged {
        /// The log index.
        index: u64,
        /// Segment and offset.
        cause: String,
    },
    /// The disk refused to read.
    #[error("log index {index} cannot be read: {cause}")]
    Io {
        /// The log index.
        index: u64,
        /// In words.
        cause: String,
    },
}
