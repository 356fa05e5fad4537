//! A disk that fails as it is told: a FUSE file system over a folder.
//!
//! ```text
//!   program ── mount ── kernel ── adapter ── disk ── backing folder: what programs see
//!                                             │
//!                            rules, space, counts, and what of each file and folder
//!                            is not synced yet, so that a power cut can take it away
//! ```
//!
//! Files and folders are durable by themselves alone: data by `fsync` or `fdatasync` of the file,
//! a name by `fsync` of its folder. That is what POSIX promises and less than a usual disk keeps,
//! so what survives here survives there. `sync` and `syncfs` make nothing durable.
//!
//! Locks, and mappings for reading, work as on any disk, by the kernel. What is written through a
//! shared mapping arrives when the kernel writes it.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

mod adapter;
mod command;
mod counts;
mod disk;
mod entries;
mod error;
mod files;
mod folders;
mod mount;
mod node;
mod power;
mod rng;
mod rule;
mod socket;
mod unsynced;

pub use command::HELP;
pub use counts::Counts;
pub use error::Error;
pub use mount::{FaultFs, Flipped, Options};
pub use power::CutReport;
pub use rule::{Effect, Op, Rule, RuleId};
pub use socket::{Control, tell};
pub use unsynced::CutStyle;
