//! Checkers: they judge what a cluster did by what was sent, acked and read back, knowing nothing of
//! how it works inside.

mod history;
mod streams;

#[cfg(test)]
mod history_test;

pub use history::{Checker, Misuse};
pub use streams::{Digest, Finding, NodeVerdict, Place, Range, StreamNo, Verdict};
