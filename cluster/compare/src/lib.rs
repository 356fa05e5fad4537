//! Whether the replicas of a group hold the same rows at one applied index, and which rows they do
//! not. The cluster crate says who the members are, carries messages and has rows rebuilt.
//!
//! ```text
//!  compare  one comparison, by the leader of the group
//!  Aim      the index at which every replica freezes its rows
//!  Comparison  what each replica keeps: its rows frozen there, what was found last
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
mod asking;
mod kept;
mod name;
mod pass;
mod rows;
mod verdict;
mod wire;

#[cfg(test)]
mod pass_test;

pub use aim::{Aim, Kept};
pub use asking::{Error, Found, Way, compare};
pub use kept::{Comparison, RowsCompared};
pub use name::{name, table_name};
pub use pass::{Question, Replicas, Report, pass};
pub use rows::{Cut, KeyRange, Page, ROWS_FROM, ROWS_TO, RangeDigest, RowHash, cut, digest, list};
pub use verdict::{Difference, Narrowed, majority, narrow};
pub use wire::{answer_digest, answer_kept, answer_list};
