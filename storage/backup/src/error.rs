//! Why a backup cannot be written, read or continued.

use std::io;

use dtm_types::{BackupId, GroupId};

/// Why. Each message names the backup and the file, and what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The target failed.
    #[error("{what} {backup}/{file} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The folder of the backup.
        backup: String,
        /// The file; empty = the folder itself.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Bytes are not those that were written.
    #[error(
        "backup {backup} is damaged: file {file}, between bytes {from} and {to}: {what}; take another \
         copy of this file, or another backup"
    )]
    Damaged {
        /// The folder of the backup.
        backup: String,
        /// The file.
        file: String,
        /// First byte of the part that does not hold, from 0.
        from: u64,
        /// The byte after it.
        to: u64,
        /// What was seen.
        what: &'static str,
    },
    /// A file that the manifest names is not there.
    #[error(
        "backup {backup} lacks file {file}, which its manifest names: take it from another copy"
    )]
    FileMissing {
        /// The folder of the backup.
        backup: String,
        /// The file.
        file: String,
    },
    /// No manifest: it was never completed.
    #[error("{backup} is no backup: it has no manifest, so it was never completed")]
    Unfinished {
        /// The folder.
        backup: String,
    },
    /// The format is of a newer version.
    #[error("backup {backup} is of version {version}, which this build does not know: upgrade dtm")]
    Version {
        /// The folder of the backup.
        backup: String,
        /// Its version.
        version: u32,
    },
    /// Checksums hold and the seal does not: another key, or somebody changed it on purpose.
    #[error(
        "backup {backup}: file {file} does not open under its key: the key is another one, or the file \
         was altered on purpose"
    )]
    WrongKey {
        /// The folder of the backup.
        backup: String,
        /// The file.
        file: String,
    },
    /// The target holds no such backup.
    #[error("there is no backup {0} here")]
    Unknown(String),
    /// The target holds no backup at all.
    #[error("there is no backup here")]
    Empty,
    /// A backup continues one that is not here, or is not the one that it continued.
    #[error("backup {backup} continues {parent}: {what}")]
    Chain {
        /// The later one.
        backup: BackupId,
        /// The one before.
        parent: BackupId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What the backups of a chain hold of a group does not join.
    #[error(
        "backup {backup} begins group {group} at entry {found}, the one before ends at {expected}"
    )]
    Gap {
        /// The later one.
        backup: BackupId,
        /// The group.
        group: GroupId,
        /// Where it begins.
        found: u64,
        /// Last entry of the one before.
        expected: u64,
    },
    /// The moment lies behind what the backup holds of every group.
    #[error(
        "the newest moment that this backup can give is {newest_us} (Unix microseconds), asked is \
         {asked_us}"
    )]
    TooLate {
        /// What was asked for, Unix microseconds.
        asked_us: i64,
        /// The anchor of the newest backup.
        newest_us: i64,
    },
    /// The moment lies before a group began.
    #[error(
        "group {group} began at {first_us} (Unix microseconds), asked is {asked_us}: there is no \
         earlier moment"
    )]
    TooEarly {
        /// The group.
        group: GroupId,
        /// What was asked for, Unix microseconds.
        asked_us: i64,
        /// Its first entry that has a time.
        first_us: i64,
    },
    /// Rows, entries and ledger of a group do not fit each other.
    #[error("group {group}: {what}")]
    Differs {
        /// The group.
        group: GroupId,
        /// How.
        what: String,
    },
    /// Entries that apply does not take.
    #[error("group {group}: {cause}")]
    Apply {
        /// The group.
        group: GroupId,
        /// What apply said.
        cause: String,
    },
    /// Whoever takes what is read gave up.
    #[error(transparent)]
    Taker(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the backup itself is at fault: then another copy or another backup helps, and no retry.
    #[must_use]
    pub fn is_of_backup(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Taker(_))
    }
}
