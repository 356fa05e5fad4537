//! Whether the replicas of a group hold the same rows at one applied index, and which rows they do
//! not. Pure: the cluster crate freezes rows, asks nodes and has rows rebuilt.
//!
//! ```text
//!  Aim      the index at which every replica freezes its rows
//!  pass     goes over the leader's rows range by range
//!    cut       the next range of its own rows, and their digest
//!    digest    of the same range on every replica
//!    list      where digests differ: keys and hashes of rows, page by page
//!    narrow    which rows of which replicas are not those of a majority of the voters
//!  name     what a key says in words: the batch, the stream, the leaf
//! ```
//! What is compared: every row that apply writes, that is every key from [`ROWS_FROM`] on. They are
//! the same on all replicas at one applied index: apply is deterministic, and places name indexes of
//! the group's log, never positions in a node's files. What is not: the rows of table 0 (applied log
//! id with the membership; the note of bundles that this replica lacks), which each replica writes for
//! itself, and which a snapshot leaves out too.
//!
//! Who is right: what more than half of all voters hold, be the leader among them or not. Where no
//! value has so many, nobody is: that is told, and nothing is repaired.

mod aim;
mod name;
mod pass;
mod rows;
mod verdict;

#[cfg(test)]
mod pass_test;

pub use aim::{Aim, Kept};
pub use name::{name, table_name};
pub use pass::{Error, Question, Replicas, Report, pass};
pub use rows::{Cut, KeyRange, Page, ROWS_FROM, ROWS_TO, RangeDigest, RowHash, cut, digest, list};
pub use verdict::{Difference, Narrowed, majority, narrow};
