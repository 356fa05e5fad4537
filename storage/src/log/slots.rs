//! The dense index of one replica: Raft index above the purge mark to place and payload.

use std::collections::VecDeque;

use bytes::Bytes;

use super::types::{IndexRange, LogPosition};

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) payload_bytes: u32,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) leader: u64,
    /// `None` until written, and when damaged.
    pub(super) place: Option<Place>,
    /// In memory until written, then as long as the cache keeps it.
    pub(super) payload: Option<Bytes>,
    /// Which append made it: a truncated and rewritten index gets another ticket.
    pub(super) ticket: u64,
}

impl Slot {
    /// True when neither disk nor memory holds the payload: it must be repaired.
    fn is_missing(&self) -> bool {
        self.place.is_none() && self.payload.is_none()
    }
}

/// Entries `first ..`, some of which may be missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    first: u64,
    slots: VecDeque<Option<Slot>>,
}

impl Slots {
    pub(super) fn starting_at(first: u64) -> Self {
        Self { first, slots: VecDeque::new() }
    }

    /// One behind the last index.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn at(&self, index: u64) -> Option<&Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get(at)?.as_ref()
    }

    pub(super) fn at_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)?.as_mut()
    }

    pub(super) fn term(&self, index: u64) -> Option<u64> {
        self.at(index).map(|slot| slot.term)
    }

    pub(super) fn position(&self, index: u64) -> Option<LogPosition> {
        self.at(index).map(|slot| LogPosition { index, term: slot.term, leader: slot.leader })
    }

    /// Puts an entry at `index` and drops everything above: an entry supersedes. Indexes between
    /// the old end and this one become missing; one below the start is ignored.
    pub(super) fn supersede(&mut self, index: u64, slot: Slot) {
        if index < self.first {
            return;
        }
        self.truncate(index);
        self.extend_to(index);
        self.slots.push_back(Some(slot));
    }

    /// Fills one place inside the log; outside it does nothing.
    pub(super) fn fill(&mut self, index: u64, slot: Slot) {
        let Some(at) = index.checked_sub(self.first) else {
            return;
        };
        let at = usize::try_from(at).expect("the log is indexed in memory");
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(slot);
        }
    }

    /// Drops `from` and everything above.
    pub(super) fn truncate(&mut self, from: u64) {
        let keep = from.saturating_sub(self.first);
        self.slots.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Makes the log end at `end` (exclusive): what is not there yet is missing.
    pub(super) fn extend_to(&mut self, end: u64) {
        let len = usize::try_from(end.saturating_sub(self.first)).expect("indexed in memory");
        if len > self.slots.len() {
            self.slots.resize(len, None);
        }
    }

    /// Forgets what lies at `from..=to`; the indexes stay and are missing.
    pub(super) fn forget(&mut self, from: u64, to: u64) {
        for index in from.max(self.first)..=to.min(self.end().saturating_sub(1)) {
            let at = usize::try_from(index - self.first).expect("inside");
            if let Some(place) = self.slots.get_mut(at) {
                *place = None;
            }
        }
    }

    /// Drops everything up to and including `through`.
    pub(super) fn purge(&mut self, through: u64) {
        if through < self.first {
            return;
        }
        let count = usize::try_from(through - self.first + 1).unwrap_or(usize::MAX);
        self.slots.drain(..count.min(self.slots.len()));
        self.first = through + 1;
    }

    /// Empties the log, to restart at `first`.
    pub(super) fn restart(&mut self, first: u64) {
        self.slots.clear();
        self.first = first;
    }

    /// Ranges without a readable entry.
    pub(super) fn missing(&self) -> Vec<IndexRange> {
        let mut ranges: Vec<IndexRange> = Vec::new();
        for (index, slot) in (self.first..).zip(&self.slots) {
            if slot.as_ref().is_some_and(|slot| !slot.is_missing()) {
                continue;
            }
            match ranges.last_mut() {
                Some(range) if range.to + 1 == index => range.to = index,
                _ => ranges.push(IndexRange { from: index, to: index }),
            }
        }
        ranges
    }

    /// Lowest segment that holds an entry of this log.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.slots.iter().flatten().filter_map(|slot| slot.place).map(|place| place.segment).min()
    }

    /// Entries, missing ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

impl Slot {
    /// Size of the payload, wherever it is.
    pub(super) fn payload_bytes(&self) -> usize {
        match (&self.payload, self.place) {
            (Some(payload), _) => payload.len(),
            (None, Some(place)) => place.payload_bytes as usize,
            (None, None) => 0,
        }
    }
}
