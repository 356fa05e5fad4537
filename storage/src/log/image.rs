//! The bytes of a segment file, as far as the disk gives them.
//!
//! A disk that fails seldom gives wrong bytes: it answers EIO for a place. That is damage like a
//! checksum that is wrong: what is not given reads as zeros here, and the places are named, because
//! a torn write leaves bytes that can be read.

use std::collections::BTreeSet;
use std::io;

use crate::vfs::{VfsFile, is_unreadable};

/// What the operating system reads, and gives up, as a whole.
const PAGE_BYTES: usize = 4096;
/// Read at once where everything is readable.
const CHUNK_BYTES: usize = 1 << 20;
/// Pages of one file that may be unreadable: with more it is the disk that is broken, not a place.
const PAGES_MAX: usize = 1024;

/// Pages of a file that the disk does not give.
#[derive(Debug, Clone, Default)]
pub(super) struct Unreadable(BTreeSet<usize>);

impl Unreadable {
    /// Whether any of these bytes is among them.
    pub(super) fn touches(&self, from: usize, bytes: usize) -> bool {
        let pages = from / PAGE_BYTES..(from + bytes).div_ceil(PAGE_BYTES);
        bytes > 0 && self.0.range(pages).next().is_some()
    }

    /// How many of the pages that end behind `at`.
    pub(super) fn count_from(&self, at: usize) -> usize {
        self.0.range(at / PAGE_BYTES..).count()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Behind the last of them; 0 without any.
    pub(super) fn end(&self) -> usize {
        self.0.last().map_or(0, |page| (page + 1) * PAGE_BYTES)
    }

    /// Where a write from `at` must begin: a page that cannot be read is only written as a whole.
    pub(super) fn write_from(&self, at: usize) -> usize {
        if self.touches(at, 1) { at / PAGE_BYTES * PAGE_BYTES } else { at }
    }
}

/// Reads a whole file: its bytes, with zeros in place of what the disk does not give.
///
/// # Errors
/// Whatever is no unreadable page, and more unreadable pages than [`PAGES_MAX`].
pub(super) fn read_all(file: &dyn VfsFile) -> io::Result<(Vec<u8>, Unreadable)> {
    // A segment is at most 2 GiB (LogConfig::check), so this is bounded.
    let len = usize::try_from(file.len()?).expect("segments fit in memory");
    let (mut bytes, mut unreadable) = (vec![0; len], Unreadable::default());
    for at in (0..len).step_by(CHUNK_BYTES) {
        let chunk = &mut bytes[at..len.min(at + CHUNK_BYTES)];
        if given(file.read_at(at as u64, chunk))?.is_some() {
            continue;
        }
        for (page, bytes) in (at / PAGE_BYTES..).zip(chunk.chunks_mut(PAGE_BYTES)) {
            let read = file.read_at((page * PAGE_BYTES) as u64, bytes);
            if unreadable.count() == PAGES_MAX {
                read?;
            } else if given(read)?.is_none() {
                bytes.fill(0);
                unreadable.0.insert(page);
            }
        }
    }
    Ok((bytes, unreadable))
}

/// What was read, or nothing where the disk does not give it.
pub(super) fn given<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_unreadable(&error) => {
            tracing::warn!(%error, "the disk does not give a part of the log, it counts as damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
