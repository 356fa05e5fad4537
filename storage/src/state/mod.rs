//! The node's state: rows of all its groups in one RocksDB instance, behind `StateStore`.
//!
//! This module is the only place that names RocksDB. It owns the folder `state` of a node.
//!
//! ```text
//!  key    group u32 BE ‖ generation u32 BE ‖ the group's own key          (group 0xffffffff: ours)
//!  batch  one engine write batch, no WAL: the Raft log replays what a crash takes
//!  crash  the rows are those after some whole batch, never between two: one column family, whose
//!         memtables reach disk in the order they were filled, and a batch lies in one memtable
//! ```
//!
//! Invariants:
//! - what a batch holds becomes visible and durable together, so a group's applied position, put
//!   into the same batch as its rows, always tells the truth about them;
//! - a group has one current generation, moved by one write; rows of any other generation are
//!   leftovers and are removed when the folder is opened;
//! - the first write or flush that fails closes the store for writing until it is opened again;
//!   damage met by a read closes the group it was met in. Neither is ever taken for "no row".
//!
//! Rows hold positions, cursors, fingerprints, ledger tiles and wrapped keys: no payload and no key
//! in clear, so that the files need no sealing of their own (SEC-1).

mod config;
mod db;
mod engine;
mod error;
mod frozen;
mod group;
mod keys;
mod read;
mod staging;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod db_test;

pub use config::StateConfig;
pub use db::{Owner, StateDb, StateFigures};
pub use error::Error;
pub use group::GroupStore;
pub use staging::Staging;
