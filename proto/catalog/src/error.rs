//! What can be wrong with what operators write: definitions, agreements, table headers.

use dtm_types::text::{Lang, Told};

/// Errors of this crate. None is retryable: the same input fails the same way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A definition cannot be read or contradicts itself.
    #[error("{}", self.told())]
    Definition {
        /// File or other origin of the text.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// Key or name the problem is about.
        key: String,
        /// The problem.
        problem: Told,
    },
    /// A mask profile names a field that does not exist or a mask that does not fit its type.
    #[error("{}", self.told())]
    Mask {
        /// Data set.
        dataset: String,
        /// Path of the field.
        path: String,
        /// The problem.
        problem: Told,
    },
    /// The header of a table does not fit the data set.
    #[error("{}", self.told())]
    Header {
        /// Column, from 1; 0 for the header as a whole.
        column: usize,
        /// Its header.
        header: String,
        /// The problem.
        problem: Told,
    },
    /// A data set beyond a bound of the compiler.
    #[error("{}", self.told())]
    TooLarge {
        /// Data set.
        dataset: String,
        /// What is too large.
        what: Told,
        /// How large it is.
        value: usize,
        /// How large it may be.
        limit: usize,
    },
}

impl Error {
    /// The error in the user's language.
    pub fn tell(&self, lang: Lang) -> String {
        self.told().of(lang)
    }

    /// The error as a text of the catalogue.
    pub fn told(&self) -> Told {
        match self {
            Self::Definition { origin, line, key, problem } => Told::new("definition.at_line")
                .with("origin", origin)
                .with("line", line)
                .with("key", key)
                .with_told("problem", problem.clone()),
            Self::Mask { dataset, path, problem } => Told::new("definition.in_mask_profile")
                .with("dataset", dataset)
                .with("path", path)
                .with_told("problem", problem.clone()),
            Self::Header { column: 0, header, problem } => Told::new("definition.in_header")
                .with("header", header)
                .with_told("problem", problem.clone()),
            Self::Header { column, header, problem } => Told::new("definition.in_column")
                .with("column", column)
                .with("header", header)
                .with_told("problem", problem.clone()),
            Self::TooLarge { dataset, what, value, limit } => Told::new("definition.too_large")
                .with("dataset", dataset)
                .with_told("what", what.clone())
                .with("value", value)
                .with("limit", limit),
        }
    }

    /// Always false: see the enum.
    pub fn retryable(&self) -> bool {
        false
    }
}
