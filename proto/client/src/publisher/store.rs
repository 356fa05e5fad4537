//! Where unacked records are kept.

use super::memory::Memory;
use crate::EncodedFrame;
use crate::frame::PartMax;
use crate::spool::{self, Released, SpoolQueue};
use dtm_proto::ingest::{Ack, Record};

/// Records that are not acked yet, by sequence.
#[derive(Debug)]
pub(crate) enum Store {
    /// The stream was not opened yet: its next sequence is not known.
    Unknown,
    /// In memory only.
    Memory(Memory),
    /// In a folder of the source; written through [`crate::Spool`].
    Spool(SpoolQueue),
}

impl Store {
    /// Sequence of the next record; 0 = not known yet.
    pub(crate) fn next_sequence(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.next_sequence(),
            Self::Spool(queue) => queue.next_sequence(),
        }
    }

    /// First sequence that is still held.
    pub(crate) fn first_held(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.first_held(),
            Self::Spool(queue) => queue.first_held(),
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.bytes(),
            Self::Spool(queue) => queue.bytes(),
        }
    }

    /// Bytes that are not acked.
    pub(crate) fn unacked_bytes(&self) -> usize {
        match self {
            Self::Unknown | Self::Spool(_) => 0,
            Self::Memory(memory) => memory.unacked_bytes(),
        }
    }

    /// Takes a record; `None` where this store does not take records this way.
    pub(crate) fn push(&mut self, record: &Record) -> Option<u64> {
        match self {
            Self::Unknown | Self::Spool(_) => None,
            Self::Memory(memory) => Some(memory.push(record)),
        }
    }

    /// Bytes that wait from `sequence` on, as far as it matters for `enough`.
    pub(crate) fn ready_bytes(&self, sequence: u64, enough: usize) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.ready_bytes(sequence, enough),
            // Blocks were collected when they were written.
            Self::Spool(queue) if sequence < queue.next_sequence() => enough.max(1),
            Self::Spool(_) => 0,
        }
    }

    /// A frame that starts at `sequence`.
    pub(crate) fn frame_from(
        &mut self,
        sequence: u64,
        max: PartMax,
    ) -> Result<Option<EncodedFrame>, spool::Error> {
        match self {
            Self::Unknown => Ok(None),
            Self::Memory(memory) => Ok(memory.frame_from(sequence, max)),
            Self::Spool(queue) => queue.frame_from(sequence, max),
        }
    }

    /// What lies above `acked_through` is unacked again.
    pub(crate) fn unack(&mut self, acked_through: u64) {
        match self {
            Self::Unknown => {}
            Self::Spool(queue) => queue.unack(acked_through),
            Self::Memory(memory) => memory.unack(acked_through),
        }
    }

    /// Bytes that are acked and wait until the standby has them.
    pub(crate) fn waits_for_site(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Memory(memory) => memory.waits_for_site() as u64,
            Self::Spool(queue) => queue.waits_for_site(),
        }
    }

    /// Forgets what lies at or below `release`: acked and, where there is another site, there too.
    /// How many records went that another site does not have, for want of room; what is left to do on
    /// disk, where there is anything.
    #[must_use]
    pub(crate) fn release(
        &mut self,
        release: u64,
        ack: Ack,
        bytes_max: usize,
    ) -> (u64, Option<Released>) {
        match self {
            Self::Unknown => (0, None),
            Self::Memory(memory) => (memory.release(release, ack.acked_through, bytes_max), None),
            Self::Spool(queue) => (0, queue.release(release, ack)),
        }
    }
}
