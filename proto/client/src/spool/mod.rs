//! A sealed, append-only store of records that wait for their ack, in a folder of the source.
//!
//! ```text
//!  FOLDER/key            32 random bytes, 0600, made on the first run
//!  FOLDER/spool          format version, id of this spool (16 bytes)
//!  FOLDER/lock           held by the one process that uses the folder
//!  FOLDER/owner          what it is for, as the agent notes it once (JSON)
//!  FOLDER/acked          how far the stream was acked (a hint; replaced as a whole)
//!  FOLDER/N.blocks       blocks from sequence N on; each starts with a block without records
//! ```
//!
//! Invariants: a record is *taken* when [`Spool::append`] has returned, that is after fsync. Taken
//! records keep their sequence for good. A block leaves the folder, with its whole file, only
//! after the ack that covers it; where the cluster has a standby, once that has it too. The last file always stays: it holds the next sequence and the
//! mark. A torn tail was never taken and is cut; anything else that does not read is damage and
//! stops the spool: it is never taken for a tail.

mod block;
mod error;
mod files;
mod queue;
mod recover;

pub use error::Error;
pub(crate) use queue::{Released, SpoolQueue};

use crate::FrameBuilder;
use block::{BlockHead, Sealer};
use bytes::Bytes;
use dtm_proto::ingest::Record;
use files::Folder;
use queue::{BlockRef, Index, SegmentRef};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bounds of a spool.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// The folder; made where it does not exist.
    pub folder: PathBuf,
    /// Bytes on disk before taking stops (`spool_bytes_max`). Default 1 GiB.
    pub spool_bytes_max: u64,
    /// Size at which a new file is begun. Default 8 MiB.
    pub segment_bytes: u64,
}

/// Most blocks that are held at once: bounds the index in memory.
const BLOCKS_MAX: usize = 1_000_000;

impl SpoolConfig {
    /// A spool in this folder with every default.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), spool_bytes_max: 1 << 30, segment_bytes: 8 << 20 }
    }
}

/// The writing half. Calls block on the disk: call them where that is allowed.
#[derive(Debug)]
pub struct Spool {
    folder: Arc<Folder>,
    sealer: Arc<Sealer>,
    index: Arc<parking_lot::Mutex<Index>>,
    config: SpoolConfig,
    file: File,
    path: Arc<Path>,
    file_bytes: u64,
    mark: Bytes,
    next: u64,
    /// First failure of the disk; nothing is taken after it.
    failed: Option<String>,
}

impl Spool {
    /// Opens a folder, or makes a new spool in it.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process uses it, [`Error::Damaged`] where a block that was
    /// taken does not read, [`Error::Io`].
    pub fn open(config: SpoolConfig) -> Result<Self, Error> {
        let folder = Arc::new(Folder::open(&config.folder)?);
        let sealer = Arc::new(Sealer::new(folder.key(), folder.id()));
        let found = recover::recover(&folder, &sealer)?;
        let index = Arc::new(parking_lot::Mutex::new(found.index));
        let mut spool = Self {
            file: found.file,
            path: found.path,
            file_bytes: found.file_bytes,
            mark: found.mark,
            next: found.next,
            failed: None,
            folder,
            sealer,
            index,
            config,
        };
        if spool.file_bytes == 0 {
            spool.write_block(0, &[])?;
        }
        Ok(spool)
    }

    /// Id of this spool: two folders never have the same one. A part of the stream's name, so
    /// that a new folder never continues the numbers of another.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        *self.folder.id()
    }

    /// Sequence that the next record gets.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// What was given with the last block: the caller's place in its input.
    #[must_use]
    pub fn mark(&self) -> &Bytes {
        &self.mark
    }

    /// A note beside the records, where there is one.
    pub(crate) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.folder.note(name)
    }

    /// Writes a note; on disk on return.
    pub(crate) fn write_note(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.folder.write_note(name, bytes)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.index.lock().disk_bytes
    }

    /// The reading half, for the publisher.
    pub(crate) fn queue(&self) -> SpoolQueue {
        SpoolQueue::new(self.index.clone(), self.folder.clone(), self.sealer.clone())
    }

    /// Takes records: seals them, writes them, and returns their last sequence after fsync.
    /// `mark` is kept with them, all or nothing.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was taken, try again after acks. [`Error::Io`]: what was given is
    /// not taken, and nothing will be: open the spool anew.
    pub fn append(&mut self, records: &[Record], mark: Bytes) -> Result<u64, Error> {
        let mut builder = FrameBuilder::new(self.next);
        for record in records {
            builder.push(record);
        }
        let Some(frame) = builder.finish() else {
            return Ok(self.next - 1);
        };
        self.admit(frame.bytes() as u64 + mark.len() as u64)?;
        if self.is_full() {
            self.roll()?;
        }
        // After the roll: a new file begins with the mark of what was taken before.
        self.mark = mark;
        self.write_block(frame.count(), frame.raw())?;
        Ok(self.next - 1)
    }

    /// Keeps a mark without records.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub fn remember(&mut self, mark: Bytes) -> Result<(), Error> {
        if self.is_full() {
            self.roll()?;
        }
        self.mark = mark;
        self.write_block(0, &[])
    }

    fn admit(&self, bytes: u64) -> Result<(), Error> {
        if let Some(reason) = &self.failed {
            return Err(Error::Stopped { reason: reason.clone() });
        }
        let index = self.index.lock();
        let full = index.disk_bytes + bytes > self.config.spool_bytes_max;
        if index.unreleased() && (full || index.blocks.len() >= BLOCKS_MAX) {
            return Err(Error::Full {
                bytes: index.disk_bytes,
                site_bytes: index.waits_for_site(),
                spool_bytes_max: self.config.spool_bytes_max,
            });
        }
        Ok(())
    }

    fn write_block(&mut self, count: u32, records: &[u8]) -> Result<(), Error> {
        if let Some(reason) = &self.failed {
            return Err(Error::Stopped { reason: reason.clone() });
        }
        let head = BlockHead { first: self.next, count, mark_bytes: self.mark.len() as u32 };
        let sealed = self.sealer.seal(head, &self.mark, records)?;
        let written = self
            .file
            .seek(SeekFrom::Start(self.file_bytes))
            .and_then(|_| self.file.write_all(&sealed))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What lies on disk is not known now: only a new open reads it.
            self.failed = Some(error.to_string());
            return Err(Error::io(&self.path, error));
        }
        let mut index = self.index.lock();
        index.disk_bytes += sealed.len() as u64;
        // Its file is named once a block of it is on disk: until then the file before it is the
        // last one, which no ack removes, and with it the last mark stays.
        if self.file_bytes == 0 && index.segments.back().is_none_or(|last| last.path != self.path) {
            let (path, first) = (self.path.clone(), self.next);
            index.segments.push_back(SegmentRef { path, first, bytes: 0 });
        }
        if let Some(segment) = index.segments.back_mut() {
            segment.bytes += sealed.len() as u64;
        }
        if count > 0 {
            index.blocks.push_back(BlockRef {
                first: self.next,
                count,
                path: self.path.clone(),
                offset: self.file_bytes,
                bytes: sealed.len() as u32,
            });
        }
        self.file_bytes += sealed.len() as u64;
        self.next += u64::from(count);
        index.next = self.next;
        Ok(())
    }

    /// Whether a new file is to be begun. One without records is not left: the next would have its
    /// name, which is that of the first record.
    fn is_full(&self) -> bool {
        self.file_bytes >= self.config.segment_bytes
            && self.index.lock().segments.back().is_some_and(|last| last.first < self.next)
    }

    /// Begins a new file.
    fn roll(&mut self) -> Result<(), Error> {
        let (file, path) = self.folder.new_segment(self.next)?;
        self.file = file;
        self.path = path;
        self.file_bytes = 0;
        self.write_block(0, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtm_proto::ingest::Ack;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn open(folder: &Path) -> Spool {
        let mut config = SpoolConfig::new(folder);
        config.segment_bytes = 100;
        Spool::open(config).expect("opens")
    }

    #[test]
    fn marks_alone_begin_no_file_and_the_last_one_stays() {
        let scratch = tempfile::tempdir().expect("a folder");
        let mut spool = open(scratch.path());
        for at in 0..10 {
            spool.remember(format!("mark {at}").into()).expect("kept");
        }
        if let Some(released) = spool.queue().release(0, Ack::default()) {
            released.clean().expect("cleaned");
        }
        drop(spool);
        assert_eq!(&open(scratch.path()).mark()[..], b"mark 9");
    }

    #[test]
    fn the_last_mark_stays_where_the_first_block_of_a_new_file_is_not_written() {
        let scratch = tempfile::tempdir().expect("a folder");
        let record = Record { payload: "{}".into(), ..Record::default() };
        let mut spool = open(scratch.path());
        let last = spool.append(std::slice::from_ref(&record), "one".into()).expect("taken");
        // The next file can be made and not written: the disk is full.
        let next = scratch.path().join(format!("{:020}.blocks", spool.next_sequence()));
        symlink("/dev/full", &next).expect("a link");
        spool.append(&[record], "two".into()).expect_err("no room");
        let acked = Ack { acked_through: last, ..Ack::default() };
        if let Some(released) = spool.queue().release(last, acked) {
            released.clean().expect("cleaned");
        }
        drop(spool);
        // What a loss of power leaves of it.
        fs::remove_file(&next).expect("removed");
        fs::write(&next, "").expect("empty");
        let spool = open(scratch.path());
        assert_eq!((&spool.mark()[..], spool.next_sequence()), (&b"one"[..], last + 1));
    }
}
