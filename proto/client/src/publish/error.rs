//! Why an input was not published to its end.

use super::records::OPEN_QUOTE;
use std::io;
use std::path::Path;

use dtm_types::text::Told;

/// Why a file was not published to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It does not read.
    #[error("{file}: {reason}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// It changed while it was read.
    #[error("{file} changed while it was published: run again")]
    Changed {
        /// The file.
        file: String,
    },
    /// A table needs the definition of its data set.
    #[error("{file}: a table needs the definition of its data set")]
    Definition {
        /// The file.
        file: String,
    },
    /// The header does not fit the data set.
    #[error("{file}: {reason}")]
    Header {
        /// The file.
        file: String,
        /// Column and what is wrong.
        reason: Told,
    },
    /// The header is one column that holds another separator.
    #[error("{file}: the columns are separated by {separator:?}: --delimiter '{separator}'")]
    Separator {
        /// The file.
        file: String,
        /// What seems to separate its columns.
        separator: char,
    },
    /// It is not UTF-8.
    #[error("{file} is UTF-16: save it as UTF-8")]
    Utf16 {
        /// The file.
        file: String,
    },
    /// The input cannot be cut into records any further.
    #[error("{file}, line {line}: {what}")]
    Syntax {
        /// The file.
        file: String,
        /// The line.
        line: u64,
        /// What is wrong.
        what: Told,
    },
    /// None of the first records has the member that was named for message ids.
    #[error("{file}: none of the first records has the member {member:?}; nothing was sent")]
    IdMember {
        /// The file.
        file: String,
        /// The member.
        member: String,
    },
    /// The stream holds more records than the input has: it is not the same input.
    #[error("{file} has {sequence} records, its stream holds {held}: not the same input")]
    StreamLonger {
        /// The file.
        file: String,
        /// Records that the stream should hold of it.
        held: u64,
        /// Records of the input.
        sequence: u64,
    },
    /// The stream holds records, and it is not known whether they are the input's first.
    #[error(
        "stream {stream} holds {held} records already, and it is not known whether they are the \
         first of {file}: --resume or --append"
    )]
    StreamHolds {
        /// The file.
        file: String,
        /// The stream.
        stream: String,
        /// Records that it holds.
        held: u64,
    },
    /// Another input was interrupted in this stream.
    #[error(
        "stream {stream} was interrupted within {other}: publish that to its end first, or \
         --append to leave it cut"
    )]
    Interrupted {
        /// The stream.
        stream: String,
        /// The input that is there in part.
        other: String,
    },
    /// The stream holds other records where those of the input should be.
    #[error(
        "stream {stream} holds another record than {file} at sequence {sequence}: not the same \
         input; --append puts it behind what is there"
    )]
    OtherContent {
        /// The file.
        file: String,
        /// The stream.
        stream: String,
        /// The first one that differs.
        sequence: u64,
    },
    /// The stream went on, or back, between the question where it stands and the first record.
    #[error("stream {stream} is at {found} and not at {expected}: somebody else writes it")]
    Moved {
        /// The stream.
        stream: String,
        /// The sequence that was to be next.
        expected: u64,
        /// The one that is.
        found: u64,
    },
    /// What was published before cannot be read or noted.
    #[error("{path}: {reason}")]
    History {
        /// The file of notes.
        path: String,
        /// Why.
        reason: String,
    },
    /// The cluster or the way to it.
    #[error(transparent)]
    Client(#[from] crate::Error),
}

impl Error {
    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Client(error) => error.retryable(),
            Self::Changed { .. } | Self::Moved { .. } => true,
            _ => false,
        }
    }

    /// Whether it is about one input, so that the next one may well be published.
    #[must_use]
    pub fn concerns_one_input(&self) -> bool {
        match self {
            Self::Client(error) => matches!(error, crate::Error::TooLarge { .. }),
            Self::History { .. } => false,
            _ => true,
        }
    }

    /// A table ends inside a cell that begins in this line.
    pub(crate) fn open_quote(file: &str, line: u64) -> Self {
        Self::Syntax { file: file.to_owned(), line, what: Told::new(OPEN_QUOTE) }
    }

    pub(crate) fn io(file: &Path, error: &io::Error) -> Self {
        Self::Io { file: file.display().to_string(), reason: error.to_string() }
    }
}
