//! A file of a backup: a header and chunks, each with a checksum and a seal.
//!
//! ```text
//!  header  "DTMBAKF1" ‖ backup 16 ‖ kind 1 ‖ 0 0 0 ‖ group u32 ‖ crc32c u32        36 bytes
//!  chunk   bytes u32 ‖ items u32 ‖ nonce 24 ‖ tag 16 ‖ crc32c u32 ‖ sealed bytes   52 + bytes
//!          crc32c over the 48 bytes before it and the sealed bytes
//!          associated data of the seal: header 36 ‖ number of the chunk u64 ‖ bytes u32 ‖ items u32
//! ```
//! A chunk belongs to its place: at another one, or in another file or backup, it does not open.

use bytes::{Buf, Bytes};
use dtm_types::{BackupId, GroupId};
use sha2::{Digest as _, Sha256};

use crate::Digest;

pub(crate) const MAGIC: &[u8; 8] = b"DTMBAKF1";
pub(crate) const HEADER_BYTES: usize = 36;
pub(crate) const FRAME_BYTES: usize = 52;
/// A chunk is closed once it holds so much.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// No chunk holds more: the largest entry of a log has its own, beside up to a chunk of others.
pub(crate) const CHUNK_BYTES_MAX: usize = 32 << 20;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// State rows, ascending by key.
    Rows = 1,
    /// Raft entries, ascending by index, without holes.
    Entries = 2,
}

/// A state row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Key within its group.
    pub key: Bytes,
    /// Value.
    pub value: Bytes,
}

/// SHA-256 over rows in order, as they lie in a file, opened: the state of a group.
#[derive(Clone, Debug, Default)]
pub struct StateDigest(Sha256);

impl StateDigest {
    /// Adds a row; keys ascend.
    pub fn row(&mut self, key: &[u8], value: &[u8]) {
        let mut bytes = Vec::with_capacity(8 + key.len() + value.len());
        put_row(&mut bytes, key, value);
        self.0.update(&bytes);
    }

    /// What was recorded in [`crate::GroupPart::state_digest`] over the same rows.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

/// A Raft entry as it lay in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// Replica that led the term.
    pub leader: u64,
    /// The bytes.
    pub payload: Bytes,
}

pub(crate) fn header(backup: BackupId, kind: Kind, group: GroupId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..24].copy_from_slice(&backup.0);
    header[24] = kind as u8;
    header[28..32].copy_from_slice(&group.0.to_be_bytes());
    let crc = crc32c::crc32c(&header[..32]);
    header[32..].copy_from_slice(&crc.to_be_bytes());
    header
}

pub(crate) fn associated_data(
    header: &[u8; HEADER_BYTES],
    number: u64,
    bytes: u32,
    items: u32,
) -> Vec<u8> {
    let mut data = header.to_vec();
    data.extend_from_slice(&number.to_be_bytes());
    data.extend_from_slice(&bytes.to_be_bytes());
    data.extend_from_slice(&items.to_be_bytes());
    data
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("rows and entries are below 16 MiB").to_be_bytes()
}

/// `key bytes u32 ‖ key ‖ value bytes u32 ‖ value`.
pub(crate) fn put_row(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        out.extend_from_slice(&length(part));
        out.extend_from_slice(part);
    }
}

/// `index u64 ‖ term u64 ‖ leader u64 ‖ payload bytes u32 ‖ payload`.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    for number in [entry.index, entry.term, entry.leader] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&length(&entry.payload));
    out.extend_from_slice(&entry.payload);
}

/// What was put, one after the other; `None` where the bytes do not hold exactly so many.
pub(crate) fn rows(mut bytes: Bytes, items: u32) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    for _ in 0..items {
        let key = part(&mut bytes)?;
        rows.push(Row { key, value: part(&mut bytes)? });
    }
    bytes.is_empty().then_some(rows)
}

/// As [`rows`].
pub(crate) fn entries(mut bytes: Bytes, items: u32) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    for _ in 0..items {
        if bytes.len() < 24 {
            return None;
        }
        let [index, term, leader] = [bytes.get_u64(), bytes.get_u64(), bytes.get_u64()];
        entries.push(Entry { index, term, leader, payload: part(&mut bytes)? });
    }
    bytes.is_empty().then_some(entries)
}

fn part(bytes: &mut Bytes) -> Option<Bytes> {
    if bytes.len() < 4 {
        return None;
    }
    let length = bytes.get_u32() as usize;
    (bytes.len() >= length).then(|| bytes.split_to(length))
}
