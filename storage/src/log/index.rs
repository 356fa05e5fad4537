//! The index of one segment: which record lies where. It becomes the footer of a sealed segment,
//! so that opening a log does not read it all.

use std::collections::BTreeMap;

use super::block::{HEADER_BYTES, Header, Kind};
use super::codec::{Reader, put_count, put_words};
use super::slots::{Place, Slot, Slots};
use super::state::{self, HAS_POSITION, ReplicaState, STARTS_LOG};
use super::types::{IndexRange, LogPosition, ReplicaKey};

/// Offset and payload size of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) offset: u32,
    pub(super) payload_bytes: u32,
}

/// Consecutive indexes of one term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: LogPosition,
    pub(super) first_lsn: u64,
    /// Written by repair or snapshot: fills places, supersedes nothing.
    pub(super) is_record: bool,
    pub(super) spots: Vec<Spot>,
}

/// What happened to one replica's entries in this segment, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// Entries were written.
    Run(Run),
    /// `from` and above were cut.
    Truncate { from: u64 },
    /// The log restarted, its next entry is this index.
    Restart { next: u64 },
    /// Recovery could not trust `from..=to` any more.
    Forget { from: u64, to: u64 },
}

/// A record found in a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) position: LogPosition,
    pub(super) spot: Spot,
}

/// What a segment says of one index of a replica.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sight {
    /// Its newest block lies here.
    Here(Found),
    /// It was cut or forgotten: older blocks of it are void, in older segments too.
    Void,
    /// Nothing.
    Nothing,
}

/// Index of one segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SegmentIndex {
    replicas: BTreeMap<ReplicaKey, Vec<Item>>,
    spots: usize,
    items: usize,
}

impl SegmentIndex {
    /// Notes an undamaged block at `offset`.
    pub(super) fn note(&mut self, header: &Header, offset: u32) {
        match header.kind {
            Kind::Entry | Kind::Record => self.note_entry(header, offset),
            Kind::Truncate => {
                let from = match header.flags & HAS_POSITION {
                    0 => 0,
                    _ => header.position.index + 1,
                };
                self.push(header.key, Item::Truncate { from });
            }
            Kind::Reset => self.push(header.key, Item::Restart { next: header.position.index + 1 }),
            Kind::Drop => {
                self.replicas.remove(&header.key);
            }
            Kind::Vote
            | Kind::Committed
            | Kind::Purge
            | Kind::Whole
            | Kind::Checkpoint
            | Kind::Footer => {}
        }
    }

    /// Notes that recovery no longer trusts `from..=to`.
    pub(super) fn note_forgotten(&mut self, key: ReplicaKey, from: u64, to: u64) {
        self.push(key, Item::Forget { from, to });
    }

    fn note_entry(&mut self, header: &Header, offset: u32) {
        let spot = Spot { offset, payload_bytes: header.payload_bytes };
        let is_record = header.kind == Kind::Record;
        if header.flags & STARTS_LOG != 0 {
            self.push(header.key, Item::Restart { next: header.position.index });
        }
        self.spots += 1;
        let items = self.replicas.entry(header.key).or_default();
        if let Some(Item::Run(run)) = items.last_mut() {
            let next = run.first.index + run.spots.len() as u64;
            if run.is_record == is_record
                && next == header.position.index
                && run.first.term == header.position.term
                && run.first.leader == header.position.leader
            {
                run.spots.push(spot);
                return;
            }
        }
        self.items += 1;
        let run =
            Run { first: header.position, first_lsn: header.lsn, is_record, spots: vec![spot] };
        items.push(Item::Run(run));
    }

    fn push(&mut self, key: ReplicaKey, item: Item) {
        self.items += 1;
        self.replicas.entry(key).or_default().push(item);
    }

    /// Upper bound of the encoded size, without the states.
    pub(super) fn encoded_bytes_max(&self) -> usize {
        64 + self.spots * 8 + self.items * 64 + self.replicas.len() * 32
    }

    /// Replays the segment onto the dense index of one replica.
    pub(super) fn replay(&self, key: ReplicaKey, segment: u64, slots: &mut Slots) {
        for item in self.replicas.get(&key).into_iter().flatten() {
            match item {
                Item::Run(run) => replay_run(run, segment, slots),
                Item::Truncate { from } => slots.truncate(*from),
                Item::Restart { next } => slots.restart(*next),
                Item::Forget { from, to } => slots.forget(*from, *to),
            }
        }
    }

    /// What happened last to `index` of a replica, of blocks those that `visible` accepts by LSN.
    pub(super) fn find(&self, key: ReplicaKey, index: u64, visible: impl Fn(u64) -> bool) -> Sight {
        let items = self.replicas.get(&key).into_iter().flatten();
        let last = items.rev().find_map(|item| match item {
            Item::Run(run) => {
                let at = usize::try_from(index.checked_sub(run.first.index)?).ok()?;
                let spot = *run.spots.get(at)?;
                let position = LogPosition { index, ..run.first };
                visible(run.first_lsn).then_some(Sight::Here(Found { position, spot }))
            }
            Item::Truncate { from } => (index >= *from).then_some(Sight::Void),
            Item::Forget { from, to } => (*from..=*to).contains(&index).then_some(Sight::Void),
            // Records outlive it as far as the replica's state shows them.
            Item::Restart { .. } => None,
        });
        last.unwrap_or(Sight::Nothing)
    }

    /// Moves `held`, the ranges of a replica's blocks that are valid, over this segment: adds what
    /// `shown_through` shows of each run by its LSN, takes away what was cut or forgotten.
    pub(super) fn show(
        &self,
        key: ReplicaKey,
        held: &mut Vec<IndexRange>,
        shown_through: impl Fn(u64) -> Option<u64>,
    ) {
        for item in self.replicas.get(&key).into_iter().flatten() {
            match item {
                Item::Run(run) => {
                    let last = run.first.index + run.spots.len() as u64 - 1;
                    let to = shown_through(run.first_lsn).map(|through| last.min(through));
                    if let Some(to) = to.filter(|to| run.first.index <= *to) {
                        held.push(IndexRange { from: run.first.index, to });
                    }
                }
                Item::Truncate { from } => take_away(held, *from, u64::MAX),
                Item::Forget { from, to } => take_away(held, *from, *to),
                Item::Restart { .. } => {}
            }
        }
    }

    /// For each replica the lowest index that was cut or forgotten here.
    pub(super) fn voids(&self) -> BTreeMap<ReplicaKey, u64> {
        let lowest = |items: &Vec<Item>| {
            let cuts = items.iter().filter_map(|item| match item {
                Item::Truncate { from } | Item::Forget { from, .. } => Some(*from),
                Item::Run(_) | Item::Restart { .. } => None,
            });
            cuts.min()
        };
        let all = self.replicas.iter();
        all.filter_map(|(key, items)| Some((*key, lowest(items)?))).collect()
    }

    /// Lowest and highest index of each replica.
    pub(super) fn ranges(&self) -> BTreeMap<ReplicaKey, (u64, u64)> {
        let mut ranges = BTreeMap::new();
        for (key, items) in &self.replicas {
            for item in items {
                let Item::Run(run) = item else { continue };
                let last = run.first.index + run.spots.len() as u64 - 1;
                let range = ranges.entry(*key).or_insert((run.first.index, last));
                *range = (range.0.min(run.first.index), range.1.max(last));
            }
        }
        ranges
    }

    /// Every record's offset, for scrubbing.
    pub(super) fn spots(&self) -> impl Iterator<Item = (ReplicaKey, LogPosition, Spot)> + '_ {
        self.replicas.iter().flat_map(|(key, items)| {
            items.iter().flat_map(move |item| {
                let (first, spots) = match item {
                    Item::Run(run) => (run.first, run.spots.as_slice()),
                    _ => (LogPosition::default(), [].as_slice()),
                };
                (first.index..)
                    .zip(spots)
                    .map(move |(index, spot)| (*key, LogPosition { index, ..first }, *spot))
            })
        })
    }

    /// The payload of a footer: this index and the states of all replicas at its end.
    pub(super) fn encode<'a>(
        &self,
        states: impl ExactSizeIterator<Item = &'a ReplicaState>,
    ) -> Vec<u8> {
        let states = state::encode_all(states);
        let mut out = Vec::with_capacity(self.encoded_bytes_max() + states.len());
        put_count(&mut out, states.len());
        out.extend_from_slice(&states);
        put_count(&mut out, self.replicas.len());
        for (key, items) in &self.replicas {
            out.extend_from_slice(&key.group.to_le_bytes());
            put_words(&mut out, &[key.incarnation, key.replica]);
            put_count(&mut out, items.len());
            items.iter().for_each(|item| encode_item(item, &mut out));
        }
        out
    }

    /// Reads the payload of a footer.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, Vec<ReplicaState>)> {
        let mut reader = Reader::new(bytes);
        let count = reader.u32()? as usize;
        let states = state::decode_all(reader.take(count)?)?;
        let mut index = Self::default();
        let replicas = reader.list(|reader| {
            let group = reader.u32()?;
            let key = ReplicaKey { group, incarnation: reader.u64()?, replica: reader.u64()? };
            Some((key, reader.list(decode_item)?))
        })?;
        for (key, items) in replicas {
            index.items += items.len();
            index.spots += items
                .iter()
                .map(|item| if let Item::Run(run) = item { run.spots.len() } else { 0 })
                .sum::<usize>();
            index.replicas.insert(key, items);
        }
        reader.is_at_end().then_some((index, states))
    }
}

/// Takes `from..=to` out of a set of ranges.
fn take_away(held: &mut Vec<IndexRange>, from: u64, to: u64) {
    let mut behind = Vec::new();
    held.retain_mut(|range| {
        if range.to < from || to < range.from {
            return true;
        }
        if to < range.to {
            behind.push(IndexRange { from: to + 1, to: range.to });
        }
        let is_left = range.from < from;
        range.to = from.saturating_sub(1);
        is_left
    });
    held.append(&mut behind);
}

fn replay_run(run: &Run, segment: u64, slots: &mut Slots) {
    for (index, spot) in (run.first.index..).zip(&run.spots) {
        let place = Place { segment, offset: spot.offset, payload_bytes: spot.payload_bytes };
        let (term, leader) = (run.first.term, run.first.leader);
        let slot = Slot { term, leader, place: Some(place), payload: None, ticket: 0 };
        if run.is_record { slots.fill(index, slot) } else { slots.supersede(index, slot) }
    }
}

fn encode_item(item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Run(run) => {
            out.push(if run.is_record { 2 } else { 1 });
            put_words(out, &[run.first.index, run.first.term, run.first.leader, run.first_lsn]);
            put_count(out, run.spots.len());
            for spot in &run.spots {
                out.extend_from_slice(&spot.offset.to_le_bytes());
                out.extend_from_slice(&spot.payload_bytes.to_le_bytes());
            }
        }
        Item::Truncate { from } => {
            out.push(3);
            put_words(out, &[*from]);
        }
        Item::Restart { next } => {
            out.push(4);
            put_words(out, &[*next]);
        }
        Item::Forget { from, to } => {
            out.push(5);
            put_words(out, &[*from, *to]);
        }
    }
}

fn decode_item(reader: &mut Reader<'_>) -> Option<Item> {
    let kind = reader.u8()?;
    match kind {
        1 | 2 => {
            let first = reader.position()?;
            let first_lsn = reader.u64()?;
            let spots = reader.list(|reader| {
                Some(Spot { offset: reader.u32()?, payload_bytes: reader.u32()? })
            })?;
            (!spots.is_empty()).then_some(Item::Run(Run {
                first,
                first_lsn,
                is_record: kind == 2,
                spots,
            }))
        }
        3 => Some(Item::Truncate { from: reader.u64()? }),
        4 => Some(Item::Restart { next: reader.u64()? }),
        5 => Some(Item::Forget { from: reader.u64()?, to: reader.u64()? }),
        _ => None,
    }
}

/// Smallest space that one more block, the footer and the trailer need at the end of a segment.
pub(super) fn tail_bytes(index: &SegmentIndex, states_bytes: usize) -> usize {
    index.encoded_bytes_max() + states_bytes + 2 * HEADER_BYTES + 256
}
