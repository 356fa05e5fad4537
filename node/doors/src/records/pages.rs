//! Reading one group from a position to the end of a view, in answers of bounded size.
//!
//! A limit may end inside a batch: the position then says how many records of it were given, so
//! that page after page yields each record once. Blocking: runs on a blocking thread.

use dtm_machine::reads;
use dtm_machine::seams::StateRead;
use dtm_proto::records::{Position, QuarantinedRecord, StoredRecord};
use dtm_types::format::Place;
use dtm_types::{GroupId, StreamKey};
use tonic::Status;

use super::position;
use crate::ahead::PAGE_BYTES;
use crate::status::internal;

/// Batches read from rows at a time.
const PLACES_A_STEP: usize = 64;
/// An answer is sent when it holds this many bytes: a batch of the usual size.
const ANSWER_BYTES: usize = PAGE_BYTES as usize;
/// What a record takes in an answer besides its payload, about.
const RECORD_BYTES: usize = 200;

/// What is read, and how a batch of it is opened.
pub(crate) trait Selection {
    /// What an answer holds.
    type Item: Item;

    /// The stream, where only one is read: the position is then a sequence.
    fn stream(&self) -> Option<&StreamKey> {
        None
    }

    /// Batches after (index, ordinal), in commit order; empty only at the end.
    fn after(&self, state: &dyn StateRead, after: Option<(u64, u32)>)
    -> Result<Vec<Place>, Status>;

    /// Items of a batch, in order.
    fn items(&mut self, place: &Place, wanted: Wanted) -> Result<Vec<Self::Item>, Status>;
}

/// What is wanted of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// First sequence.
    pub from: u64,
    /// Most records: those that follow are not worth their work.
    pub records_max: usize,
}

/// One record of an answer.
pub(crate) trait Item {
    fn sequence(&self) -> u64;
    fn payload_bytes(&self) -> usize;
}

impl Item for StoredRecord {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
}

impl Item for QuarantinedRecord {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
}

/// Takes an answer and where the reader stands after it; false when nobody listens any more.
pub(crate) type Answer<'a, T> = dyn FnMut(Vec<T>, &Position) -> bool + 'a;

/// Reads one group; `position` is moved along. Returns how many items were given: `limit` at most,
/// less only at the end of the view or when nobody listens.
pub(crate) fn read<S: Selection>(
    selection: &mut S,
    (group, state): (GroupId, &dyn StateRead),
    position: &mut Position,
    limit: u64,
    answer: &mut Answer<'_, S::Item>,
) -> Result<u64, Status> {
    assert!(limit > 0, "a page holds a record at least");
    let mut page: Vec<S::Item> = Vec::new();
    let (mut bytes, mut given) = (0, 0);
    loop {
        let places = next_places(selection, state, group, position)?;
        if places.is_empty() {
            break;
        }
        for place in places {
            let from = first_wanted(selection, group, &place, position);
            let room = usize::try_from(limit - given).unwrap_or(usize::MAX);
            // One more than is given: whether the batch has more is seen by it.
            let wanted = Wanted { from, records_max: room.saturating_add(1) };
            let mut items = selection.items(&place, wanted)?;
            let cut_at = cut(&mut items, room);
            given += items.len() as u64;
            bytes += items.iter().map(|r| r.payload_bytes() + RECORD_BYTES).sum::<usize>();
            page.append(&mut items);
            let through = cut_at.unwrap_or(place.last_sequence);
            advance(selection, position, group, &place, through);
            if given >= limit {
                answer(page, position);
                return Ok(given);
            }
            if bytes >= ANSWER_BYTES {
                bytes = 0;
                if !answer(std::mem::take(&mut page), position) {
                    return Ok(given);
                }
            }
        }
    }
    if !page.is_empty() {
        answer(page, position);
    }
    Ok(given)
}

fn next_places(
    selection: &impl Selection,
    state: &dyn StateRead,
    group: GroupId,
    position: &Position,
) -> Result<Vec<Place>, Status> {
    if let Some(stream) = selection.stream() {
        let places = reads::stream_places(state, stream, position.sequence + 1, PLACES_A_STEP);
        return places.map_err(internal);
    }
    let at = position::of_group(position, group);
    let mut places = Vec::new();
    if let Some((index, ordinal, 1..)) = at {
        places.extend(reads::place(state, index, ordinal).map_err(internal)?);
    }
    places.extend(selection.after(state, at.map(|(index, ordinal, _)| (index, ordinal)))?);
    Ok(places)
}

/// First sequence of a batch that was not given yet.
fn first_wanted(
    selection: &impl Selection,
    group: GroupId,
    place: &Place,
    position: &Position,
) -> u64 {
    if selection.stream().is_some() {
        return position.sequence + 1;
    }
    match position::of_group(position, group) {
        Some((index, ordinal, passed)) if (index, ordinal) == (place.index, place.ordinal) => {
            place.first_sequence + u64::from(passed)
        }
        _ => place.first_sequence,
    }
}

/// Everything of this batch through a sequence was given.
fn advance(
    selection: &impl Selection,
    position: &mut Position,
    group: GroupId,
    place: &Place,
    through: u64,
) {
    if selection.stream().is_some() {
        position.sequence = through;
        return;
    }
    let passed = (through < place.last_sequence).then(|| {
        let passed = through + 1 - place.first_sequence;
        u32::try_from(passed).expect("a batch has fewer than 2^32 records")
    });
    position::advance(position, group, place, passed);
}

/// Keeps the first `room` items; the last sequence that is kept where any had to go.
fn cut<T: Item>(items: &mut Vec<T>, room: usize) -> Option<u64> {
    if items.len() <= room {
        return None;
    }
    items.truncate(room);
    items.last().map(Item::sequence)
}

/// Opens batches.
pub(crate) trait Batches {
    /// The records of a batch that were stored: neither refused nor doubled.
    fn stored(
        &mut self,
        place: &Place,
        wanted: Wanted,
        digests_only: bool,
    ) -> Result<Vec<StoredRecord>, Status>;

    /// The refused records of a batch.
    fn refused(
        &mut self,
        place: &Place,
        wanted: Wanted,
        with_payload: bool,
    ) -> Result<Vec<QuarantinedRecord>, Status>;
}

/// Stored records of a data set, a source or a stream.
pub(crate) struct Stored<'a, B> {
    pub dataset: &'a str,
    pub source: &'a str,
    pub stream: Option<&'a StreamKey>,
    pub digests_only: bool,
    pub batches: B,
}

impl<B: Batches> Selection for Stored<'_, B> {
    type Item = StoredRecord;

    fn stream(&self) -> Option<&StreamKey> {
        self.stream
    }

    fn after(
        &self,
        state: &dyn StateRead,
        after: Option<(u64, u32)>,
    ) -> Result<Vec<Place>, Status> {
        reads::places_after(state, after, PLACES_A_STEP).map_err(internal)
    }

    fn items(&mut self, place: &Place, wanted: Wanted) -> Result<Vec<StoredRecord>, Status> {
        let is_wanted = (self.dataset.is_empty() || self.dataset == place.dataset)
            && (self.source.is_empty() || self.source == place.source);
        if !is_wanted {
            return Ok(Vec::new());
        }
        self.batches.stored(place, wanted, self.digests_only)
    }
}

/// Refused records of a source.
pub(crate) struct Refused<'a, B> {
    pub source: &'a str,
    /// Empty = all streams.
    pub stream: &'a str,
    pub from_sequence: u64,
    pub with_payload: bool,
    pub batches: B,
}

impl<B: Batches> Selection for Refused<'_, B> {
    type Item = QuarantinedRecord;

    fn after(
        &self,
        state: &dyn StateRead,
        mut after: Option<(u64, u32)>,
    ) -> Result<Vec<Place>, Status> {
        loop {
            let rows = reads::quarantined(state, self.source, after, PLACES_A_STEP);
            let rows = rows.map_err(internal)?;
            let mut places = Vec::with_capacity(rows.len());
            for (index, ordinal, _) in &rows {
                places.extend(reads::place(state, *index, *ordinal).map_err(internal)?);
            }
            // Rows whose batches were retired are passed over.
            if rows.is_empty() || !places.is_empty() {
                return Ok(places);
            }
            after = rows.last().map(|(index, ordinal, _)| (*index, *ordinal));
        }
    }

    fn items(&mut self, place: &Place, wanted: Wanted) -> Result<Vec<QuarantinedRecord>, Status> {
        let from = wanted.from.max(self.from_sequence);
        let is_wanted = self.stream.is_empty() || self.stream == place.stream;
        if !is_wanted || place.last_sequence < from {
            return Ok(Vec::new());
        }
        self.batches.refused(place, Wanted { from, ..wanted }, self.with_payload)
    }
}
