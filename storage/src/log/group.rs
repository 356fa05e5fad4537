//! One replica's log: the handle that the Raft glue holds.
//!
//! Cheap to clone. Changes are visible to readers when a call returns, durable when its callback
//! says so. Order is the order of the calls, votes included.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::error::Error;
use super::memory::{Group, GroupMemory, Shared};
use super::queue::{Op, Request};
use super::slots::Slot;
use super::state::{ResetMark, SMALL_BYTES_MAX};
use super::types::{Callback, Health, LogEntry, LogPosition, ReplicaKey};

/// What a replica's log holds, as the last call left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLogState {
    /// Entries up to here are records only.
    pub last_purged: Option<LogPosition>,
    /// Last entry, or the purge mark when nothing is above it. When entries are missing it may be
    /// known only by index and term: `leader` is then 0 until repaired.
    pub last: Option<LogPosition>,
    /// Latest vote, as saved.
    pub vote: Option<Bytes>,
    /// Latest committed position, as saved; may be older than what was saved before a crash.
    pub committed: Option<Bytes>,
    /// Whether anything acknowledged cannot be read.
    pub health: Health,
}

/// Handle of one replica's log.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) shared: Arc<Shared>,
    pub(super) group: Arc<Group>,
}

impl GroupLog {
    /// Whose log this is.
    pub fn key(&self) -> ReplicaKey {
        self.group.key
    }

    /// What the log holds.
    pub fn state(&self) -> GroupLogState {
        let memory = self.group.memory.lock();
        GroupLogState {
            last_purged: memory.state.purged,
            // A repaired entry knows its leader where the mark knew index and term only.
            last: memory.state.last.map(|last| memory.slots.position(last.index).unwrap_or(last)),
            vote: memory.state.vote.clone(),
            committed: memory.state.committed.clone(),
            health: memory.health.clone(),
        }
    }

    /// Largest payload of one entry, bytes.
    pub fn payload_bytes_max(&self) -> usize {
        self.shared.cfg.payload_bytes_max()
    }

    /// Waits until `bytes` of payload would be taken without blocking. Ask it before proposing, and
    /// before handing a leader's append to Raft: `DiskFull` and `Stopped` are said here first.
    /// Cancel-safe.
    pub async fn ready(&self, bytes: usize) -> Result<(), Error> {
        self.shared.queue.ready(bytes as u64).await
    }

    /// Appends entries behind the last one. Returns when readers see them; `flushed` is called
    /// after they are on stable storage. On `Err` (stopped, disk full, too large) nothing was
    /// inserted and `flushed` is not called.
    ///
    /// Blocks the thread while the queue is over its bound, a few rounds at most; callers that
    /// awaited [`GroupLog::ready`] hardly ever meet that.
    ///
    /// # Panics
    /// When the entries leave a hole or overlap what is there: openraft promises neither.
    pub fn append(&self, entries: Vec<LogEntry>, flushed: Callback) -> Result<(), Error> {
        let Some(first) = entries.first().map(LogEntry::position) else {
            return self.push_marker(flushed);
        };
        self.check_sizes(&entries)?;
        let bytes: usize = entries.iter().map(|entry| entry.payload.len() + 160).sum();
        self.shared.queue.wait_for_room(bytes as u64);
        let mut memory = self.live()?;
        let starts_log = memory.state.last.is_none() && memory.state.purged.is_none();
        let next = memory.state.last.map_or(first.index, |last| last.index + 1);
        for (index, entry) in (next..).zip(&entries) {
            assert_eq!(entry.index, index, "entries follow the last one without a hole");
        }
        let first_ticket = memory.next_ticket;
        let copies = entries.clone();
        let op = Op::Append { entries, first_ticket, starts_log };
        self.shared.queue.push(Request::new(self.group.key, op, Some(flushed)))?;
        if starts_log {
            memory.state.begin = first.index;
            memory.slots.restart(first.index);
        }
        for (ticket, entry) in (first_ticket..).zip(copies) {
            memory.state.last = Some(entry.position());
            memory.next_ticket = ticket + 1;
            let LogEntry { index, term, leader, payload } = entry;
            let slot = Slot { term, leader, place: None, payload: Some(payload), ticket };
            memory.slots.supersede(index, slot);
        }
        Ok(())
    }

    /// Saves a vote. `flushed` is called when both copies are on stable storage, after everything
    /// that was given to this log before. On `Err` it is not called.
    pub fn save_vote(&self, vote: Bytes, flushed: Callback) -> Result<(), Error> {
        assert!(vote.len() <= SMALL_BYTES_MAX, "a vote is small");
        let mut memory = self.live()?;
        let request = Request::new(self.group.key, Op::Vote(vote.clone()), Some(flushed));
        self.shared.queue.push(request)?;
        memory.state.vote = Some(vote);
        if memory.state.vote_lost {
            memory.state.vote_lost = false;
            memory.refresh_health();
        }
        Ok(())
    }

    /// Notes the committed position; it reaches the disk with the next round, at the latest when
    /// the log idles or closes.
    pub fn save_committed(&self, committed: Bytes) {
        assert!(committed.len() <= SMALL_BYTES_MAX, "a position is small");
        let mut memory = self.group.memory.lock();
        if !memory.is_dropped {
            memory.state.committed = Some(committed.clone());
            self.shared.committed.lock().insert(self.group.key, committed);
        }
    }

    /// Drops all entries above `index_keep`; `None` drops everything above the purge mark. A log
    /// that was not whole stays recovering, over restarts too, until it is declared whole: what is
    /// dropped may have been acknowledged and must be asked for first.
    ///
    /// # Errors
    /// `Damaged` when the term of the last entry to be kept is not known. Nothing was changed.
    ///
    /// # Panics
    /// When it would cut below the purge mark.
    pub fn truncate_after(&self, index_keep: Option<u64>, done: Callback) -> Result<(), Error> {
        let mut memory = self.live()?;
        let purged = memory.state.purged;
        if let (Some(purged), Some(index)) = (purged, index_keep) {
            assert!(index >= purged.index, "purged entries are committed and never cut");
        }
        let kept = match index_keep {
            Some(index) if memory.state.last.is_none_or(|last| index >= last.index) => {
                memory.state.last
            }
            Some(index) if index >= memory.state.first_index() => {
                let kept = memory.slots.position(index);
                Some(kept.ok_or(Error::Damaged { group: self.group.key.group, index })?)
            }
            _ => purged,
        };
        let unsure = memory.unsure_flag();
        let op = Op::Truncate(kept, unsure);
        self.shared.queue.push(Request::new(self.group.key, op, Some(done)))?;
        let from = kept.map_or(0, |kept| kept.index + 1);
        memory.uncache_range(from, u64::MAX, &self.shared.counters);
        memory.slots.truncate(from);
        memory.state.last = kept;
        memory.state.tail_unknown |= unsure != 0;
        memory.refresh_health();
        Ok(())
    }

    /// Moves the purge mark: entries up to `position` leave the log and stay readable as records.
    /// Not synced on its own; `done` is called when written.
    pub fn purge_to(&self, position: LogPosition, done: Callback) -> Result<(), Error> {
        let mut memory = self.live()?;
        let op = Op::Purge(position);
        self.shared.queue.push(Request::new(self.group.key, op, Some(done)))?;
        memory.uncache_range(0, position.index.saturating_add(1), &self.shared.counters);
        memory.slots.purge(position.index);
        if memory.state.purged.is_none_or(|purged| purged.index < position.index) {
            memory.state.purged = Some(position);
        }
        if memory.state.last.is_none_or(|last| last.index < position.index) {
            memory.state.last = Some(position);
        }
        memory.refresh_health();
        Ok(())
    }

    /// Restarts the log behind `position`, after a snapshot was installed. Records up to
    /// `visible_through`, the index that was applied here before, stay readable; what lay above may
    /// never have been committed and is hidden. `None` hides everything. A log that was not whole
    /// stays recovering, as with [`GroupLog::truncate_after`].
    pub fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        done: Callback,
    ) -> Result<(), Error> {
        let mut memory = self.live()?;
        let unsure = memory.unsure_flag();
        let op = Op::Reset(position, visible_through, unsure);
        self.shared.queue.push(Request::new(self.group.key, op, Some(done)))?;
        memory.uncache_range(0, u64::MAX, &self.shared.counters);
        memory.slots.restart(position.index + 1);
        // Its LSN is known when it is written; until then every older record is hidden.
        memory.state.resets.push(ResetMark { lsn: u64::MAX, visible_through });
        memory.state.purged = Some(position);
        memory.state.last = Some(position);
        memory.state.tail_unknown |= unsure != 0;
        memory.refresh_health();
        Ok(())
    }

    /// Entries of `range` that are in the log, up to `bytes_max` of payload but at least one.
    /// Ends where the log ends. From memory, else from disk with every byte checked.
    ///
    /// # Errors
    /// `Damaged` when an entry inside cannot be read; the replica is recovering from then on.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, Error> {
        let picked = self.pick(range, bytes_max);
        let mut entries = Vec::with_capacity(picked.len());
        for (index, slot) in picked {
            entries.push(self.load(index, slot)?);
        }
        Ok(entries)
    }

    fn pick(&self, range: Range<u64>, bytes_max: usize) -> Vec<(u64, Option<Slot>)> {
        let memory = self.group.memory.lock();
        let end = memory.slots.end();
        let first = end - memory.slots.len() as u64;
        let mut picked = Vec::new();
        let mut bytes = 0;
        for index in range.start.max(first)..range.end.min(end) {
            let slot = memory.slots.at(index).cloned();
            bytes += slot.as_ref().map_or(0, Slot::payload_bytes);
            if bytes > bytes_max && !picked.is_empty() {
                break;
            }
            picked.push((index, slot));
        }
        picked
    }

    /// An entry by its slot, from memory or disk.
    pub(super) fn load(&self, index: u64, slot: Option<Slot>) -> Result<LogEntry, Error> {
        let group = self.group.key.group;
        let Some(Slot { term, leader, place, payload, .. }) = slot else {
            return Err(Error::Damaged { group, index });
        };
        if let Some(payload) = payload {
            return Ok(LogEntry { index, term, leader, payload });
        }
        let Some(place) = place else {
            return Err(Error::Damaged { group, index });
        };
        let position = LogPosition { index, term, leader };
        match self.shared.read_place(self.group.key, position, place)? {
            Some(payload) => Ok(LogEntry { index, term, leader, payload }),
            None => {
                self.note_damage(index, place);
                Err(Error::Damaged { group, index })
            }
        }
    }

    /// Writes missing entries, fetched from a peer, into their places.
    ///
    /// # Panics
    /// When an entry is not inside the log: the log is never extended this way.
    pub fn repair(&self, entries: Vec<LogEntry>, done: Callback) -> Result<(), Error> {
        let end = self.group.memory.lock().slots.end();
        assert!(entries.iter().all(|entry| entry.index < end), "repair fills, append extends");
        self.store_records(entries, done)
    }

    /// Writes payloads of committed entries at or below the purge mark, received by snapshot.
    pub fn store_records(&self, entries: Vec<LogEntry>, done: Callback) -> Result<(), Error> {
        if entries.is_empty() {
            return self.push_marker(done);
        }
        self.check_sizes(&entries)?;
        let bytes: usize = entries.iter().map(|entry| entry.payload.len() + 160).sum();
        self.shared.queue.wait_for_room(bytes as u64);
        let memory = self.live()?;
        let op = Op::Records { entries };
        self.shared.queue.push(Request::new(self.group.key, op, Some(done)))?;
        drop(memory);
        Ok(())
    }

    /// After the peers were asked: nothing is missing behind the last entry.
    pub fn declare_whole(&self, done: Callback) -> Result<(), Error> {
        let mut memory = self.live()?;
        self.shared.queue.push(Request::new(self.group.key, Op::Whole, Some(done)))?;
        memory.state.tail_unknown = false;
        memory.refresh_health();
        Ok(())
    }

    /// Entries up to `through` need not stay in memory: they are applied here and replicated.
    pub fn release(&self, through: u64) {
        self.group.memory.lock().release(through, &self.shared.counters);
    }

    /// Nothing to write, but `done` must come after what was given before.
    fn push_marker(&self, done: Callback) -> Result<(), Error> {
        let memory = self.live()?;
        let op = Op::Append { entries: Vec::new(), first_ticket: 0, starts_log: false };
        self.shared.queue.push(Request::new(self.group.key, op, Some(done)))?;
        drop(memory);
        Ok(())
    }

    fn check_sizes(&self, entries: &[LogEntry]) -> Result<(), Error> {
        let bytes_max = self.shared.cfg.payload_bytes_max();
        match entries.iter().map(|entry| entry.payload.len()).find(|bytes| *bytes > bytes_max) {
            Some(bytes) => Err(Error::TooLarge { bytes, bytes_max }),
            None => Ok(()),
        }
    }

    fn live(&self) -> Result<parking_lot::MutexGuard<'_, GroupMemory>, Error> {
        let memory = self.group.memory.lock();
        if memory.is_dropped {
            let ReplicaKey { group, replica, .. } = self.group.key;
            return Err(Error::Dropped { group, replica });
        }
        Ok(memory)
    }
}
