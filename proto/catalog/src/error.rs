//! What can be wrong with what operators write: definitions, agreements, table headers.

/// Errors of this crate. None is retryable: the same input fails the same way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A definition cannot be read or contradicts itself.
    #[error("{origin}:{line}: {key}: {problem}")]
    Definition {
        /// File or other origin of the text.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// Key or name the problem is about.
        key: String,
        /// The problem.
        problem: String,
    },
    /// A mask profile names a field that does not exist or a mask that does not fit its type.
    #[error("mask profile of {dataset}: {path}: {problem}")]
    Mask {
        /// Data set.
        dataset: String,
        /// Path of the field.
        path: String,
        /// The problem.
        problem: String,
    },
    /// The header of a table does not fit the data set.
    #[error("column {column} ({header}): {problem}")]
    Header {
        /// Column, from 1; 0 for the header as a whole.
        column: usize,
        /// Its header.
        header: String,
        /// The problem.
        problem: String,
    },
    /// A data set beyond a bound of the compiler.
    #[error("{dataset}: {what} is {value}, the limit is {limit}")]
    TooLarge {
        /// Data set.
        dataset: String,
        /// What is too large.
        what: &'static str,
        /// How large it is.
        value: usize,
        /// How large it may be.
        limit: usize,
    },
}

impl Error {
    /// Always false: see the enum.
    pub fn retryable(&self) -> bool {
        false
    }
}
