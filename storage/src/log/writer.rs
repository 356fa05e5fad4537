//! The one writer of the node's log: gathers, writes, syncs, tells.
//!
//! Hot path. Owns what is on disk: the open segment, the LSN, the written state of every replica.
//! Invariants: one vectored write and one fdatasync a round; callbacks in the order of the calls,
//! after the sync; the first failed write or sync stops the log of this node for good, and no sync
//! is ever tried twice.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::block::Kind;
use super::error::{Error, StopReason};
use super::memory::Shared;
use super::metrics::add;
use super::prepare::Preparer;
use super::queue::{Op, Request, Work};
use super::recover::Summary;
use super::round::{Block, Round};
use super::sched;
use super::segment::SEGMENT_HEADER_BYTES;
use super::state::{self, HAS_POSITION, ReplicaState, STARTS_LOG};
use super::types::{Callback, LogEntry, LogPosition, ReplicaKey};
use crate::vfs::VfsFile;

/// The segment being written.
struct Active {
    number: u64,
    file: Arc<dyn VfsFile>,
    end: u64,
}

/// The writer's state; lives on its thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) preparer: Arc<Preparer>,
    /// What the written blocks say of each replica.
    pub(super) states: BTreeMap<ReplicaKey, ReplicaState>,
    pub(super) next_lsn: u64,
    /// Everything below is on stable storage.
    pub(super) durable_lsn: u64,
    /// First copy of the newest vote of any replica of which both copies are written. What lies
    /// before this life of the log counts as a vote.
    newest_vote_lsn: u64,
    active: Option<Active>,
    round: Round,
    /// Callbacks of requests whose blocks are all in the round.
    pending: Vec<Callback>,
    is_marked: bool,
}

/// Why the writer gives up.
type Stop = StopReason;

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        preparer: Arc<Preparer>,
        states: BTreeMap<ReplicaKey, ReplicaState>,
        next_lsn: u64,
    ) -> Self {
        Self {
            shared,
            preparer,
            states,
            next_lsn,
            durable_lsn: next_lsn,
            newest_vote_lsn: next_lsn - 1,
            active: None,
            round: Round::default(),
            pending: Vec::new(),
            is_marked: true,
        }
    }

    /// Runs until the log is closed or stopped. A panic stops the log too: whoever waits is told.
    pub(super) fn run(self) {
        let (shared, preparer) = (Arc::clone(&self.shared), Arc::clone(&self.preparer));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run_rounds()));
        if let Err(panic) = ran {
            let cause = "the writer broke one of its own rules, see the panic in the log".into();
            let (reason, queued) = shared.queue.stop(StopReason { doing: "write", cause });
            refuse(queued, &reason);
            preparer.wake();
            std::panic::resume_unwind(panic);
        }
    }

    fn run_rounds(mut self) {
        if self.shared.cfg.short_slice {
            sched::ask_for_short_slice();
        }
        let idle = Duration::from_millis(self.shared.cfg.idle_mark_ms);
        loop {
            let idle = (!self.is_marked).then_some(idle);
            let bytes_max = self.shared.cfg.round_bytes_max as u64;
            let done = match self.shared.queue.next(bytes_max, idle) {
                Work::Round(requests) => self.write_round(requests),
                Work::Idle => self.mark(),
                Work::Closed => {
                    // A failure has been told and latched by then.
                    let _ = self.mark();
                    return;
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Writes one round. On failure everybody is told and the log is stopped.
    fn write_round(&mut self, requests: Vec<Request>) -> Result<(), ()> {
        let mut left: VecDeque<Request> = requests.into();
        let result = self.try_round(&mut left);
        match result {
            Ok(()) => {
                self.tell_room();
                Ok(())
            }
            Err(reason) => {
                self.stop(reason, left);
                Err(())
            }
        }
    }

    fn try_round(&mut self, left: &mut VecDeque<Request>) -> Result<(), Stop> {
        let mut needs_sync = false;
        while let Some(request) = left.pop_front() {
            needs_sync |= request.needs_sync();
            let Request { key, op, done, .. } = request;
            let written = self.write_op(key, op);
            self.pending.extend(done);
            written?;
            add(&self.shared.counters.requests, 1);
        }
        if needs_sync {
            let committed = std::mem::take(&mut *self.shared.committed.lock());
            for (key, position) in committed {
                self.write_op(key, Op::Committed(position))?;
            }
        }
        self.flush(needs_sync, true)
    }

    fn write_op(&mut self, key: ReplicaKey, op: Op) -> Result<(), Stop> {
        let last = self.states.get(&key).and_then(|state| state.last);
        match op {
            Op::Append { entries, first_ticket, starts_log } => {
                for (at, entry) in entries.into_iter().enumerate() {
                    let mut block = entry_block(Kind::Entry, key, entry);
                    block.ticket = first_ticket + at as u64;
                    if at == 0 && starts_log {
                        block.flags = STARTS_LOG;
                    }
                    self.put(block)?;
                }
                Ok(())
            }
            Op::Records { entries } => entries
                .into_iter()
                .try_for_each(|entry| self.put(entry_block(Kind::Record, key, entry))),
            Op::Vote(vote) => {
                self.put(Block {
                    flags: with(last),
                    ..small(Kind::Vote, key, last, vote.clone())
                })?;
                self.put(Block { flags: with(last) | 1, ..small(Kind::Vote, key, last, vote) })
            }
            Op::Committed(position) => self.put(small(Kind::Committed, key, last, position)),
            Op::Truncate(kept, unsure) => {
                let block = small(Kind::Truncate, key, kept, Bytes::new());
                self.put(Block { flags: block.flags | unsure, ..block })
            }
            Op::Purge(to) => self.put(small(Kind::Purge, key, Some(to), Bytes::new())),
            Op::Reset(to, visible_through, unsure) => {
                let through = visible_through.map(|index| index.to_le_bytes().to_vec());
                let payload = through.unwrap_or_default().into();
                let block = small(Kind::Reset, key, Some(to), payload);
                self.put(Block { flags: block.flags | unsure, ..block })
            }
            Op::Whole => self.put(small(Kind::Whole, key, last, Bytes::new())),
            Op::Drop => self.put(small(Kind::Drop, key, last, Bytes::new())),
        }
    }

    /// Adds a block to the round, going on to the next segment when this one is full.
    fn put(&mut self, block: Block) -> Result<(), Stop> {
        if self.active.is_none() {
            self.start_segment()?;
        }
        if !self.fits(&block) {
            self.seal()?;
            self.start_segment()?;
        }
        self.encode(block);
        Ok(())
    }

    fn fits(&self, block: &Block) -> bool {
        let active = self.active.as_ref().expect("a segment is open");
        let index = &self.shared.active.lock().1;
        let tail = super::index::tail_bytes(index, state::encoded_bytes_max(self.states.len() + 1));
        let block_bytes = block.bytes_max() + 80;
        active.end + self.round.bytes() + (block_bytes + tail) as u64
            <= self.shared.cfg.segment_bytes
    }

    /// Gives the block its numbers, moves the written state over it, adds it to the round.
    fn encode(&mut self, block: Block) {
        let active = self.active.as_ref().expect("a segment is open");
        let at = active.end + self.round.bytes();
        let mut header = block.header(self.shared.id.cluster, active.number, at);
        header.lsn = self.next_lsn;
        header.durable_lsn = self.durable_lsn;
        header.newest_vote_lsn = self.newest_vote_lsn;
        self.next_lsn += 1;
        if !block.kind.is_node_wide() {
            let state =
                self.states.entry(block.key).or_insert_with(|| ReplicaState::new(block.key));
            header.prev_lsn = state.last_lsn;
            header.prev_term = state.last.map_or(0, |last| last.term);
            let is_second_copy = block.flags & !HAS_POSITION == 1;
            header.vote_lsn = match block.kind {
                Kind::Vote if is_second_copy => {
                    self.newest_vote_lsn = header.lsn - 1;
                    header.lsn - 1
                }
                Kind::Vote => header.lsn,
                _ => state.vote_lsn,
            };
            state.advance(&header, Some(&block.payload));
            let offset = u32::try_from(at).expect("segments are below 4 GiB");
            self.shared.active.lock().1.note(&header, offset);
            self.after_block(&block, header.lsn);
        }
        self.round.add(&header, block, at);
    }

    /// What a block changes besides the state it moves.
    fn after_block(&mut self, block: &Block, lsn: u64) {
        match block.kind {
            Kind::Drop => {
                self.states.remove(&block.key);
            }
            Kind::Reset => {
                // Readers hid all older records while the LSN was not known.
                if let Some(group) = self.shared.group(block.key) {
                    let mut memory = group.memory.lock();
                    let open = memory.state.resets.iter_mut().find(|mark| mark.lsn == u64::MAX);
                    if let Some(mark) = open {
                        mark.lsn = lsn;
                    }
                }
            }
            _ => {}
        }
    }

    /// Writes the round; with `sync` it is durable and everybody concerned has been told.
    fn flush(&mut self, sync: bool, is_round: bool) -> Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        if let Some(active) = self.active.as_mut().filter(|_| self.round.bytes() > 0) {
            let started = now();
            let bytes = self.round.bytes();
            self.round
                .write(active.file.as_ref(), active.end)
                .map_err(|error| failed("write", &error))?;
            active.end += bytes;
            if sync {
                active.file.sync_data().map_err(|error| failed("sync", &error))?;
                self.durable_lsn = self.next_lsn;
            }
            if is_round {
                add(&shared.counters.rounds, 1);
                add(&shared.counters.round_syncs, u64::from(sync));
                shared.counters.round_bytes.add(bytes);
                let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                shared.counters.round_us.add(took);
                metrics::histogram!("dtm_log_round_seconds").record(took as f64 / 1e6);
            }
            add(&shared.counters.written_bytes, bytes);
            add(&shared.counters.blocks, self.round.blocks());
            add(&shared.counters.payload_bytes, self.round.payload_bytes());
            shared.publish(self.round.placed());
            self.round.clear();
            self.is_marked = false;
        }
        for done in self.pending.drain(..) {
            done(Ok(()));
        }
        Ok(())
    }

    /// Takes a spare segment and writes who stands where, twice.
    fn start_segment(&mut self) -> Result<(), Stop> {
        let Some((number, file)) = self.preparer.take() else {
            let closed = StopReason { doing: "take a segment", cause: "the log has ended".into() };
            return Err(self.shared.queue.stopped().unwrap_or(closed));
        };
        *self.shared.active.lock() = (number, Default::default());
        self.active = Some(Active { number, file, end: SEGMENT_HEADER_BYTES });
        self.durable_lsn = self.next_lsn;
        self.put_checkpoint();
        self.put_checkpoint();
        Ok(())
    }

    fn put_checkpoint(&mut self) {
        let payload = state::encode_all(self.states.values());
        let key = ReplicaKey::default();
        self.encode(small(Kind::Checkpoint, key, None, payload.into()));
    }

    /// Ends the open segment: what is in the round, a footer, one write, one sync.
    fn seal(&mut self) -> Result<(), Stop> {
        let active = self.active.as_ref().expect("a segment is open");
        let at = active.end + self.round.bytes();
        let index = self.shared.active.lock().1.clone();
        let states: Vec<ReplicaState> = self.states.values().cloned().collect();
        let (lsn, durable_lsn) = (self.next_lsn, self.durable_lsn);
        let seat = super::recover::Seat {
            number: active.number,
            at,
            lsn,
            durable_lsn,
            newest_vote_lsn: self.newest_vote_lsn,
            id: self.shared.id,
        };
        self.round.add_footer(super::recover::footer_bytes(&index, &states, seat));
        self.next_lsn += 1;
        let summary = Summary::new(at, &index);
        self.shared.sealed.write().insert(active.number, summary);
        self.flush(true, true)?;
        let active = self.active.take().expect("a segment was open");
        add(&self.shared.counters.segments_sealed, 1);
        // Gives back what was reserved and not used. When this is lost the trailer is not at the
        // end, and opening finds the footer by reading the segment.
        active.file.set_len(active.end).map_err(|error| failed("seal", &error))
    }

    /// Proves on disk that the last round was synced.
    fn mark(&mut self) -> Result<(), ()> {
        if self.is_marked || self.active.is_none() {
            self.is_marked = true;
            return Ok(());
        }
        let key = ReplicaKey::default();
        let payload = state::encode_all(self.states.values());
        let block = small(Kind::Checkpoint, key, None, payload.into());
        let mut result = Ok(());
        let committed = std::mem::take(&mut *self.shared.committed.lock());
        for (key, position) in committed {
            result = result.and_then(|()| self.write_op(key, Op::Committed(position)));
        }
        // A mark is not worth a new segment: its checkpoints prove the same.
        if result.is_ok() && self.active.is_some() && self.fits(&block) {
            self.put_checkpoint();
        }
        match result.and_then(|()| self.flush(true, false)) {
            Ok(()) => {
                add(&self.shared.counters.idle_syncs, 1);
                self.is_marked = true;
                self.tell_room();
                Ok(())
            }
            Err(reason) => {
                self.stop(reason, VecDeque::new());
                Err(())
            }
        }
    }

    fn tell_room(&self) {
        let end = self.active.as_ref().map_or(self.shared.cfg.segment_bytes, |active| active.end);
        let left = self.shared.cfg.segment_bytes.saturating_sub(end);
        self.preparer.set_active_left(left);
    }

    /// Sets the latch and fails everything that was not told yet, in order.
    fn stop(&mut self, reason: StopReason, left: VecDeque<Request>) {
        tracing::error!(%reason, "the log of this node stops");
        let (reason, queued) = self.shared.queue.stop(reason);
        for done in self.pending.drain(..) {
            done(Err(Error::Stopped { reason: reason.clone() }));
        }
        refuse(left, &reason);
        refuse(queued, &reason);
        self.preparer.wake();
    }
}

/// Fails requests that will never be written.
pub(super) fn refuse(requests: impl IntoIterator<Item = Request>, reason: &StopReason) {
    for done in requests.into_iter().filter_map(|request| request.done) {
        done(Err(Error::Stopped { reason: reason.clone() }));
    }
}

fn entry_block(kind: Kind, key: ReplicaKey, entry: LogEntry) -> Block {
    let position = entry.position();
    Block { kind, flags: 0, key, position, payload: entry.payload, ticket: 0 }
}

fn small(kind: Kind, key: ReplicaKey, position: Option<LogPosition>, payload: Bytes) -> Block {
    let flags = with(position);
    let position = position.unwrap_or_default();
    Block { kind, flags, key, position, payload, ticket: 0 }
}

fn with(position: Option<LogPosition>) -> u16 {
    if position.is_some() { HAS_POSITION } else { 0 }
}

fn failed(doing: &'static str, error: &io::Error) -> StopReason {
    StopReason { doing, cause: error.to_string().into() }
}

/// Only measures how long a round took; nothing depends on it.
#[expect(clippy::disallowed_methods, reason = "only measures")]
fn now() -> Instant {
    Instant::now()
}
