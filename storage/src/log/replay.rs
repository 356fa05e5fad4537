//! Rebuilding the state of all replicas from blocks and checkpoints, with or without holes.
//!
//! Pure. Owns the states while they are rebuilt. What a hole took is found by three chains: LSNs
//! without holes, each replica's `prev_lsn`, and (index, term of the entry before) as in Raft's log
//! matching. What cannot be shown to be whole is reported as missing, never guessed.

use std::collections::BTreeMap;

use super::block::{HEADER_BYTES, Header, Kind};
use super::index::SegmentIndex;
use super::scan::{Hole, Seen};
use super::slots::{Place, Slot, Slots};
use super::state::{self, HAS_POSITION, ReplicaState, STARTS_LOG};
use super::types::{LogPosition, ReplicaKey};

/// One replica while it is rebuilt.
#[derive(Debug, Clone)]
pub(super) struct Rebuilt {
    pub(super) state: ReplicaState,
    pub(super) slots: Slots,
    /// Its state is certain up to this LSN.
    confirmed_lsn: u64,
    /// A block of it was lost and nothing since told how its log continued.
    is_unsure: bool,
}

/// All replicas while they are rebuilt.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) replicas: BTreeMap<ReplicaKey, Rebuilt>,
    pub(super) next_lsn: u64,
    pub(super) holes: Vec<Hole>,
    /// Blocks with an intact header and a damaged payload.
    pub(super) damaged_blocks: u64,
    /// First LSN of a damaged vote, by replica: lost unless a copy was read.
    damaged_votes: BTreeMap<ReplicaKey, u64>,
}

impl Replay {
    pub(super) fn new() -> Self {
        Self { next_lsn: 1, ..Self::default() }
    }

    /// Takes over a sealed segment by its footer.
    pub(super) fn adopt_footer(
        &mut self,
        number: u64,
        index: &SegmentIndex,
        states: Vec<ReplicaState>,
        lsn: u64,
    ) {
        let mut old = std::mem::take(&mut self.replicas);
        for state in states {
            let known = old.remove(&state.key);
            let mut slots = known.map_or_else(|| Slots::starting_at(state.begin), |r| r.slots);
            index.replay(state.key, number, &mut slots);
            fit(&mut slots, &state);
            let rebuilt = Rebuilt { state, slots, confirmed_lsn: lsn, is_unsure: false };
            self.replicas.insert(rebuilt.state.key, rebuilt);
        }
        self.damaged_votes.clear();
        self.next_lsn = lsn + 1;
    }

    /// Takes over one scanned block. `bytes` is the whole block; what later readers may use is
    /// noted in `index`.
    pub(super) fn adopt_block(&mut self, seen: &Seen, bytes: &[u8], index: &mut SegmentIndex) {
        let header = &seen.header;
        if header.lsn > self.next_lsn {
            self.holes.push(Hole::before(header, self.next_lsn));
        }
        self.next_lsn = header.lsn + 1;
        let payload = &bytes[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize];
        let payload = seen.is_whole.then_some(payload);
        self.damaged_blocks += u64::from(!seen.is_whole);
        match header.kind {
            Kind::Footer => {}
            Kind::Checkpoint => {
                if let Some(states) = payload.and_then(state::decode_all) {
                    self.adopt_checkpoint(states, header.lsn, index);
                }
            }
            Kind::Drop => {
                self.replicas.remove(&header.key);
                index.note(header, 0);
            }
            _ => self.adopt_replica_block(seen, payload, index),
        }
    }

    fn adopt_replica_block(
        &mut self,
        seen: &Seen,
        payload: Option<&[u8]>,
        index: &mut SegmentIndex,
    ) {
        let header = &seen.header;
        let lost = self.lost_since(header.key, header.lsn);
        let rebuilt = self.replicas.entry(header.key).or_insert_with(|| Rebuilt {
            state: ReplicaState::new(header.key),
            slots: Slots::starting_at(0),
            confirmed_lsn: 0,
            is_unsure: false,
        });
        let chain_is_whole = header.prev_lsn == rebuilt.state.last_lsn;
        if !chain_is_whole {
            rebuilt.is_unsure = true;
            if header.kind != Kind::Vote && header.vote_lsn > rebuilt.state.vote_lsn {
                rebuilt.state.vote_lost = true;
            }
        }
        rebuilt.continue_log(header, lost, index);
        if header.kind == Kind::Vote && payload.is_none() {
            self.damaged_votes.insert(header.key, header.vote_lsn);
        }
        rebuilt.state.advance(header, payload);
        rebuilt.confirmed_lsn = header.lsn;
        if seen.is_whole {
            index.note(header, u32::try_from(seen.offset).expect("segments are below 4 GiB"));
        }
        rebuilt.place(seen);
    }

    /// Takes over what a checkpoint says where blocks before it were lost.
    fn adopt_checkpoint(&mut self, states: Vec<ReplicaState>, lsn: u64, index: &mut SegmentIndex) {
        let named: Vec<ReplicaKey> = states.iter().map(|state| state.key).collect();
        self.replicas.retain(|key, _| named.contains(key));
        for stored in states {
            let lost = self.lost_since(stored.key, lsn);
            let rebuilt = self.replicas.entry(stored.key).or_insert_with(|| Rebuilt {
                slots: Slots::starting_at(stored.first_index()),
                state: ReplicaState { purged: stored.purged, ..ReplicaState::new(stored.key) },
                confirmed_lsn: 0,
                is_unsure: false,
            });
            if stored.last_lsn > rebuilt.state.last_lsn {
                rebuilt.reconcile(stored.last, lost, index);
                rebuilt.is_unsure = false;
                rebuilt.state = stored;
                fit(&mut rebuilt.slots, &rebuilt.state);
            } else if stored.last_lsn == rebuilt.state.last_lsn {
                // Same blocks seen; a damaged payload among them is told whole here.
                rebuilt.state.vote = stored.vote;
                rebuilt.state.vote_lsn = stored.vote_lsn;
                rebuilt.state.committed = stored.committed;
                rebuilt.state.vote_lost = stored.vote_lost;
            }
            rebuilt.confirmed_lsn = lsn;
        }
    }

    /// How many LSNs without a readable header lie between a replica's last block and `lsn`.
    fn lost_since(&self, key: ReplicaKey, lsn: u64) -> u64 {
        let last = self.replicas.get(&key).map_or(0, |rebuilt| rebuilt.state.last_lsn);
        let inside = self.holes.iter().filter(|hole| hole.from > last && hole.to <= lsn);
        inside.map(|hole| hole.to - hole.from).sum()
    }

    /// Behind the last block lie pages that the disk does not give, the first of them where the next
    /// block would begin: blocks may be lost there, and nobody shows a sign of life behind them.
    ///
    /// One page takes one copy of a vote: the second begins with a page, and where that one is
    /// readable it is behind no torn tail.
    pub(super) fn lose_tail(&mut self, pages: usize) {
        let (from, to) = (self.next_lsn, self.next_lsn + 1);
        self.holes.push(Hole { from, to, may_hold_vote: pages > 1 });
    }

    /// After the last block: whoever may have had a block in a hole and has shown no sign of life
    /// since is unsure of its end.
    pub(super) fn finish(&mut self) {
        for rebuilt in self.replicas.values_mut() {
            let confirmed = rebuilt.confirmed_lsn;
            let mut behind = self.holes.iter().filter(|hole| hole.from > confirmed).peekable();
            if behind.peek().is_some() || rebuilt.is_unsure {
                rebuilt.state.tail_unknown = true;
            }
            // Whose votes they were is not known: it may have been this replica's.
            if behind.any(|hole| hole.may_hold_vote) {
                rebuilt.state.vote_lost = true;
            }
            let damaged = self.damaged_votes.get(&rebuilt.state.key).copied().unwrap_or(0);
            if damaged > rebuilt.state.vote_lsn {
                rebuilt.state.vote_lost = true;
            }
        }
    }
}

impl Rebuilt {
    /// Checks that a block continues the log as known, and reconciles where it does not.
    fn continue_log(&mut self, header: &Header, lost: u64, index: &mut SegmentIndex) {
        let claimed = match header.kind {
            Kind::Entry if header.flags & STARTS_LOG != 0 => {
                self.slots.restart(header.position.index);
                self.state.last = None;
                self.is_unsure = false;
                return;
            }
            // An entry names the one before it by index and term; its leader is not known.
            Kind::Entry => Some(LogPosition {
                index: header.position.index - 1,
                term: header.prev_term,
                leader: 0,
            }),
            Kind::Vote | Kind::Committed | Kind::Truncate | Kind::Whole => {
                (header.flags & HAS_POSITION != 0).then_some(header.position)
            }
            Kind::Reset => {
                self.is_unsure = false;
                return;
            }
            _ => return,
        };
        let known = self.state.last.map(|last| (last.index, last.term));
        let same = known == claimed.map(|last| (last.index, last.term));
        if !same && (header.kind != Kind::Truncate || self.is_unsure) {
            self.reconcile(claimed, lost, index);
        }
        self.is_unsure = false;
    }

    /// Makes the log end at `claimed`. Keeps what log matching proves, forgets what it cannot.
    fn reconcile(&mut self, claimed: Option<LogPosition>, lost: u64, index: &mut SegmentIndex) {
        let purged = self.state.purged;
        let known = std::mem::replace(&mut self.state.last, claimed.or(purged));
        let Some(claimed) = claimed else {
            self.slots.restart(self.state.first_index());
            return;
        };
        if purged.is_some_and(|purged| claimed.index <= purged.index) {
            self.state.last = purged;
            self.slots.restart(self.state.first_index());
            return;
        }
        self.slots.truncate(claimed.index + 1);
        let end = self.slots.end();
        if end > claimed.index && self.slots.term(claimed.index) == Some(claimed.term) {
            return; // log matching: same index and term, same log before
        }
        self.slots.extend_to(claimed.index + 1);
        let all_lost_are_entries = end <= claimed.index && claimed.index + 1 - end == lost;
        let same_term = end > 0
            && end <= claimed.index
            && known.is_some_and(|last| last.index + 1 == end && last.term == claimed.term);
        if !all_lost_are_entries && !same_term {
            let first = self.state.first_index();
            self.slots.forget(first, claimed.index);
            index.note_forgotten(self.state.key, first, claimed.index);
        }
    }

    /// Moves the dense index over a block.
    fn place(&mut self, seen: &Seen) {
        let header = &seen.header;
        let place = Place {
            segment: header.generation,
            offset: u32::try_from(seen.offset).expect("segments are below 4 GiB"),
            payload_bytes: header.payload_bytes,
        };
        let slot = Slot {
            term: header.position.term,
            leader: header.position.leader,
            place: seen.is_whole.then_some(place),
            payload: None,
            ticket: 0,
        };
        match header.kind {
            Kind::Entry => self.slots.supersede(header.position.index, slot),
            Kind::Record if seen.is_whole => self.slots.fill(header.position.index, slot),
            Kind::Reset => self.slots.restart(header.position.index + 1),
            _ => fit(&mut self.slots, &self.state),
        }
    }
}

/// Makes the dense index span exactly what the state says.
fn fit(slots: &mut Slots, state: &ReplicaState) {
    let first = state.first_index();
    if let Some(purged) = state.purged_index() {
        slots.purge(purged);
    }
    let end = state.last.map_or(first, |last| last.index + 1);
    slots.truncate(end);
    slots.extend_to(end);
}
