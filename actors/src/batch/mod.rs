//! Sealed batches: how records become one, and how one is opened again.

mod build;
mod keys;
mod open;
mod quota;
mod record;
mod tally;

pub(crate) use build::{Class, OpenBatch, Sealed, Stamp};
pub(crate) use keys::BatchKeys;
pub use open::{OpenedBatch, open_batch};
pub(crate) use quota::Quota;
pub(crate) use record::RecordChecker;
pub(crate) use tally::Tally;

#[cfg(test)]
mod batch_test;
