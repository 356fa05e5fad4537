//! What can go wrong with the disk itself, apart from the faults that it makes.

use std::io;
use std::path::PathBuf;

/// Failures of mounting and steering.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Mostly for want of root or of `/dev/fuse`.
    #[error("cannot mount at {path}")]
    Mount {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The backing folder does not give what it should.
    #[error("{step} {path}")]
    Backing {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// A word of a command is not understood.
    #[error("{0}")]
    Command(String),
    /// There is no such rule, or no room for another.
    #[error("{0}")]
    Rule(&'static str),
    /// The power is off, or on already.
    #[error("the power is {0} already")]
    Power(&'static str),
}

impl Error {
    pub(crate) fn backing(
        step: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Backing { step, path, source }
    }
}
