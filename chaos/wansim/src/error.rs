//! What can go wrong while a network is built or steered.

use std::io;
use std::net::Ipv4Addr;

/// Failures of the simulated network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a step; mostly for want of root.
    #[error("{step}")]
    Kernel {
        /// What was asked of it.
        step: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// `ip` or `nft` is not installed or failed.
    #[error("{program} failed: {message}")]
    Tool {
        /// The program.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// The plan asks for what there is no room for.
    #[error("plan refused: {0}")]
    Plan(&'static str),
    /// No site, node or process of that name.
    #[error("no such {kind}: {name}")]
    Unknown {
        /// Site, node or direction.
        kind: &'static str,
        /// As given.
        name: String,
    },
    /// The network was built, but one node does not reach another.
    #[error("{from} does not reach {to}")]
    Unreached {
        /// Who sent.
        from: Ipv4Addr,
        /// Who should have got it.
        to: Ipv4Addr,
    },
    /// The process to be disturbed is not there, or a file about it does not read as it should.
    #[error("process {pid}: {message}")]
    Process {
        /// Its id.
        pid: u32,
        /// What was missed.
        message: String,
    },
}

impl Error {
    /// For `map_err`: the step that the kernel refused.
    pub(crate) fn kernel<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { step, source: source.into() }
    }
}
