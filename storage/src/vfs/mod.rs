//! The file-system seam of what must survive a power cut: log, keys, snapshots.
//!
//! Code above names files only through [`Vfs`] and [`VfsFile`], so that the same code runs on the
//! operating system ([`RealVfs`]) and on memory with seeded faults ([`MemVfs`]): unsynced writes
//! lost or torn at sectors, EIO on a sync, a full disk, flipped bits. One contract suite runs over
//! both twins.
//!
//! Durability is explicit and nothing else is promised: bytes are durable after
//! [`VfsFile::sync_data`], a name after [`Vfs::sync_dir`] of its folder.

mod fault;
mod mem;
mod real;
mod whole;

#[cfg(test)]
mod contract_test;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use fault::{FaultCounts, Faults};
pub use mem::MemVfs;
pub use real::RealVfs;
pub use whole::{rename_for_good, replace_file};

/// A file system.
pub trait Vfs: Send + Sync {
    /// Creates a folder and its parents; no error when it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Opens an existing file for reading and writing. `NotFound` when there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Creates a new, empty file. `AlreadyExists` when the name is taken. The name is durable only
    /// after [`Vfs::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Names of the files in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Removes a name. Open files stay readable. Durable after [`Vfs::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, replacing what had it. Durable after [`Vfs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes creations, removals and renames in this folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that can still be written below this folder.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes the folder for this process until the answer is dropped. `WouldBlock` when another
    /// holder lives.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Positions are given with each call; there is no cursor.
pub trait VfsFile: Send + Sync {
    /// Writes all of `parts`, one behind the other, from `offset`. On an error any part of it may
    /// have been written. Visible to reads at once, durable after [`VfsFile::sync_data`].
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Returns when everything written before is on stable storage. After an error the state of
    /// what was written is unknown for ever: the caller must not try again.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// True when the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends (with zeros) to `bytes`.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Reserves disk space for `bytes` from the start and sets the length; what was not written
    /// reads as zeros. `StorageFull` when there is no room: nothing is kept reserved then.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;
}

/// Reads `bytes` from `offset`; short when the file ends before.
pub fn read_vec(file: &dyn VfsFile, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; bytes];
    let got = file.read_at(offset, &mut buffer)?;
    buffer.truncate(got);
    Ok(buffer)
}

/// True when a read says that the disk does not give these bytes (a bad sector, a checksum of the
/// file system): others of the same file may be fine.
pub fn is_unreadable(error: &io::Error) -> bool {
    let codes = [libc::EIO, libc::ENODATA, libc::EBADMSG, libc::EUCLEAN, libc::EILSEQ];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// True when the error says that the disk is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
