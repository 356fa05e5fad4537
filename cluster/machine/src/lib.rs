//! The replicated state machine: pure, total apply, and the seams it stands between.
//!
//! Apply takes committed bundles and a read view of the rows before them, and yields row changes and
//! outcomes. It reads no clock, no randomness, no file: the same log gives the same rows on every
//! replica (RAFT-1).

pub mod anchor;
pub mod approval;
mod commands;
mod day;
pub mod keys;
mod leaves;
mod machine;
mod memory;
mod mirror;
mod overlay;
pub mod reads;
pub mod seams;

pub use machine::{ApplyError, Committed, Machine};
pub use memory::{MemoryGroups, MemoryRecords};

#[cfg(test)]
mod machine_test;
#[cfg(test)]
mod version_test;
