//! Checkers: they judge what a cluster did by what was sent, acked and read back.
//!
//! | property | checker | knows of the inside |
//! |---|---|---|
//! | ING-1 to ING-4 | [`Checker`] | nothing |
//! | RAFT-1 | [`compare`], [`Promises`] | that rows and bundles have keys |
//! | LED-1 | [`Origins`] | the formats of leaves and rows; computes the tree itself |
//! | SEC-1 | [`Canaries`], [`Nonces`] | the header of a batch |
//! | SEC-2 | [`explain`] | applies the commands of meta once more |
//! | READ-1 | [`Reads`] | nothing |
//! | LIVE-1 | [`Liveness`] | nothing |
//! | OBS-1 | [`Fault`] | names of metrics |

mod breach;
mod effects;
mod history;
mod image;
mod liveness;
mod observed;
mod origin;
mod reads;
mod replicas;
mod secrets;
mod streams;

#[cfg(test)]
mod history_test;
#[cfg(test)]
mod image_test;
#[cfg(test)]
mod secrets_test;

pub use breach::{Breach, Property};
pub use effects::explain;
pub use history::{Checker, Misuse};
pub use image::{Image, PlacedBatch, Stored};
pub use liveness::{Liveness, WRITABLE_WITHIN};
pub use observed::{Counts, Fault};
pub use origin::Origins;
pub use reads::{Asked, Reads};
pub use replicas::{Promises, compare};
pub use secrets::{Canaries, Nonces, Search};
pub use streams::{Digest, Finding, NodeVerdict, Place, Range, StreamNo, Verdict};
