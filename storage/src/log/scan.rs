//! Reading a segment block by block: what is whole, what is damaged, where the tail is torn.
//!
//! Pure: bytes in, findings out. The rule that separates a torn tail from damage: each block says
//! which LSNs were on stable storage when it was written (`durable_lsn`). What is broken below the
//! highest such evidence is damage, wherever it lies; what is broken at or above it was never
//! acknowledged as far as the disk can tell, and is a torn tail. What the disk does not give at all
//! is damage at any place: a torn write leaves bytes that can be read.

use super::block::{ALIGN_BYTES, HEADER_BYTES, Header, Kind, Parsed};
use super::image::Unreadable;
use super::segment::SEGMENT_HEADER_BYTES;

/// A block whose header is intact.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) header: Header,
    pub(super) offset: usize,
    /// False when the payload fails its checksum.
    pub(super) is_whole: bool,
}

/// LSNs without a readable header, `from..to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Both copies of some vote may be among them.
    pub(super) may_hold_vote: bool,
}

impl Hole {
    /// The hole right before a block.
    ///
    /// The copies of a vote have neighbouring LSNs, so that no block stands between them: a vote of
    /// which no copy has a readable header lies in one hole with both. Its second copy is older
    /// than the block behind that hole, which therefore names this vote or a newer one, of whatever
    /// replica and in whatever segment: `newest_vote_lsn` at or behind `from`. A vote of which one
    /// copy has a readable header is found by that copy. The length of the hole tells nothing: a
    /// first copy that ends with its page lies right before the second one, and one bad page with a
    /// large block at its end makes a hole of more than a page.
    pub(super) fn before(header: &Header, from: u64) -> Self {
        let may_hold_vote = header.lsn - from >= 2 && header.newest_vote_lsn >= from;
        Self { from, to: header.lsn, may_hold_vote }
    }
}

/// What a segment's bytes hold.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) blocks: Vec<Seen>,
    /// Behind the last block with an intact header.
    pub(super) end: usize,
    /// Highest LSN that some block proves to have been on stable storage (exclusive).
    pub(super) durable_lsn: u64,
    /// True when bytes that are not zero follow the last block.
    pub(super) has_garbage_behind: bool,
}

/// Scans a whole segment of `cluster` with number `generation`.
pub(super) fn scan(bytes: &[u8], generation: u64, cluster: u128) -> Scan {
    let mut scan = Scan { end: SEGMENT_HEADER_BYTES as usize, ..Scan::default() };
    let mut at = scan.end;
    let mut last_lsn = 0;
    while at + HEADER_BYTES <= bytes.len() {
        let Some(seen) = block_at(bytes, at, generation, cluster, last_lsn) else {
            match resync(bytes, at, generation, cluster, last_lsn) {
                Some(next) => {
                    at = next;
                    continue;
                }
                None => break,
            }
        };
        last_lsn = seen.header.lsn;
        scan.durable_lsn = scan.durable_lsn.max(seen.header.durable_lsn);
        scan.blocks.push(seen);
        at += seen.header.block_bytes();
        scan.end = at.min(bytes.len());
    }
    scan.has_garbage_behind = bytes.get(scan.end..).is_some_and(|rest| !is_zero(rest));
    scan
}

impl Scan {
    /// Cuts the torn tail: everything from the first broken place at or above the evidence that the
    /// disk gives. Answers the offset of the cut when something was dropped.
    pub(super) fn cut_torn_tail(
        &mut self,
        mut next_lsn: u64,
        unreadable: &Unreadable,
    ) -> Option<usize> {
        let mut end = SEGMENT_HEADER_BYTES as usize;
        let durable = self.durable_lsn;
        let torn = self.blocks.iter().position(|seen| {
            let is_hole = seen.header.lsn > next_lsn
                && next_lsn >= durable
                && !unreadable.touches(end, HEADER_BYTES);
            let is_torn = !seen.is_whole
                && seen.header.lsn >= durable
                && !unreadable.touches(seen.offset, seen.header.block_bytes());
            if !is_hole && !is_torn {
                next_lsn = seen.header.lsn + 1;
                end = seen.offset + seen.header.block_bytes();
            }
            is_hole || is_torn
        });
        match torn {
            Some(first) => {
                self.blocks.truncate(first);
                self.end = end;
                Some(end)
            }
            None => self.has_garbage_behind.then_some(self.end),
        }
    }

    /// Whether the disk does not say if a block follows the last one, of a tail that was cut.
    pub(super) fn ends_unreadable(&self, unreadable: &Unreadable) -> bool {
        let is_sealed = self.blocks.last().is_some_and(|seen| seen.header.kind == Kind::Footer);
        !is_sealed && unreadable.touches(self.end, HEADER_BYTES)
    }
}

/// The block at an offset, when its header is intact and belongs to this segment.
fn block_at(
    bytes: &[u8],
    at: usize,
    generation: u64,
    cluster: u128,
    last_lsn: u64,
) -> Option<Seen> {
    let Parsed::Header(header) = Header::parse(&bytes[at..]) else {
        return None;
    };
    let fits = header.generation == generation
        && header.cluster == cluster
        && header.lsn > last_lsn
        && at + header.block_bytes() <= bytes.len();
    fits.then(|| {
        let is_whole = Header::payload_is_whole(&bytes[at..], header.payload_bytes as usize);
        Seen { header, offset: at, is_whole }
    })
}

/// The next place behind a broken one where a block of this segment starts.
fn resync(
    bytes: &[u8],
    broken: usize,
    generation: u64,
    cluster: u128,
    last_lsn: u64,
) -> Option<usize> {
    let first = (broken + 1).next_multiple_of(ALIGN_BYTES);
    let magic = super::block::MAGIC.to_le_bytes();
    (first..bytes.len().saturating_sub(HEADER_BYTES - 1)).step_by(ALIGN_BYTES).find(|at| {
        bytes[*at..*at + 4] == magic
            && block_at(bytes, *at, generation, cluster, last_lsn).is_some()
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    let chunks = bytes.chunks_exact(64);
    chunks.remainder().iter().all(|byte| *byte == 0) && { chunks }.all(|chunk| *chunk == [0; 64])
}
