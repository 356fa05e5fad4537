//! Opening a log folder: which files are ours, what they hold, what was torn, what is damaged.
//!
//! After this every segment on disk is sealed: the torn tail is cut and the footer written and
//! synced before a new segment may exist, so that leftovers of a torn round can never come back.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::Path;

use super::block::{HEADER_BYTES, Header, Kind, padding};
use super::error::Error;
use super::image::{self, Unreadable, given};
use super::index::SegmentIndex;
use super::replay::Replay;
use super::scan::{Scan, scan};
use super::segment::{self, SegmentHeader};
use super::slots::Slots;
use super::state::ReplicaState;
use super::types::{Health, LogIdentity, LogPosition, ReplicaKey};
use crate::vfs::{Vfs, VfsFile, read_vec};

/// What opening the log found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments on disk.
    pub segments: u64,
    /// Segments that had to be read in full: the unsealed tail, and those with a damaged footer.
    pub segments_scanned: u64,
    /// Bytes of a torn tail that were cut. They were never acknowledged.
    pub torn_bytes: u64,
    /// Blocks inside the log whose payload is damaged.
    pub damaged_blocks: u64,
    /// Blocks inside the log that are not there any more.
    pub lost_blocks: u64,
    /// Pages of the segments read in full that the disk does not give: damage, and no torn tail.
    pub unreadable_pages: u64,
    /// Replicas that are not healthy.
    pub recovering: BTreeMap<ReplicaKey, Health>,
}

/// A sealed segment as the log remembers it: which indexes it holds and which it makes void.
#[derive(Debug, Clone, Default)]
pub(super) struct Summary {
    pub(super) bytes: u64,
    pub(super) ranges: BTreeMap<ReplicaKey, (u64, u64)>,
    /// Lowest index that was cut or forgotten.
    pub(super) voids: BTreeMap<ReplicaKey, u64>,
}

impl Summary {
    pub(super) fn new(bytes: u64, index: &SegmentIndex) -> Self {
        Self { bytes, ranges: index.ranges(), voids: index.voids() }
    }

    /// Whether its index says anything of a replica's index.
    pub(super) fn speaks_of(&self, key: ReplicaKey, index: u64) -> bool {
        let is_held = |(low, high): &(u64, u64)| (*low..=*high).contains(&index);
        self.ranges.get(&key).is_some_and(is_held)
            || self.voids.get(&key).is_some_and(|from| *from <= index)
    }

    /// Whether its index says anything of a replica.
    pub(super) fn names(&self, key: ReplicaKey) -> bool {
        self.ranges.contains_key(&key) || self.voids.contains_key(&key)
    }
}

/// The log's content after opening.
pub(super) struct Opened {
    pub(super) replicas: BTreeMap<ReplicaKey, (ReplicaState, Slots)>,
    pub(super) segments: BTreeMap<u64, Summary>,
    pub(super) next_lsn: u64,
    pub(super) next_segment: u64,
    pub(super) report: Recovery,
}

struct Opening<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    id: LogIdentity,
    replay: Replay,
    segments: BTreeMap<u64, Summary>,
    report: Recovery,
}

/// Reads the folder and seals its tail.
pub(super) fn open(vfs: &dyn Vfs, dir: &Path, id: LogIdentity) -> Result<Opened, Error> {
    let mut opening = Opening {
        vfs,
        dir,
        id,
        replay: Replay::new(),
        segments: BTreeMap::new(),
        report: Recovery::default(),
    };
    let names = vfs.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
    let newest = opening.drop_empty_tail(&numbers)?;
    for number in numbers.iter().copied().filter(|number| Some(*number) < newest) {
        opening.take_older(number)?;
    }
    match newest {
        Some(number) => opening.take_newest(number)?,
        None => opening.replay.finish(),
    }
    let replay = opening.replay;
    let mut report = opening.report;
    report.segments = opening.segments.len() as u64;
    report.damaged_blocks = replay.damaged_blocks;
    report.lost_blocks = replay.holes.iter().map(|hole| hole.to - hole.from).sum();
    let mut replicas = BTreeMap::new();
    for (key, rebuilt) in replay.replicas {
        let health = health(&rebuilt.state, &rebuilt.slots);
        if !health.is_healthy() {
            report.recovering.insert(key, health);
        }
        replicas.insert(key, (rebuilt.state, rebuilt.slots));
    }
    Ok(Opened {
        replicas,
        segments: opening.segments,
        next_lsn: replay.next_lsn,
        next_segment: numbers.last().map_or(1, |last| last + 1),
        report,
    })
}

/// Health of a replica from its state and dense index.
pub(super) fn health(state: &ReplicaState, slots: &Slots) -> Health {
    let missing = slots.missing();
    if missing.is_empty() && !state.tail_unknown && !state.vote_lost {
        return Health::Healthy;
    }
    Health::Recovering { missing, tail_unknown: state.tail_unknown, vote_lost: state.vote_lost }
}

impl Opening<'_> {
    fn open_file(&self, number: u64) -> Result<std::sync::Arc<dyn VfsFile>, Error> {
        let path = self.dir.join(segment::file_name(number));
        self.vfs.open(&path).map_err(|error| Error::io("open", path, error))
    }

    fn read_all(&self, number: u64, file: &dyn VfsFile) -> Result<(Vec<u8>, Unreadable), Error> {
        let path = || self.dir.join(segment::file_name(number));
        image::read_all(file).map_err(|error| Error::io("read", path(), error))
    }

    /// What the start of a segment says; nothing where the disk does not give it.
    fn read_header(&self, number: u64, file: &dyn VfsFile) -> Result<SegmentHeader, Error> {
        let path = self.dir.join(segment::file_name(number));
        let start = given(read_vec(file, 0, segment::SEGMENT_HEADER_BYTES as usize))
            .map_err(|error| Error::io("read", &path, error))?;
        segment::check_header(&start.unwrap_or_default(), number, self.id, &path)
    }

    /// Removes prepared segments behind the newest one that holds a block, or may hold one where the
    /// disk does not give it: nothing was ever acknowledged from them. Answers that newest one.
    fn drop_empty_tail(&self, numbers: &[u64]) -> Result<Option<u64>, Error> {
        let mut removed = false;
        let mut newest = None;
        for number in numbers.iter().rev().copied() {
            let file = self.open_file(number)?;
            let path = self.dir.join(segment::file_name(number));
            self.read_header(number, file.as_ref())?;
            let sealed = segment::read_footer(file.as_ref(), number, self.id.cluster)
                .map_err(|error| Error::io("read", &path, error))?;
            if sealed.is_some() {
                newest = Some(number);
                break;
            }
            let (bytes, unreadable) = self.read_all(number, file.as_ref())?;
            let found = scan(&bytes, number, self.id.cluster);
            if !found.blocks.is_empty() || found.ends_unreadable(&unreadable) {
                newest = Some(number);
                break;
            }
            self.vfs.remove(&path).map_err(|error| Error::io("remove", path, error))?;
            removed = true;
        }
        if removed {
            self.vfs.sync_dir(self.dir).map_err(|error| Error::io("sync", self.dir, error))?;
        }
        Ok(newest)
    }

    /// Takes a segment behind which another one holds blocks: its footer was synced.
    fn take_older(&mut self, number: u64) -> Result<(), Error> {
        let file = self.open_file(number)?;
        let path = self.dir.join(segment::file_name(number));
        if let SegmentHeader::Broken = self.read_header(number, file.as_ref())? {
            tracing::warn!(segment = number, "log segment header is damaged, blocks speak for it");
        }
        let footer = segment::read_footer(file.as_ref(), number, self.id.cluster)
            .map_err(|error| Error::io("read", &path, error))?;
        let index = if let Some(footer) = footer {
            self.replay.adopt_footer(number, &footer.index, footer.states, footer.lsn);
            footer.index
        } else {
            tracing::warn!(segment = number, "log segment footer is damaged, reading the segment");
            self.report.segments_scanned += 1;
            let (bytes, unreadable) = self.read_all(number, file.as_ref())?;
            self.report.unreadable_pages += unreadable.count() as u64;
            let found = scan(&bytes, number, self.id.cluster);
            self.replay_blocks(&found, &bytes)
        };
        let bytes = file.len().map_err(|error| Error::io("stat", path, error))?;
        self.segments.insert(number, Summary::new(bytes, &index));
        Ok(())
    }

    /// Takes the newest segment: cuts a torn tail, and seals what is left. Its own footer proves
    /// nothing, because it is written together with the last round.
    fn take_newest(&mut self, number: u64) -> Result<(), Error> {
        let file = self.open_file(number)?;
        self.report.segments_scanned += 1;
        let (mut bytes, unreadable) = self.read_all(number, file.as_ref())?;
        self.report.unreadable_pages += unreadable.count() as u64;
        if unreadable.touches(0, 1) {
            // It may have to be written again with its page.
            let header = segment::encode_header(number, self.id);
            bytes[..header.len()].copy_from_slice(&header);
        }
        let mut found = scan(&bytes, number, self.id.cluster);
        if let Some(cut) = found.cut_torn_tail(self.replay.next_lsn, &unreadable) {
            let dirty = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            // Behind a whole footer its trailer is no torn tail.
            let footer = found.blocks.last().filter(|seen| seen.header.kind == Kind::Footer);
            let cut = cut + footer.map_or(0, |_| segment::TRAILER_BYTES as usize);
            self.report.torn_bytes = dirty.saturating_sub(cut) as u64;
        }
        let is_tail_lost = found.ends_unreadable(&unreadable);
        if found.blocks.last().is_some_and(|seen| seen.header.kind == Kind::Footer) {
            // Written again below, with what this scan found.
            let footer = found.blocks.pop().expect("just seen");
            found.end = footer.offset;
        }
        let index = self.replay_blocks(&found, &bytes);
        if is_tail_lost {
            self.replay.lose_tail(unreadable.count_from(found.end));
        }
        self.replay.finish();
        let path = self.dir.join(segment::file_name(number));
        self.seal(number, file.as_ref(), &found, (&bytes, &unreadable), &index)
            .map_err(|error| Error::io("seal", &path, error))?;
        let bytes = file.len().map_err(|error| Error::io("stat", path, error))?;
        self.segments.insert(number, Summary::new(bytes, &index));
        Ok(())
    }

    fn replay_blocks(&mut self, found: &Scan, bytes: &[u8]) -> SegmentIndex {
        let mut index = SegmentIndex::default();
        for seen in &found.blocks {
            let end = (seen.offset + seen.header.block_bytes()).min(bytes.len());
            self.replay.adopt_block(seen, &bytes[seen.offset..end], &mut index);
        }
        index
    }

    /// Wipes everything behind the last block and writes a footer; returns when both are durable.
    ///
    /// The blocks of the last round are written once more: after a failed sync the kernel may show
    /// bytes that never reached the disk, and calls them clean.
    fn seal(
        &mut self,
        number: u64,
        file: &dyn VfsFile,
        found: &Scan,
        (bytes, unreadable): (&[u8], &Unreadable),
        index: &SegmentIndex,
    ) -> std::io::Result<()> {
        // Zeros in place, not a shorter file: what is reserved is kept for the footer, so that a
        // log on a full disk can be opened.
        let dirty_end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let dirty_end = dirty_end.max(unreadable.end().min(bytes.len()));
        let zeros = vec![0u8; dirty_end.saturating_sub(found.end)];
        let unproved = found.blocks.iter().find(|seen| seen.header.lsn >= found.durable_lsn);
        let from = unproved.map_or(found.end, |seen| seen.offset);
        let from = unreadable.write_from(from);
        let again = [IoSlice::new(&bytes[from..found.end]), IoSlice::new(&zeros)];
        file.write_at(from as u64, &again)?;
        file.sync_data()?;
        let lsn = self.replay.next_lsn;
        let states: Vec<ReplicaState> =
            self.replay.replicas.values().map(|rebuilt| rebuilt.state.clone()).collect();
        // Which vote was the newest is not known any more.
        let newest_vote_lsn = lsn;
        let at = found.end as u64;
        let seat = Seat { number, at, lsn, durable_lsn: lsn, newest_vote_lsn, id: self.id };
        let out = footer_bytes(index, &states, seat);
        file.write_at(seat.at, &[IoSlice::new(&out)])?;
        file.set_len(seat.at + out.len() as u64)?;
        file.sync_data()?;
        self.replay.next_lsn = lsn + 1;
        Ok(())
    }
}

/// Where a footer goes and under which numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) number: u64,
    pub(super) at: u64,
    pub(super) lsn: u64,
    pub(super) durable_lsn: u64,
    pub(super) newest_vote_lsn: u64,
    pub(super) id: LogIdentity,
}

/// A footer block and the trailer, as written behind the last block of a segment.
pub(super) fn footer_bytes(index: &SegmentIndex, states: &[ReplicaState], seat: Seat) -> Vec<u8> {
    let payload = index.encode(states.iter());
    let pad = padding(seat.at, payload.len(), super::block::ALIGN_BYTES);
    let header = Header {
        kind: Kind::Footer,
        flags: 0,
        generation: seat.number,
        lsn: seat.lsn,
        durable_lsn: seat.durable_lsn,
        prev_lsn: 0,
        vote_lsn: 0,
        newest_vote_lsn: seat.newest_vote_lsn,
        cluster: seat.id.cluster,
        key: ReplicaKey::default(),
        position: LogPosition::default(),
        prev_term: 0,
        payload_bytes: u32::try_from(payload.len()).expect("a footer is smaller than its segment"),
        pad_bytes: u32::try_from(pad).expect("below the alignment"),
    };
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len() + pad + 32);
    header.encode(&payload, &mut out);
    out.extend_from_slice(&payload);
    out.resize(out.len() + pad, 0);
    let block_bytes = out.len() as u64;
    out.extend_from_slice(&segment::encode_trailer(seat.at, block_bytes));
    out
}
