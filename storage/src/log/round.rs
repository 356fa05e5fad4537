//! The bytes of one round: headers in one buffer, payloads where they are, no copies.

use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::Bytes;

use super::block::{ALIGN_BYTES, HEADER_BYTES, Header, Kind, VOTE_SPREAD_BYTES, padding};
use super::memory::Placed;
use super::slots::Place;
use super::types::{LogPosition, ReplicaKey};
use crate::vfs::VfsFile;

/// Payloads up to this size are copied behind their header: cheaper than another buffer.
const COPY_BYTES_MAX: usize = 1024;

/// A block before it has its numbers.
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) flags: u16,
    pub(super) key: ReplicaKey,
    pub(super) position: LogPosition,
    pub(super) payload: Bytes,
    pub(super) ticket: u64,
}

impl Block {
    fn align(&self) -> usize {
        // The second copy of a vote must not share a page with the first.
        let is_first_vote = self.kind == Kind::Vote && self.flags & 1 == 0;
        if is_first_vote { VOTE_SPREAD_BYTES } else { ALIGN_BYTES }
    }

    /// Upper bound of its size on disk; for a vote both copies, which stay in one segment.
    pub(super) fn bytes_max(&self) -> usize {
        let one = HEADER_BYTES + self.payload.len() + self.align();
        if self.align() == VOTE_SPREAD_BYTES { 2 * one } else { one }
    }

    /// The header, but for LSNs and the term before.
    pub(super) fn header(&self, cluster: u128, generation: u64, at: u64) -> Header {
        let pad = padding(at, self.payload.len(), self.align());
        Header {
            kind: self.kind,
            flags: self.flags,
            generation,
            lsn: 0,
            durable_lsn: 0,
            prev_lsn: 0,
            vote_lsn: 0,
            newest_vote_lsn: 0,
            cluster,
            key: self.key,
            position: self.position,
            prev_term: 0,
            payload_bytes: u32::try_from(self.payload.len()).expect("bounded by the segment"),
            pad_bytes: u32::try_from(pad).expect("below a page"),
        }
    }
}

enum Part {
    Head(Range<usize>),
    Payload(Bytes),
}

/// One round while it is gathered.
#[derive(Default)]
pub(super) struct Round {
    heads: Vec<u8>,
    parts: Vec<Part>,
    placed: Vec<Placed>,
    bytes: u64,
    blocks: u64,
    payload_bytes: u64,
}

impl Round {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    pub(super) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    pub(super) fn clear(&mut self) {
        *self = Self { heads: std::mem::take(&mut self.heads), ..Self::default() };
        self.heads.clear();
    }

    /// Adds a block that goes to file offset `at`.
    pub(super) fn add(&mut self, header: &Header, block: Block, at: u64) {
        let start = self.heads.len();
        header.encode(&block.payload, &mut self.heads);
        if matches!(block.kind, Kind::Entry | Kind::Record) {
            let place = Place {
                segment: header.generation,
                offset: u32::try_from(at).expect("segments are below 4 GiB"),
                payload_bytes: header.payload_bytes,
            };
            let is_record = block.kind == Kind::Record;
            let fill = is_record.then_some((block.position.term, block.position.leader));
            let (key, index, ticket) = (block.key, block.position.index, block.ticket);
            self.placed.push(Placed { key, index, ticket, place, fill });
            self.payload_bytes += u64::from(header.payload_bytes);
        }
        let pad = header.pad_bytes as usize;
        if block.payload.len() <= COPY_BYTES_MAX {
            self.heads.extend_from_slice(&block.payload);
            self.heads.resize(self.heads.len() + pad, 0);
            self.push_head(start);
        } else {
            self.push_head(start);
            self.parts.push(Part::Payload(block.payload));
            let start = self.heads.len();
            self.heads.resize(start + pad, 0);
            self.push_head(start);
        }
        self.bytes += header.block_bytes() as u64;
        self.blocks += 1;
    }

    /// Adds a footer, already encoded.
    pub(super) fn add_footer(&mut self, footer: Vec<u8>) {
        self.bytes += footer.len() as u64;
        self.blocks += 1;
        self.parts.push(Part::Payload(footer.into()));
    }

    fn push_head(&mut self, start: usize) {
        let end = self.heads.len();
        match self.parts.last_mut() {
            Some(Part::Head(range)) if range.end == start => range.end = end,
            _ if start == end => {}
            _ => self.parts.push(Part::Head(start..end)),
        }
    }

    /// Writes everything in one vectored write.
    pub(super) fn write(&self, file: &dyn VfsFile, at: u64) -> io::Result<()> {
        let slices: Vec<IoSlice<'_>> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Head(range) => IoSlice::new(&self.heads[range.clone()]),
                Part::Payload(payload) => IoSlice::new(payload),
            })
            .collect();
        file.write_at(at, &slices)
    }
}
