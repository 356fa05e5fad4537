//! The reading half of a spool: what the publisher sends from, and releases after the ack.

use super::block::Sealer;
use super::error::Error;
use super::files::Folder;
use crate::EncodedFrame;
use crate::frame::PartMax;
use dtm_proto::ingest::Ack;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the ack hint is written while nothing is removed.
const HINT_EVERY: Duration = Duration::from_secs(1);

/// A block with records on disk.
#[derive(Clone, Debug)]
pub(crate) struct BlockRef {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) path: Arc<Path>,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

impl BlockRef {
    fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

/// A file of blocks.
#[derive(Debug)]
pub(crate) struct SegmentRef {
    pub(crate) path: Arc<Path>,
    pub(crate) first: u64,
    pub(crate) bytes: u64,
}

/// What lies in the folder; shared by the two halves. Only synced blocks stand here.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) blocks: VecDeque<BlockRef>,
    pub(crate) segments: VecDeque<SegmentRef>,
    pub(crate) disk_bytes: u64,
    pub(crate) next: u64,
    pub(crate) acked: Ack,
    /// Through which sequence the cluster holds the stream, as it told last: less than was acked once
    /// where another site took over.
    pub(crate) covered: u64,
}

impl Index {
    /// Whether acks could still make room.
    pub(crate) fn unreleased(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Bytes of blocks that are acked and wait until the standby has them.
    pub(crate) fn waits_for_site(&self) -> u64 {
        let acked = self.blocks.iter().take_while(|block| block.last() <= self.covered);
        acked.map(|block| u64::from(block.bytes)).sum()
    }
}

/// Frames from the spool.
#[derive(Debug)]
pub(crate) struct SpoolQueue {
    index: Arc<parking_lot::Mutex<Index>>,
    folder: Arc<Folder>,
    sealer: Arc<Sealer>,
    /// The block that was read last: a window smaller than a block takes it in parts.
    last: Option<EncodedFrame>,
    hint_at: Instant,
}

impl SpoolQueue {
    pub(crate) fn new(
        index: Arc<parking_lot::Mutex<Index>>,
        folder: Arc<Folder>,
        sealer: Arc<Sealer>,
    ) -> Self {
        Self { index, folder, sealer, last: None, hint_at: Instant::now() }
    }

    /// How far an earlier life was acked.
    pub(crate) fn acked(&self) -> Ack {
        self.index.lock().acked.clone()
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.index.lock().next
    }

    pub(crate) fn first_held(&self) -> u64 {
        let index = self.index.lock();
        index.blocks.front().map_or(index.next, |block| block.first)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.index.lock().disk_bytes as usize
    }

    /// What lies above `acked_through` is not held by the cluster any more.
    pub(crate) fn unack(&mut self, acked_through: u64) {
        self.index.lock().covered = acked_through;
    }

    /// Bytes that are acked and wait until the standby has them.
    pub(crate) fn waits_for_site(&self) -> u64 {
        self.index.lock().waits_for_site()
    }

    /// The frame from `sequence` on, of at most `bytes_max` bytes but at least one record.
    pub(crate) fn frame_from(
        &mut self,
        sequence: u64,
        max: PartMax,
    ) -> Result<Option<EncodedFrame>, Error> {
        if let Some(part) = self.last.as_ref().and_then(|frame| frame.part(sequence, max)) {
            return Ok(Some(part));
        }
        let block = {
            let index = self.index.lock();
            let at = index.blocks.partition_point(|block| block.last() < sequence);
            match index.blocks.get(at) {
                Some(block) if block.first <= sequence => block.clone(),
                _ => return Ok(None),
            }
        };
        let frame = self.read(&block)?;
        let part = frame.part(sequence, max);
        self.last = Some(frame);
        Ok(part)
    }

    fn read(&self, block: &BlockRef) -> Result<EncodedFrame, Error> {
        let mut bytes = vec![0u8; block.bytes as usize];
        File::open(&block.path)
            .and_then(|file| file.read_exact_at(&mut bytes, block.offset))
            .map_err(|e| Error::io(&block.path, e))?;
        self.sealer
            .open(&bytes)
            .and_then(|(head, _, records)| {
                EncodedFrame::from_parts(head.first, head.count, records)
                    .filter(|frame| frame.first_sequence() == block.first)
            })
            .ok_or_else(|| Error::Damaged {
                path: block.path.display().to_string(),
                offset: block.offset,
                what: "a block does not read any more",
            })
    }

    /// Forgets blocks at or below `release`; files that hold nothing else are the caller's to
    /// clean, with no lock held. The last file stays.
    #[must_use]
    pub(crate) fn release(&mut self, release: u64, ack: Ack) -> Option<Released> {
        let mut removed = Vec::new();
        let acked = {
            let mut index = self.index.lock();
            index.covered = index.covered.max(ack.acked_through);
            // What only the connection is about is not noted.
            let ack = Ack { site_copies: false, only_site: false, ..ack };
            if ack.acked_through > index.acked.acked_through && !ack.token.is_empty() {
                index.acked = ack;
            } else {
                index.acked.acked_through = index.acked.acked_through.max(ack.acked_through);
            }
            while index.blocks.front().is_some_and(|block| block.last() <= release) {
                index.blocks.pop_front();
            }
            while index.segments.len() > 1 && index.segments[1].first <= release.saturating_add(1) {
                let segment = index.segments.pop_front().expect("more than one");
                index.disk_bytes -= segment.bytes;
                removed.push(segment.path);
            }
            index.acked.clone()
        };
        if removed.is_empty() {
            if self.hint_at.elapsed() < HINT_EVERY {
                return None;
            }
            self.hint_at = Instant::now();
        }
        Some(Released { folder: Arc::clone(&self.folder), acked, removed })
    }
}

/// What a release leaves to be done on disk.
#[derive(Debug)]
pub(crate) struct Released {
    folder: Arc<Folder>,
    acked: Ack,
    removed: Vec<Arc<Path>>,
}

impl Released {
    /// Notes the ack and removes the files. The note is synced before the first of them goes.
    pub(crate) fn clean(self) -> Result<(), Error> {
        if self.removed.is_empty() {
            return self.folder.write_acked(&self.acked, false);
        }
        self.folder.write_acked(&self.acked, true)?;
        for path in self.removed {
            fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
        self.folder.sync()
    }
}

impl Drop for SpoolQueue {
    fn drop(&mut self) {
        let acked = self.acked();
        if acked.acked_through > 0 {
            // A hint: without it the next open learns the same from the cluster.
            self.folder.write_acked(&acked, false).ok();
        }
    }
}
