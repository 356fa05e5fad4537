//! The durable state of one replica's log, apart from where its entries lie.
//!
//! One type for three uses: the writer keeps it in step with what it wrote, a checkpoint stores it,
//! recovery rebuilds it. [`ReplicaState::advance`] is the only place that says what a block means.

use bytes::Bytes;

use super::block::{Header, Kind};
use super::codec::{Reader, put_blob, put_count, put_option, put_position, put_words};
use super::types::{LogPosition, ReplicaKey};

/// Set in `flags` of a block whose position is the replica's last entry.
pub(super) const HAS_POSITION: u16 = 0x8000;
/// Set in `flags` of the first entry of a log that was never purged or reset.
pub(super) const STARTS_LOG: u16 = 0x4000;
/// Set in `flags` of a truncate or reset of a log that was not whole: what it dropped may have been
/// acknowledged, so the end of the log is unknown until it is declared whole.
pub(super) const UNSURE: u16 = 0x2000;
/// Resets remembered one by one; older ones are merged carefully.
const RESETS_MAX: usize = 32;

/// Records written before `lsn` are only valid up to `visible_through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResetMark {
    pub(super) lsn: u64,
    /// What was applied when the log was reset: what lay above was perhaps never committed.
    pub(super) visible_through: Option<u64>,
}

/// Durable state of one replica's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ReplicaState {
    pub(super) key: ReplicaKey,
    /// LSN of the newest block of this replica.
    pub(super) last_lsn: u64,
    /// LSN of the first copy of the vote in force.
    pub(super) vote_lsn: u64,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    /// First index of a log that was never purged.
    pub(super) begin: u64,
    pub(super) purged: Option<LogPosition>,
    /// Last entry, or the purge mark when nothing is above it.
    pub(super) last: Option<LogPosition>,
    pub(super) resets: Vec<ResetMark>,
    pub(super) tail_unknown: bool,
    pub(super) vote_lost: bool,
}

impl ReplicaState {
    pub(super) fn new(key: ReplicaKey) -> Self {
        Self { key, ..Self::default() }
    }

    /// Moves the state over a block of this replica. `payload` is `None` when it is damaged.
    pub(super) fn advance(&mut self, header: &Header, payload: Option<&[u8]>) {
        assert_eq!(header.key, self.key, "a block moves the state of its own replica only");
        self.last_lsn = header.lsn;
        match header.kind {
            Kind::Entry => {
                if header.flags & STARTS_LOG != 0 {
                    self.begin = header.position.index;
                }
                self.last = Some(header.position);
            }
            Kind::Vote => {
                if let Some(payload) = payload {
                    self.vote = Some(Bytes::copy_from_slice(payload));
                    self.vote_lsn = header.vote_lsn;
                    self.vote_lost = false;
                }
            }
            Kind::Committed => {
                if let Some(payload) = payload {
                    self.committed = Some(Bytes::copy_from_slice(payload));
                }
            }
            Kind::Truncate => {
                let kept = (header.flags & HAS_POSITION != 0).then_some(header.position);
                self.last = kept.or(self.purged);
                self.tail_unknown |= header.flags & UNSURE != 0;
            }
            Kind::Purge => self.purge(header.position),
            Kind::Reset => {
                // Without its payload nothing written before is shown: it is fetched again.
                let through = payload.and_then(|bytes| bytes.try_into().ok());
                self.mark_reset(header.lsn, through.map(u64::from_le_bytes));
                self.purged = Some(header.position);
                self.last = Some(header.position);
                self.tail_unknown |= header.flags & UNSURE != 0;
            }
            Kind::Whole => self.tail_unknown = false,
            Kind::Record | Kind::Drop => {}
            Kind::Checkpoint | Kind::Footer => {
                unreachable!("node-wide blocks belong to no replica")
            }
        }
    }

    fn purge(&mut self, position: LogPosition) {
        if self.purged.is_none_or(|purged| purged.index < position.index) {
            self.purged = Some(position);
        }
        if self.last.is_none_or(|last| last.index < position.index) {
            self.last = Some(position);
        }
    }

    fn mark_reset(&mut self, lsn: u64, visible_through: Option<u64>) {
        self.resets.push(ResetMark { lsn, visible_through });
        if self.resets.len() > RESETS_MAX {
            // Merging hides more than needed, never less: hidden records are fetched again.
            let oldest = self.resets.remove(0);
            let next = &mut self.resets[0];
            next.visible_through = next.visible_through.min(oldest.visible_through);
        }
    }

    /// Up to which index records written at `lsn` are still known to be the committed ones.
    pub(super) fn shown_through(&self, lsn: u64) -> Option<u64> {
        let later = self.resets.iter().filter(|mark| lsn < mark.lsn);
        later.map(|mark| mark.visible_through).min().unwrap_or(Some(u64::MAX))
    }

    /// Whether a record at `index`, written at `lsn`, is still known to be the committed one.
    pub(super) fn shows_record(&self, index: u64, lsn: u64) -> bool {
        self.shown_through(lsn).is_some_and(|through| index <= through)
    }

    pub(super) fn purged_index(&self) -> Option<u64> {
        self.purged.map(|purged| purged.index)
    }

    /// First index that can lie in the log.
    pub(super) fn first_index(&self) -> u64 {
        self.purged.map_or(self.begin, |purged| purged.index + 1)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.group.to_le_bytes());
        put_words(out, &[self.key.incarnation, self.key.replica]);
        put_words(out, &[self.last_lsn, self.vote_lsn, self.begin]);
        put_option(out, self.vote.as_ref(), |out, vote| put_blob(out, vote));
        put_option(out, self.committed.as_ref(), |out, committed| put_blob(out, committed));
        put_option(out, self.purged, put_position);
        put_option(out, self.last, put_position);
        put_count(out, self.resets.len());
        for mark in &self.resets {
            put_words(out, &[mark.lsn]);
            put_option(out, mark.visible_through, |out, index| put_words(out, &[index]));
        }
        out.push(u8::from(self.tail_unknown) | u8::from(self.vote_lost) << 1);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let group = reader.u32()?;
        let key = ReplicaKey { group, incarnation: reader.u64()?, replica: reader.u64()? };
        let mut state = Self::new(key);
        state.last_lsn = reader.u64()?;
        state.vote_lsn = reader.u64()?;
        state.begin = reader.u64()?;
        state.vote = reader.option(Reader::blob)?;
        state.committed = reader.option(Reader::blob)?;
        state.purged = reader.option(Reader::position)?;
        state.last = reader.option(Reader::position)?;
        state.resets = reader.list(|reader| {
            Some(ResetMark { lsn: reader.u64()?, visible_through: reader.option(Reader::u64)? })
        })?;
        let flags = reader.u8()?;
        state.tail_unknown = flags & 1 != 0;
        state.vote_lost = flags & 2 != 0;
        Some(state)
    }
}

/// The payload of a checkpoint: all replicas.
pub(super) fn encode_all<'a>(states: impl ExactSizeIterator<Item = &'a ReplicaState>) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + states.len() * 192);
    put_count(&mut out, states.len());
    states.for_each(|state| state.encode(&mut out));
    out
}

/// Reads the payload of a checkpoint.
pub(super) fn decode_all(bytes: &[u8]) -> Option<Vec<ReplicaState>> {
    let mut reader = Reader::new(bytes);
    let states = reader.list(ReplicaState::decode)?;
    reader.is_at_end().then_some(states)
}

/// Votes and committed positions are at most this long.
pub(super) const SMALL_BYTES_MAX: usize = 256;

/// Upper bound of the encoded size of so many states.
pub(super) fn encoded_bytes_max(states: usize) -> usize {
    let one = 4 + 16 + 24 + 2 * (5 + SMALL_BYTES_MAX) + 2 * 25 + 4 + RESETS_MAX * 17 + 1;
    8 + states * one
}
