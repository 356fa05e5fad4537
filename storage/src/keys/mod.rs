//! The keys that a node keeps beside its data: the master key file that the operator provides,
//! and the keyring of cluster keys, which lies outside the log, the state, snapshots and backups.
//!
//! ```text
//!  master key file (elsewhere, 0600) ──opens──▶ keyring (this node's folder)
//!                                               ├ cluster key, current ──wraps──▶ new data keys
//!                                               ├ cluster keys, retired ─unwrap──▶ older data keys
//!                                               └ named secrets (the issuing certificate's key)
//! ```
//! A copied disk holds the keyring but not the master key, a backup holds neither.
//!
//! Owner of the state: the node's one [`Keyring`], shared by all who wrap and unwrap. Invariants:
//! a key is on disk (file and folder synced) before anything is wrapped under it; the file is
//! replaced whole or not at all; retired keys stay until they are shredded; nothing here is ever
//! printed or logged but paths and key ids.

mod file;
mod keyring;
mod master;
mod ring;

pub use keyring::Keyring;
pub use master::{MASTER_FILE_BYTES_MAX, Master};
pub use ring::KeyInfo;

use dtm_types::KeyId;
use std::io;
use std::path::PathBuf;

/// Why keys cannot be had. Each message names the file and what to do; the node ends with exit
/// code 78 on those of opening.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No master key file.
    #[error(
        "master key file {path} does not exist: put it back from the safe, or correct the path"
    )]
    MasterMissing {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write the master key file.
    #[error("master key file {path} has mode {mode:04o}, open to others: run chmod 600 {path}")]
    MasterExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The master key file does not hold a key.
    #[error(
        "master key file {path} does not hold 32 bytes as 64 hexadecimal digits or 44 characters \
         of base64 on one line: put it back from the safe"
    )]
    MasterMalformed {
        /// The file.
        path: PathBuf,
    },
    /// The master key does not belong to this keyring.
    #[error(
        "the master key from {master} is not the one that sealed keyring {path}: name the right \
         master key file"
    )]
    WrongMaster {
        /// The keyring.
        path: PathBuf,
        /// Where the master key came from.
        master: String,
    },
    /// No keyring.
    #[error(
        "keyring {path} does not exist: put it back from escrow or from another node, or join \
         this node anew"
    )]
    Missing {
        /// The keyring.
        path: PathBuf,
    },
    /// There is a keyring already; it is never overwritten by a new one.
    #[error("keyring {path} exists already: this folder belongs to a cluster")]
    Exists {
        /// The keyring.
        path: PathBuf,
    },
    /// The keyring was altered or cut.
    #[error("keyring {path} is damaged ({what}): put it back from escrow or from another node")]
    Damaged {
        /// The keyring.
        path: PathBuf,
        /// What was seen first.
        what: &'static str,
    },
    /// The keyring was written by a newer version.
    #[error("keyring {path} is of version {version}, which this build does not know: upgrade dtm")]
    Version {
        /// The keyring.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// No such cluster key: never held, or shredded.
    #[error("cluster key {id} is not in keyring {path}: never received, or shredded")]
    UnknownKey {
        /// The keyring.
        path: PathBuf,
        /// The key's id.
        id: KeyId,
    },
    /// The current cluster key cannot be shredded.
    #[error("cluster key {id} is the current one: rotate before shredding it")]
    CurrentKey {
        /// The key's id.
        id: KeyId,
    },
    /// Another key or secret is held under this name.
    #[error("keyring {path} holds another key under id {id}")]
    Conflict {
        /// The keyring.
        path: PathBuf,
        /// The key's id.
        id: KeyId,
    },
    /// More keys or longer secrets than a keyring may hold.
    #[error("keyring {path} is full: shred retired cluster keys")]
    Full {
        /// The keyring.
        path: PathBuf,
    },
    /// What another node sent is not an exported keyring.
    #[error("the keyring received from another node is not well formed")]
    Import,
    /// A row of a wrapped key is not well formed.
    #[error("row of a wrapped key has no valid {what}")]
    Row {
        /// The field.
        what: &'static str,
    },
    /// A wrapped key does not open.
    #[error("key {id} does not unwrap")]
    Unwrap {
        /// The id of the wrapped key.
        id: KeyId,
        /// Why.
        #[source]
        source: dtm_seal::Error,
    },
    /// The file system failed. After a failed write the file holds the keys of before or those
    /// of after; in memory those of before stay in use.
    #[error("{what} {path} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Never: each of these needs a person, a key or another disk.
    #[must_use]
    pub fn retryable(&self) -> bool {
        false
    }
}
