//! Why the state store cannot do what it was asked.

use dtm_types::{ClusterId, GroupId, NodeId};

/// The state store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The folder was written by a node of another cluster. Nothing was changed.
    #[error("state folder {dir} belongs to cluster {found}, this node to {expected}")]
    OtherCluster {
        /// The folder.
        dir: String,
        /// Whose it is.
        found: ClusterId,
        /// Who asked.
        expected: ClusterId,
    },
    /// The folder was written by another node of this cluster. Nothing was changed.
    #[error("state folder {dir} belongs to node {found}, this is node {expected}")]
    OtherNode {
        /// The folder.
        dir: String,
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// Written by software that this one does not know. Nothing was changed.
    #[error("state folder {dir} has format {found}, this software knows {known}")]
    Format {
        /// The folder.
        dir: String,
        /// Format found.
        found: u32,
        /// Format known.
        known: u32,
    },
    /// Another process, or another store of this one, holds the folder.
    #[error("state folder {dir} is in use: {cause}")]
    InUse {
        /// The folder.
        dir: String,
        /// What the engine said.
        cause: String,
    },
    /// A checksum does not match, or a file that must be there is not. The rows must be rebuilt
    /// from a snapshot and the log; they are never served.
    #[error("state is damaged{}: {cause}", file.as_ref().map(|f| format!(" in {f}")).unwrap_or_default())]
    Damaged {
        /// The file, where the engine names it.
        file: Option<String>,
        /// What the engine said.
        cause: String,
    },
    /// No room on the disk. What was written is kept in memory; the same call works again when there
    /// is room.
    #[error("state cannot be written, the disk is full: {cause}")]
    DiskFull {
        /// What the engine said.
        cause: String,
    },
    /// The operating system refused.
    #[error("state cannot be read or written: {cause}")]
    Io {
        /// What the engine said.
        cause: String,
    },
    /// The store was closed for writing by an earlier failure.
    #[error("state is closed for writing since: {reason}")]
    Stopped {
        /// The first failure.
        reason: String,
    },
    /// A second staging of a group whose first is not over.
    #[error("group {0} is being staged already")]
    StagingInProgress(GroupId),
    /// The number is kept for the store's own rows.
    #[error("group {0} cannot exist")]
    GroupReserved(GroupId),
}

impl Error {
    /// Whether the same call may succeed later without opening the store again.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::StagingInProgress(_) | Self::DiskFull { .. })
    }

    /// What the engine reported, sorted.
    pub(super) fn engine(error: &rocksdb::Error) -> Self {
        let cause = error.to_string();
        let missing = cause.contains("No such file or directory");
        if error.kind() == rocksdb::ErrorKind::Corruption || missing {
            return Self::Damaged { file: file_in(&cause), cause };
        }
        if cause.contains("No space left on device") || cause.contains("Disk quota exceeded") {
            return Self::DiskFull { cause };
        }
        Self::Io { cause }
    }

    /// What the engine reported while the folder was opened.
    pub(super) fn opening(dir: &std::path::Path, error: &rocksdb::Error) -> Self {
        let cause = error.to_string();
        if cause.contains("lock hold by current process") || cause.contains("While lock file") {
            return Self::InUse { dir: dir.display().to_string(), cause };
        }
        Self::engine(error)
    }

    /// A row of our own that does not read.
    pub(super) fn row(what: &str) -> Self {
        Self::Damaged { file: None, cause: format!("row `{what}` does not decode") }
    }
}

/// The engine's messages name files by path; the last part is what an operator looks for.
fn file_in(message: &str) -> Option<String> {
    let is_file = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        let known = name.ends_with(".sst") || name.starts_with("MANIFEST-") || name == "CURRENT";
        known.then(|| name.to_owned())
    };
    message.split(|c: char| c.is_whitespace() || ",;:\"'()".contains(c)).find_map(is_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named() {
        let message = "Corruption: block checksum mismatch: stored = 1, computed = 2 in /d/000012.sst offset 4";
        assert_eq!(file_in(message).as_deref(), Some("000012.sst"));
        assert_eq!(file_in("IO error: /d/MANIFEST-000004: x").as_deref(), Some("MANIFEST-000004"));
        assert_eq!(file_in("Corruption: bad"), None);
    }
}
