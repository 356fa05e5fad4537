//! What can go wrong at an acceptor.
//!
//! ```text
//!  Io, Stopped          the disk: the node's operator looks at it, then starts it again
//!  Damaged, Version     the file: the acceptor does not start; its seat is given to another
//!  BallotReused         a proposer that broke its obligation; nothing was changed
//! ```

use std::io;

use crate::Ballot;
use crate::wire::Malformed;

/// Why an acceptor cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state cannot be read or written. What it says on disk is unknown: the acceptor stops.
    #[error("register file {at}: {action} failed; look at the disk, then start the node again")]
    Io {
        /// The file.
        at: String,
        /// What was attempted.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// An earlier write failed: nothing is answered until the next start.
    #[error("register file {at}: stopped after an earlier failure ({first}); start the node again")]
    Stopped {
        /// The file.
        at: String,
        /// The first failure.
        first: String,
    },
    /// The file is there and holds something else than what was written. It is never taken for an
    /// empty one.
    #[error(
        "register file {at} is damaged; move it away, start the node and give the seat to the new \
         acceptor (replace it in the register)"
    )]
    Damaged {
        /// The file.
        at: String,
        /// The cause.
        source: Malformed,
    },
    /// Two values came under one ballot: a proposer used its id twice. Nothing was changed.
    #[error("ballot {ballot} came with two values; proposer ids are never used twice")]
    BallotReused {
        /// The ballot.
        ballot: Ballot,
    },
}

impl Error {
    /// Whether the same question may be asked again of the same acceptor.
    pub fn retryable(&self) -> bool {
        false
    }
}
