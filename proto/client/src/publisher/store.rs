//! Where unacked records are kept.

use super::memory::Memory;
use crate::EncodedFrame;
use dtm_proto::ingest::Record;

/// Records that are not acked yet, by sequence.
#[derive(Debug)]
pub(crate) enum Store {
    /// The stream was not opened yet: its next sequence is not known.
    Unknown,
    /// In memory only.
    Memory(Memory),
}

impl Store {
    /// Sequence of the next record; 0 = not known yet.
    pub(crate) fn next_sequence(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.next_sequence(),
        }
    }

    /// First sequence that is still held.
    pub(crate) fn first_held(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.first_held(),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.bytes(),
        }
    }

    /// Bytes that are not acked.
    pub(crate) fn unacked_bytes(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.unacked_bytes(),
        }
    }

    /// Takes a record; the store is known by then.
    pub(crate) fn push(&mut self, record: &Record) -> u64 {
        match self {
            Self::Unknown => unreachable!("records are taken after the open"),
            Self::Memory(memory) => memory.push(record),
        }
    }

    /// Bytes that wait from `sequence` on, as far as it matters for `enough`.
    pub(crate) fn ready_bytes(&self, sequence: u64, enough: usize) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.ready_bytes(sequence, enough),
        }
    }

    /// A frame that starts at `sequence`.
    pub(crate) fn frame_from(&mut self, sequence: u64, bytes_max: usize) -> Option<EncodedFrame> {
        match self {
            Self::Unknown => None,
            Self::Memory(memory) => memory.frame_from(sequence, bytes_max),
        }
    }

    /// What lies above `acked_through` is unacked again.
    pub(crate) fn unack(&mut self, acked_through: u64) {
        match self {
            Self::Unknown => {}
            Self::Memory(memory) => memory.unack(acked_through),
        }
    }

    /// Forgets what is acked (and, where there is another site, is there too).
    pub(crate) fn release(&mut self, through: u64, acked_through: u64, bytes_max: usize) {
        match self {
            Self::Unknown => {}
            Self::Memory(memory) => memory.release(through, acked_through, bytes_max),
        }
    }
}
