//! The block: the unit that the log writes, checks and repairs.
//!
//! A block is a header of [`HEADER_BYTES`], a payload, and padding to the next multiple of
//! [`ALIGN_BYTES`]. Two checksums: one over the header alone, so that a block with a damaged
//! payload still says whose it was and where the next one starts; one over header and payload, so
//! that a payload never travels under another identity. The picture is in docs/formats-log.md.

use super::types::{LogPosition, ReplicaKey};

/// First four bytes of each block: "DTMB".
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"DTMB");
/// Version of the block layout.
pub(super) const VERSION: u8 = 1;
/// Bytes of a block's header.
pub(super) const HEADER_BYTES: usize = 136;
/// Blocks start at multiples of this.
pub(super) const ALIGN_BYTES: usize = 8;
/// The second copy of a vote starts in another page than the first.
pub(super) const VOTE_SPREAD_BYTES: usize = 4096;
const BODY_CRC_AT: usize = 128;
const HEADER_CRC_AT: usize = 132;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// A Raft entry: takes the place of whatever stood at its index and above.
    Entry = 1,
    /// A payload at a known index, by repair or snapshot: fills its place, changes nothing else.
    Record = 2,
    /// A vote; written twice, `flags` is the number of the copy.
    Vote = 3,
    /// The committed position, opaque.
    Committed = 4,
    /// The log ends at the position; `flags` 0 means that nothing above the purge mark is kept.
    Truncate = 5,
    /// Entries up to the position are only records from now on.
    Purge = 6,
    /// The log restarts behind the position.
    Reset = 7,
    /// The replica is gone; its name is never used again.
    Drop = 8,
    /// State of all replicas at this LSN; belongs to no replica.
    Checkpoint = 9,
    /// Index of a sealed segment; belongs to no replica.
    Footer = 10,
    /// The replica was declared whole again.
    Whole = 11,
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        use Kind::{
            Checkpoint, Committed, Drop, Entry, Footer, Purge, Record, Reset, Truncate, Vote, Whole,
        };
        let all = [
            Entry, Record, Vote, Committed, Truncate, Purge, Reset, Drop, Checkpoint, Footer, Whole,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Blocks of the log itself, of no replica.
    pub(super) fn is_node_wide(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Footer)
    }
}

/// The fixed part of a block. All numbers are little-endian on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: u16,
    /// Number of the segment it was written for.
    pub(super) generation: u64,
    /// Number of the block in the log, from 1, no holes.
    pub(super) lsn: u64,
    /// Every block below this LSN was on stable storage when this one was written.
    pub(super) durable_lsn: u64,
    /// LSN of the same replica's block before this one, 0 for its first.
    pub(super) prev_lsn: u64,
    /// LSN of the first copy of the replica's vote in force, its own for a vote.
    pub(super) vote_lsn: u64,
    /// LSN of the first copy of the newest vote, of any replica, of which both copies stand before
    /// this block; on disk as a distance. Never too low: an unknown one is told as this block's
    /// own LSN. It tells whether a hole right before this block took both copies of a vote.
    pub(super) newest_vote_lsn: u64,
    pub(super) cluster: u128,
    pub(super) key: ReplicaKey,
    /// Of the entry, or of the replica's last one.
    pub(super) position: LogPosition,
    /// Term of the entry before this one; 0 when there is none.
    pub(super) prev_term: u64,
    pub(super) payload_bytes: u32,
    pub(super) pad_bytes: u32,
}

/// What the bytes at a place are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A header with a valid checksum.
    Header(Header),
    /// Anything else.
    Broken,
}

impl Header {
    /// Bytes of the whole block on disk.
    pub(super) fn block_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_bytes as usize + self.pad_bytes as usize
    }

    /// Appends the header with both checksums to `out`.
    pub(super) fn encode(&self, payload: &[u8], out: &mut Vec<u8>) {
        assert_eq!(
            payload.len(),
            self.payload_bytes as usize,
            "header and payload belong together"
        );
        let start = out.len();
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.push(VERSION);
        out.push(self.kind as u8);
        out.extend_from_slice(&self.flags.to_le_bytes());
        for word in [self.generation, self.lsn, self.durable_lsn, self.prev_lsn, self.vote_lsn] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.key.group.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        for word in [
            self.key.incarnation,
            self.key.replica,
            self.position.term,
            self.position.leader,
            self.position.index,
            self.prev_term,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.pad_bytes.to_le_bytes());
        let since_vote = u32::try_from(self.lsn - self.newest_vote_lsn).unwrap_or(u32::MAX);
        out.extend_from_slice(&since_vote.to_le_bytes());
        debug_assert_eq!(out.len() - start, BODY_CRC_AT);
        let body = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), payload);
        out.extend_from_slice(&body.to_le_bytes());
        let head = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&head.to_le_bytes());
        assert_eq!(out.len() - start, HEADER_BYTES, "the layout has a fixed size");
    }

    /// Reads a header; [`Parsed::Broken`] when magic, version, kind or checksum is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Parsed {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 0) != MAGIC || bytes[4] != VERSION {
            return Parsed::Broken;
        }
        if crc32c::crc32c(&bytes[..HEADER_CRC_AT]) != u32_at(bytes, HEADER_CRC_AT) {
            return Parsed::Broken;
        }
        let Some(kind) = Kind::parse(bytes[5]) else {
            return Parsed::Broken;
        };
        let cluster = bytes[48..64].try_into().expect("16 bytes");
        Parsed::Header(Self {
            kind,
            flags: u16::from_le_bytes([bytes[6], bytes[7]]),
            generation: u64_at(bytes, 8),
            lsn: u64_at(bytes, 16),
            durable_lsn: u64_at(bytes, 24),
            prev_lsn: u64_at(bytes, 32),
            vote_lsn: u64_at(bytes, 40),
            newest_vote_lsn: u64_at(bytes, 16).saturating_sub(u64::from(u32_at(bytes, 124))),
            cluster: u128::from_le_bytes(cluster),
            key: ReplicaKey {
                group: u32_at(bytes, 64),
                incarnation: u64_at(bytes, 72),
                replica: u64_at(bytes, 80),
            },
            position: LogPosition {
                term: u64_at(bytes, 88),
                leader: u64_at(bytes, 96),
                index: u64_at(bytes, 104),
            },
            prev_term: u64_at(bytes, 112),
            payload_bytes: u32_at(bytes, 68),
            pad_bytes: u32_at(bytes, 120),
        })
    }

    /// True when `bytes` (the block from its first byte) carry the payload this header was made
    /// for. The header itself must have been parsed from them.
    pub(super) fn payload_is_whole(bytes: &[u8], payload_bytes: usize) -> bool {
        let Some(payload) = bytes.get(HEADER_BYTES..HEADER_BYTES + payload_bytes) else {
            return false;
        };
        let body = crc32c::crc32c_append(crc32c::crc32c(&bytes[..BODY_CRC_AT]), payload);
        body == u32_at(bytes, BODY_CRC_AT)
    }
}

/// Padding that brings a block to the next multiple of `align`, starting at file offset `at`.
pub(super) fn padding(at: u64, payload_bytes: usize, align: usize) -> usize {
    let end = at + (HEADER_BYTES + payload_bytes) as u64;
    let align = align as u64;
    usize::try_from(end.next_multiple_of(align) - end).expect("below the alignment")
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
