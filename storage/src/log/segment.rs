//! Segment files: names, headers, footers, and the set of files open for reading.
//!
//! A segment is a header, blocks, and when sealed a footer block and a trailer that says where the
//! footer is. Only the newest segment with blocks may lack a footer.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::block::{HEADER_BYTES, Header, Kind, Parsed, VERSION, u32_at, u64_at};
use super::error::Error;
use super::image::given;
use super::index::SegmentIndex;
use super::slots::Place;
use super::state::ReplicaState;
use super::types::{LogIdentity, LogPosition, Prefill, ReplicaKey};
use crate::vfs::{Vfs, VfsFile, read_vec};

/// Bytes before the first block.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 512;
/// Bytes behind the footer block.
pub(super) const TRAILER_BYTES: u64 = 32;
const SEGMENT_MAGIC: &[u8; 8] = b"DTMLOGS1";
const TRAILER_MAGIC: &[u8; 8] = b"DTMLOGT1";

/// Name of a segment file.
pub(super) fn file_name(number: u64) -> String {
    format!("seg-{number:016x}.log")
}

/// The number in a segment's name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(".log")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// What the start of a segment file says.
pub(super) enum SegmentHeader {
    /// Ours.
    Ours,
    /// Unreadable: damage, or a crash while the file was made.
    Broken,
}

pub(super) fn encode_header(number: u64, id: LogIdentity) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&id.cluster.to_le_bytes());
    out.extend_from_slice(&id.node.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Checks the start of a segment: foreign and newer files are refused.
pub(super) fn check_header(
    bytes: &[u8],
    number: u64,
    id: LogIdentity,
    path: &Path,
) -> Result<SegmentHeader, Error> {
    let whole = bytes.len() >= 60
        && &bytes[..8] == SEGMENT_MAGIC
        && crc32c::crc32c(&bytes[..56]) == u32_at(bytes, 56);
    if !whole {
        return Ok(SegmentHeader::Broken);
    }
    if bytes[8] != VERSION {
        return Err(Error::Version { path: path.into(), found: bytes[8], known: VERSION });
    }
    let cluster = u128::from_le_bytes(bytes[24..40].try_into().expect("16 bytes"));
    let node = u128::from_le_bytes(bytes[40..56].try_into().expect("16 bytes"));
    if cluster != id.cluster || node != id.node {
        return Err(Error::Foreign { path: path.into(), cluster, node });
    }
    let same_number = u64_at(bytes, 16) == number;
    Ok(if same_number { SegmentHeader::Ours } else { SegmentHeader::Broken })
}

/// Makes an empty segment and returns when file and name are on stable storage.
pub(super) fn create(
    vfs: &dyn Vfs,
    dir: &Path,
    number: u64,
    id: LogIdentity,
    bytes: u64,
    prefill: Prefill,
) -> std::io::Result<Arc<dyn VfsFile>> {
    let path = dir.join(file_name(number));
    let file = vfs.create(&path)?;
    let made = fill(file.as_ref(), number, id, bytes, prefill).and_then(|()| vfs.sync_dir(dir));
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            drop(vfs.remove(&path));
            Err(error)
        }
    }
}

fn fill(
    file: &dyn VfsFile,
    number: u64,
    id: LogIdentity,
    bytes: u64,
    prefill: Prefill,
) -> std::io::Result<()> {
    file.preallocate(bytes)?;
    if prefill == Prefill::Zero {
        let zeros = vec![0u8; 1 << 20];
        let mut at = 0;
        while at < bytes {
            let part = (bytes - at).min(zeros.len() as u64);
            let part = usize::try_from(part).expect("at most 1 MiB");
            file.write_at(at, &[IoSlice::new(&zeros[..part])])?;
            at += part as u64;
        }
    }
    file.write_at(0, &[IoSlice::new(&encode_header(number, id))])?;
    file.sync_data()
}

/// The bytes behind a footer block.
pub(super) fn encode_trailer(footer_offset: u64, footer_bytes: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(TRAILER_BYTES as usize);
    out.extend_from_slice(TRAILER_MAGIC);
    out.extend_from_slice(&footer_offset.to_le_bytes());
    out.extend_from_slice(&footer_bytes.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// A sealed segment's footer.
pub(super) struct Footer {
    pub(super) index: SegmentIndex,
    pub(super) states: Vec<ReplicaState>,
    pub(super) lsn: u64,
}

/// Reads the footer by the trailer; `None` when there is none or any byte of it is wrong
/// or not given by the disk.
pub(super) fn read_footer(
    file: &dyn VfsFile,
    number: u64,
    cluster: u128,
) -> std::io::Result<Option<Footer>> {
    let len = file.len()?;
    if len < SEGMENT_HEADER_BYTES + TRAILER_BYTES {
        return Ok(None);
    }
    let trailer = given(read_vec(file, len - TRAILER_BYTES, TRAILER_BYTES as usize))?;
    let trailer = trailer.unwrap_or_default();
    let whole = trailer.len() == 32
        && &trailer[..8] == TRAILER_MAGIC
        && crc32c::crc32c(&trailer[..28]) == u32_at(&trailer, 28);
    if !whole {
        return Ok(None);
    }
    let (offset, bytes) = (u64_at(&trailer, 8), u64_at(&trailer, 16));
    if offset.checked_add(bytes).is_none_or(|end| end > len) || bytes > u64::from(u32::MAX) {
        return Ok(None);
    }
    let block = given(read_vec(file, offset, usize::try_from(bytes).expect("checked above")))?;
    Ok(block.and_then(|block| parse_footer(&block, number, cluster)))
}

/// A footer from its block's bytes.
fn parse_footer(block: &[u8], number: u64, cluster: u128) -> Option<Footer> {
    let Parsed::Header(header) = Header::parse(block) else {
        return None;
    };
    let payload_bytes = header.payload_bytes as usize;
    let fits = header.kind == Kind::Footer
        && header.generation == number
        && header.cluster == cluster
        && Header::payload_is_whole(block, payload_bytes);
    if !fits {
        return None;
    }
    let (index, states) = SegmentIndex::decode(&block[HEADER_BYTES..HEADER_BYTES + payload_bytes])?;
    Some(Footer { index, states, lsn: header.lsn })
}

/// What a block must say to be the one that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) key: ReplicaKey,
    pub(super) position: LogPosition,
}

/// The segment files, open for reading as needed. Owns nothing but handles.
pub(super) struct Files {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    cluster: u128,
    open_max: usize,
    open: Mutex<BTreeMap<u64, Arc<dyn VfsFile>>>,
}

impl Files {
    pub(super) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, cluster: u128, open_max: usize) -> Self {
        Self { vfs, dir, cluster, open_max, open: Mutex::new(BTreeMap::new()) }
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(file_name(number))
    }

    pub(super) fn file(&self, number: u64) -> Result<Arc<dyn VfsFile>, Error> {
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(number);
        let file = self.vfs.open(&path).map_err(|error| Error::io("open", path, error))?;
        // The oldest goes: new segments are read most.
        while open.len() >= self.open_max {
            open.pop_first();
        }
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    pub(super) fn forget(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    /// Reads a block and checks every byte of it. `Ok(None)` when it is damaged or another one, or
    /// the disk does not give it.
    pub(super) fn read_block(
        &self,
        place: Place,
        expected: Expected,
    ) -> Result<Option<Vec<u8>>, Error> {
        let file = self.file(place.segment)?;
        let wanted = HEADER_BYTES + place.payload_bytes as usize;
        let read = given(read_vec(file.as_ref(), u64::from(place.offset), wanted));
        let read = read.map_err(|error| Error::io("read", self.path(place.segment), error))?;
        let mut bytes = read.unwrap_or_default();
        let Parsed::Header(header) = Header::parse(&bytes) else {
            return Ok(None);
        };
        // Binds the bytes to their place: a stale or misdirected read is damage too.
        let same = matches!(header.kind, Kind::Entry | Kind::Record)
            && header.generation == place.segment
            && header.cluster == self.cluster
            && header.key == expected.key
            && header.position == expected.position
            && header.payload_bytes == place.payload_bytes;
        if !same || !Header::payload_is_whole(&bytes, place.payload_bytes as usize) {
            return Ok(None);
        }
        bytes.drain(..HEADER_BYTES);
        Ok(Some(bytes))
    }
}
