//! Backups: what lies in their files, how one continues another, how they are checked.
//!
//! ```text
//!  TARGET/                         a folder; what holds it is behind the seam [`Target`]
//!    0199…-…/                      a backup, named by its id
//!      g000.rows                   rows of group 0 as of its cut: sealed chunks, a checksum each
//!      g000.entries                its Raft entries that the backup before does not hold
//!      g001.rows …
//!      manifest                    last: without it there is no backup
//! ```
//!
//! Owner of the state: nobody. A backup is written once by [`Writer`] and never changed; chains
//! that are surplus are removed whole ([`remove_chain`]). The bytes are
//! described in docs/formats-backup.md, why they are so in docs/adr/0010.
//!
//! Invariants:
//! - all but the manifest is sealed under a key of its own ([`dtm_seal::DataKey`]), which is wrapped by
//!   the cluster key: without keyring and master key a backup gives nothing (SEC-1);
//! - each byte is covered by a checksum that needs no key, and by a seal: what changed is refused, with
//!   the file and the place ([`Error::Damaged`]);
//! - the manifest is written when everything else is on stable storage and was read back from there.

mod chain;
mod checked;
mod chunks;
mod error;
mod manifest;
mod meta;
mod moment;
mod read;
mod select;
mod surplus;
mod target;
mod write;

#[cfg(test)]
mod backup_test;
#[cfg(test)]
mod moment_test;

pub use chain::{Found, chain, find, find_at, list};
pub use checked::Checked;
pub use chunks::{Entry, Kind, Row, StateDigest};
pub use error::Error;
pub use manifest::{FilePart, GroupPart, MANIFEST, Manifest};
pub use meta::{Meta, Then};
pub use moment::{OpenChain, Stand};
pub use read::{open_manifest, read_entries, read_manifest, read_rows, verify};
pub use select::{Batch, TakeBatch, Wanted};
pub use surplus::{Chain, Chains, chains, remove_chain};
pub use target::{Folder, MemoryTarget, NewFile, Target};
pub use write::{FileWriter, Writer};

/// Bytes of a SHA-256.
pub type Digest = [u8; 32];
