//! Certificates: the cluster's own authority, requests, and the files they lie in.
//!
//! ```text
//!  root CA (offline folder) ──signs──▶ issuing CA (key in the keyring) ──signs──▶ nodes
//!                                                                       operators, sources
//! ```
//! Every end certificate carries one `dtm://` name ([`dtm_identity::Identity`]); what a request
//! asks for itself is not taken over, only its key. Private keys are made where they are used and
//! never travel. Files: secrets 0600, folders 0700, written whole and synced.
//!
//! Owner of the state: the files. Time and randomness are passed in or taken from the operating
//! system by the key generator.

mod authority;
mod files;
mod genesis;
mod init;
mod issuing;
mod renewal;

pub use authority::{Authority, make_authority};
pub use dtm_ctl::{Request, make_request, pem};
pub use files::read;
pub use files::{read_certificates, write_private, write_public};
pub use genesis::Genesis;
pub use init::{InitOptions, Initialised, MakeKeyring, cluster_init};
pub use init::{refuse_existing, write_node};
pub use issuing::{Issuing, Subject, peer_name};
pub use renewal::{complete, is_due, replace_pair};

use std::io;
use std::path::PathBuf;

use dtm_types::text::Told;

/// Why a certificate could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is there already and is not overwritten.
    #[error("{path} exists already: name an empty folder, or move it away")]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{path} is not usable: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A request was refused.
    #[error("certificate request is refused: {0}")]
    Request(&'static str),
    /// A name that cannot stand in a certificate.
    #[error("name {0:?} cannot stand in a certificate")]
    Name(String),
    /// A name or address under which nobody could reach a node.
    #[error("{0:?} is no host name and no IP address")]
    Host(String),
    /// The library that makes certificates failed.
    #[error("certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The keyring could not be made.
    #[error("keyring could not be made: {0}")]
    Keyring(String),
}

impl Error {
    /// In the user's language, where it is met often.
    pub fn told(&self) -> Option<Told> {
        match self {
            Self::Exists { path } => Some(Told::new("start.exists").with("path", path.display())),
            Self::Host(name) => Some(Told::new("start.host").with("name", format!("{name:?}"))),
            _ => None,
        }
    }
}

/// Validity of the root.
pub const ROOT_DAYS: u32 = 7_300;
/// Validity of the issuing certificate.
pub const ISSUING_DAYS: u32 = 1_825;
/// Validity of a node's certificate.
pub const NODE_DAYS: u32 = 397;

#[cfg(test)]
#[path = "renewal_test.rs"]
mod renewal_tests;
#[cfg(test)]
#[path = "pki_test.rs"]
mod tests;
