//! What a node keeps in memory of its log: a dense index a group and the payloads still needed.
//!
//! Owns the readers' view. It runs ahead of the disk: an append is visible at once, its place comes
//! when it is written. The writer's own view (what is on disk) is in `writer`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::index::SegmentIndex;
use super::metrics::Counters;
use super::queue::Queue;
use super::recover::{self, Summary};
use super::segment::Files;
use super::slots::{Place, Slot, Slots};
use super::state::{ReplicaState, UNSURE};
use super::types::{Health, LogConfig, LogIdentity, ReplicaKey};

/// The readers' view of one replica's log.
pub(super) struct GroupMemory {
    /// As the caller sees it: ahead of what is written. LSNs are not kept up here.
    pub(super) state: ReplicaState,
    pub(super) slots: Slots,
    pub(super) health: Health,
    pub(super) next_ticket: u64,
    /// Entries up to here are not kept in the cache.
    pub(super) released: u64,
    pub(super) is_dropped: bool,
}

/// One replica's log, shared by its handles and the writer.
pub(super) struct Group {
    pub(super) key: ReplicaKey,
    pub(super) memory: Mutex<GroupMemory>,
}

impl Group {
    pub(super) fn new(state: ReplicaState, slots: Slots) -> Self {
        let health = recover::health(&state, &slots);
        let key = state.key;
        let memory =
            GroupMemory { state, slots, health, next_ticket: 1, released: 0, is_dropped: false };
        Self { key, memory: Mutex::new(memory) }
    }
}

impl GroupMemory {
    /// After a change that may have mended or broken something.
    pub(super) fn refresh_health(&mut self) {
        self.health = recover::health(&self.state, &self.slots);
    }

    /// What a truncate or reset is marked with: entries of a log that is not whole may have been
    /// acknowledged, and dropping them does not make it whole.
    pub(super) fn unsure_flag(&self) -> u16 {
        match &self.health {
            Health::Recovering { missing, tail_unknown, .. }
                if *tail_unknown || !missing.is_empty() =>
            {
                UNSURE
            }
            _ => 0,
        }
    }

    /// Drops payloads from memory that can be read from disk, up to `through`.
    pub(super) fn release(&mut self, through: u64, counters: &Counters) {
        let from = self.released.max(self.slots.end().saturating_sub(self.slots.len() as u64));
        for index in from..=through.min(self.slots.end().saturating_sub(1)) {
            if let Some(slot) = self.slots.at_mut(index) {
                uncache(slot, counters);
            }
        }
        self.released = self.released.max(through.saturating_add(1));
    }

    /// Payload bytes cached at `from` and above; call before cutting there.
    pub(super) fn uncache_range(&mut self, from: u64, to: u64, counters: &Counters) {
        let first = self.slots.end() - self.slots.len() as u64;
        for index in from.max(first)..to.min(self.slots.end()) {
            if let Some(slot) = self.slots.at_mut(index)
                && slot.place.is_some()
            {
                uncache(slot, counters);
            }
        }
    }
}

/// Drops a payload that is on disk; others stay.
fn uncache(slot: &mut Slot, counters: &Counters) {
    if slot.place.is_some()
        && let Some(payload) = slot.payload.take()
    {
        counters.cache_bytes.fetch_sub(payload.len() as u64, Relaxed);
    }
}

/// An entry that became readable from disk.
pub(super) struct Placed {
    pub(super) key: ReplicaKey,
    pub(super) index: u64,
    pub(super) ticket: u64,
    pub(super) place: Place,
    /// Set for repairs: fills a hole of the dense index.
    pub(super) fill: Option<(u64, u64)>,
}

/// Everything that handles, writer and preparer share.
pub(super) struct Shared {
    pub(super) cfg: LogConfig,
    pub(super) id: LogIdentity,
    pub(super) queue: Queue,
    pub(super) files: Files,
    pub(super) counters: Counters,
    pub(super) groups: RwLock<BTreeMap<ReplicaKey, Arc<Group>>>,
    /// Committed positions that wait for the next round.
    pub(super) committed: Mutex<BTreeMap<ReplicaKey, Bytes>>,
    /// Index of the segment being written, and its number.
    pub(super) active: Mutex<(u64, SegmentIndex)>,
    pub(super) sealed: RwLock<BTreeMap<u64, Summary>>,
    /// Decoded footers, newest use last.
    pub(super) indexes: Mutex<VecDeque<(u64, Arc<SegmentIndex>)>>,
    /// Cached entries in the order they were written.
    cached: Mutex<VecDeque<(ReplicaKey, u64, u64)>>,
}

impl Shared {
    pub(super) fn new(cfg: LogConfig, id: LogIdentity, files: Files) -> Self {
        let queue = Queue::new(cfg.queue_bytes_max, cfg.segment_bytes / 8);
        Self {
            cfg,
            id,
            queue,
            files,
            counters: Counters::default(),
            groups: RwLock::new(BTreeMap::new()),
            committed: Mutex::new(BTreeMap::new()),
            active: Mutex::new((0, SegmentIndex::default())),
            sealed: RwLock::new(BTreeMap::new()),
            indexes: Mutex::new(VecDeque::new()),
            cached: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn group(&self, key: ReplicaKey) -> Option<Arc<Group>> {
        self.groups.read().get(&key).cloned()
    }

    /// Tells readers where entries lie now, and keeps the cache within its bound.
    pub(super) fn publish(&self, placed: &[Placed]) {
        let mut cached = self.cached.lock();
        for same_group in placed.chunk_by(|a, b| a.key == b.key) {
            let Some(group) = self.group(same_group[0].key) else {
                continue;
            };
            let mut memory = group.memory.lock();
            let mut filled = false;
            for placed in same_group {
                filled |= placed.fill.is_some();
                self.place(&mut memory, placed, &mut cached);
            }
            if filled {
                memory.refresh_health();
            }
        }
        self.evict(&mut cached);
    }

    fn place(
        &self,
        memory: &mut GroupMemory,
        placed: &Placed,
        cached: &mut VecDeque<(ReplicaKey, u64, u64)>,
    ) {
        if let Some((term, leader)) = placed.fill {
            let place = Some(placed.place);
            let slot = Slot { term, leader, place, payload: None, ticket: 0 };
            let is_hole = memory
                .slots
                .at(placed.index)
                .is_none_or(|s| s.place.is_none() && s.payload.is_none());
            if is_hole {
                memory.slots.fill(placed.index, slot);
            }
            return;
        }
        let released = memory.released;
        let Some(slot) = memory.slots.at_mut(placed.index) else {
            return;
        };
        if slot.ticket != placed.ticket {
            return; // truncated and written anew meanwhile
        }
        slot.place = Some(placed.place);
        if placed.index < released {
            slot.payload = None;
        } else if slot.payload.is_some() {
            self.counters.cache_bytes.fetch_add(u64::from(placed.place.payload_bytes), Relaxed);
            cached.push_back((placed.key, placed.index, placed.ticket));
        }
    }

    /// Drops the oldest payloads while the cache is over its bound, and names that are stale.
    fn evict(&self, cached: &mut VecDeque<(ReplicaKey, u64, u64)>) {
        while let Some((key, index, ticket)) = cached.front().copied() {
            let is_over = self.counters.cache_bytes.load(Relaxed) > self.cfg.cache_bytes_max as u64;
            let group = self.group(key);
            let mut memory = group.as_ref().map(|group| group.memory.lock());
            let slot = memory.as_mut().and_then(|memory| memory.slots.at_mut(index));
            let slot = slot.filter(|slot| slot.ticket == ticket && slot.payload.is_some());
            match slot {
                Some(_) if !is_over => return,
                Some(slot) => uncache(slot, &self.counters),
                None => {}
            }
            cached.pop_front();
        }
    }
}
