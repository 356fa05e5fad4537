//! Reads a spool folder after whatever ended the last process.
//!
//! Only the last file can have a torn tail: a file is begun after the one before it was synced. A
//! tail is torn when no block that reads stands behind it; else it is damage.

use super::block::{HEAD_BYTES, MAGIC, Sealer, read_head};
use super::error::Error;
use super::files::Folder;
use super::queue::{BlockRef, Index, SegmentRef};
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a folder holds.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) file: File,
    pub(crate) path: Arc<Path>,
    pub(crate) file_bytes: u64,
    pub(crate) mark: Bytes,
    pub(crate) next: u64,
}

pub(crate) fn recover(folder: &Folder, sealer: &Sealer) -> Result<Recovered, Error> {
    let segments = folder.segments()?;
    let acked = folder.read_acked().unwrap_or_default();
    let Some((first, _)) = segments.first() else {
        // The first run. The ack hint alone would not be: it is written after blocks.
        let (file, path) = folder.new_segment(1)?;
        let mut index = Index { next: 1, acked, ..Index::default() };
        index.segments.push_back(SegmentRef { path: path.clone(), first: 1, bytes: 0 });
        return Ok(Recovered { index, file, path, file_bytes: 0, mark: Bytes::new(), next: 1 });
    };
    let mut scan = Scan { sealer, next: *first, index: Index::default(), mark: Bytes::new() };
    let last = segments.len() - 1;
    for (at, (first, path)) in segments.iter().enumerate() {
        if *first != scan.next {
            return Err(damaged(path, 0, "it does not follow the file before it"));
        }
        scan.segment(*first, path, at == last)?;
    }
    let segment = scan.index.segments.back().expect("there is one");
    let (path, file_bytes) = (segment.path.clone(), segment.bytes);
    let file =
        OpenOptions::new().read(true).write(true).open(&path).map_err(|e| Error::io(&path, e))?;
    if file.metadata().map_err(|e| Error::io(&path, e))?.len() > file_bytes {
        file.set_len(file_bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io(&path, e))?;
    }
    let mut index = scan.index;
    index.next = scan.next;
    index.acked = acked;
    Ok(Recovered { index, file, path, file_bytes, mark: scan.mark, next: scan.next })
}

struct Scan<'a> {
    sealer: &'a Sealer,
    next: u64,
    index: Index,
    mark: Bytes,
}

impl Scan<'_> {
    fn segment(&mut self, first: u64, path: &PathBuf, last: bool) -> Result<(), Error> {
        let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
        let path: Arc<Path> = path.as_path().into();
        let mut at = 0usize;
        while at < bytes.len() {
            let found = read_head(&bytes[at..]).filter(|found| found.whole(&bytes[at..]));
            let Some(found) = found else {
                if last && !reads_later(&bytes, at + 1) {
                    break;
                }
                return Err(damaged(&path, at, "a block in the middle does not read"));
            };
            let end = at + found.block_bytes();
            let Some((head, mark, _)) = self.sealer.open(&bytes[at..end]) else {
                return Err(damaged(&path, at, "the seal is not from this spool's key"));
            };
            if head.first != self.next {
                return Err(damaged(&path, at, "sequences have a hole"));
            }
            self.mark = mark;
            self.next += u64::from(head.count);
            if head.count > 0 {
                self.index.blocks.push_back(BlockRef {
                    first: head.first,
                    count: head.count,
                    path: path.clone(),
                    offset: at as u64,
                    bytes: (end - at) as u32,
                });
            }
            at = end;
        }
        self.index.disk_bytes += at as u64;
        self.index.segments.push_back(SegmentRef { path, first, bytes: at as u64 });
        Ok(())
    }
}

/// Whether a block that reads begins anywhere behind: then what stands before it is no tail.
fn reads_later(bytes: &[u8], from: usize) -> bool {
    (from..bytes.len().saturating_sub(HEAD_BYTES - 1))
        .filter(|&at| bytes[at..].starts_with(MAGIC))
        .any(|at| read_head(&bytes[at..]).is_some_and(|found| found.whole(&bytes[at..])))
}

fn damaged(path: &Path, offset: usize, what: &'static str) -> Error {
    Error::Damaged { path: path.display().to_string(), offset: offset as u64, what }
}
