//! Reading what is on disk: entries of the log, records below the purge mark, scrubbing.

use std::sync::Arc;

use bytes::Bytes;

use super::block::HEADER_BYTES;
use super::error::Error;
use super::group::GroupLog;
use super::image;
use super::index::{Found, SegmentIndex, Sight};
use super::memory::Shared;
use super::metrics::add;
use super::scan::scan;
use super::segment::{Expected, read_footer};
use super::slots::Place;
use super::types::{IndexRange, LogEntry, LogPosition, ReplicaKey};

/// Decoded footers kept for record reads.
const INDEXES_MAX: usize = 16;

/// What a scrub found in one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Records read and checked.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Records that are damaged, by replica and index.
    pub damaged: Vec<(ReplicaKey, u64)>,
}

impl Shared {
    /// A block's payload, checked. `None` when it is damaged.
    pub(super) fn read_place(
        &self,
        key: ReplicaKey,
        position: LogPosition,
        place: Place,
    ) -> Result<Option<Bytes>, Error> {
        add(&self.counters.disk_reads, 1);
        let payload = self.files.read_block(place, Expected { key, position })?;
        if payload.is_none() {
            add(&self.counters.damaged_reads, 1);
            tracing::error!(replica = %key, index = position.index, segment = place.segment,
                offset = place.offset, "damaged block in the log");
        }
        Ok(payload.map(Bytes::from))
    }

    /// The index of a sealed segment, from its footer or by reading all of it.
    pub(super) fn segment_index(&self, number: u64) -> Result<Arc<SegmentIndex>, Error> {
        let mut indexes = self.indexes.lock();
        if let Some(at) = indexes.iter().position(|(known, _)| *known == number) {
            let hit = indexes.remove(at).expect("just found");
            let index = Arc::clone(&hit.1);
            indexes.push_back(hit);
            return Ok(index);
        }
        drop(indexes);
        let index = Arc::new(self.load_index(number)?);
        indexes = self.indexes.lock();
        indexes.push_back((number, Arc::clone(&index)));
        if indexes.len() > INDEXES_MAX {
            indexes.pop_front();
        }
        Ok(index)
    }

    fn load_index(&self, number: u64) -> Result<SegmentIndex, Error> {
        let file = self.files.file(number)?;
        let io = |error| Error::io("read", self.files.path(number), error);
        if let Some(footer) = read_footer(file.as_ref(), number, self.id.cluster).map_err(io)? {
            return Ok(footer.index);
        }
        let (bytes, _) = image::read_all(file.as_ref()).map_err(io)?;
        let mut index = SegmentIndex::default();
        let found = scan(&bytes, number, self.id.cluster);
        for seen in
            found.blocks.iter().filter(|seen| seen.is_whole && !seen.header.kind.is_node_wide())
        {
            index.note(&seen.header, u32::try_from(seen.offset).expect("below 4 GiB"));
        }
        Ok(index)
    }

    /// Reads and checks every record of a sealed segment.
    pub(super) fn scrub(&self, number: u64) -> Result<ScrubReport, Error> {
        let index = self.segment_index(number)?;
        let mut report = ScrubReport::default();
        for (key, position, spot) in index.spots() {
            let place =
                Place { segment: number, offset: spot.offset, payload_bytes: spot.payload_bytes };
            report.records += 1;
            report.bytes += HEADER_BYTES as u64 + u64::from(spot.payload_bytes);
            if self.read_place(key, position, place)?.is_none() {
                report.damaged.push((key, position.index));
                if let Some(group) = self.group(key) {
                    GroupLog::note_damage_in(&group, position.index, place);
                }
            }
        }
        Ok(report)
    }
}

impl GroupLog {
    /// A committed entry by its index, also below the purge mark, as long as its segment is kept.
    ///
    /// # Errors
    /// `NotFound` when no segment holds it, `Damaged` when its bytes are wrong.
    pub fn read_record(&self, index: u64) -> Result<LogEntry, Error> {
        let (slot, resets) = {
            let memory = self.group.memory.lock();
            let is_inside = index >= memory.slots.end() - memory.slots.len() as u64;
            if is_inside && index < memory.slots.end() {
                let slot = memory.slots.at(index).cloned();
                (Some(slot), None)
            } else {
                (None, Some(memory.state.clone()))
            }
        };
        if let Some(slot) = slot {
            return self.load(index, slot);
        }
        let state = resets.expect("one of both");
        let group = self.group.key.group;
        let visible = |lsn| state.shows_record(index, lsn);
        let Some((segment, found)) = self.find_record(index, visible)? else {
            return Err(Error::NotFound { group, index });
        };
        let Found { position, spot, .. } = found;
        let place = Place { segment, offset: spot.offset, payload_bytes: spot.payload_bytes };
        match self.shared.read_place(self.group.key, position, place)? {
            Some(payload) => {
                Ok(LogEntry { index, term: position.term, leader: position.leader, payload })
            }
            None => Err(Error::Damaged { group, index }),
        }
    }

    /// Which of the indexes `1..=through` no readable block holds, by the indexes of the segments:
    /// no payload is read. Blocking: it may read the footer of every segment.
    pub fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, Error> {
        let key = self.group.key;
        let (state, first, missing) = {
            let memory = self.group.memory.lock();
            let first = memory.slots.end() - memory.slots.len() as u64;
            (memory.state.clone(), first, memory.slots.missing())
        };
        let shown = |lsn| state.shown_through(lsn);
        // Taken first: where it is sealed meanwhile it is gone through twice, which changes nothing.
        let active = self.shared.active.lock().1.clone();
        let sealed = self.shared.sealed.read();
        let mine = sealed.iter().filter(|(_, summary)| summary.names(key));
        let numbers: Vec<u64> = mine.map(|(number, _)| *number).collect();
        drop(sealed);
        let mut held = Vec::new();
        for number in numbers {
            self.shared.segment_index(number)?.show(key, &mut held, shown);
        }
        active.show(key, &mut held, shown);
        // Above the purge mark the dense index knows better: entries may have been superseded.
        held.retain(|range| range.from < first);
        held.iter_mut().for_each(|range| range.to = range.to.min(first.saturating_sub(1)));
        let end = self.group.memory.lock().slots.end();
        if first < end {
            held.push(IndexRange { from: first, to: end - 1 });
        }
        let mut lacking = complement(held, through);
        lacking.extend(missing.into_iter().filter(|range| range.to <= through));
        lacking.sort_unstable_by_key(|range| range.from);
        Ok(lacking)
    }

    /// The newest visible block at `index`: the open segment first, then sealed ones backwards.
    fn find_record(
        &self,
        index: u64,
        visible: impl Fn(u64) -> bool + Copy,
    ) -> Result<Option<(u64, Found)>, Error> {
        let key = self.group.key;
        {
            let active = self.shared.active.lock();
            match active.1.find(key, index, visible) {
                Sight::Here(found) => return Ok(Some((active.0, found))),
                Sight::Void => return Ok(None),
                Sight::Nothing => {}
            }
        }
        let holding: Vec<u64> = self
            .shared
            .sealed
            .read()
            .iter()
            .rev()
            .filter(|(_, summary)| summary.speaks_of(key, index))
            .map(|(number, _)| *number)
            .collect();
        for number in holding {
            match self.shared.segment_index(number)?.find(key, index, visible) {
                Sight::Here(found) => return Ok(Some((number, found))),
                Sight::Void => return Ok(None),
                Sight::Nothing => {}
            }
        }
        Ok(None)
    }

    /// A block that was readable once is not any more: the replica is recovering.
    pub(super) fn note_damage(&self, index: u64, place: Place) {
        Self::note_damage_in(&self.group, index, place);
    }

    fn note_damage_in(group: &super::memory::Group, index: u64, place: Place) {
        let mut memory = group.memory.lock();
        if let Some(slot) = memory.slots.at_mut(index)
            && slot.place == Some(place)
        {
            slot.place = None;
            memory.refresh_health();
        }
    }
}

/// What of `1..=through` no range covers.
fn complement(mut held: Vec<IndexRange>, through: u64) -> Vec<IndexRange> {
    held.sort_unstable_by_key(|range| range.from);
    let mut lacking = Vec::new();
    let mut next = 1;
    for range in held {
        if range.from > next && next <= through {
            lacking.push(IndexRange { from: next, to: (range.from - 1).min(through) });
        }
        next = next.max(range.to.saturating_add(1));
    }
    if next <= through {
        lacking.push(IndexRange { from: next, to: through });
    }
    lacking
}
