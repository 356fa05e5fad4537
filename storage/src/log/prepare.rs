//! Making segments ahead of need, on a thread of its own, and knowing when the disk is full.
//!
//! One spare segment stands ready, more when somebody waits for more room than that. The writer
//! never waits for `fallocate` on its way, and a full disk is seen here, before anything is
//! admitted.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::error::StopReason;
use super::memory::Shared;
use super::segment;
use crate::vfs::{Vfs, VfsFile, is_disk_full};

/// How long a full disk is left alone before it is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// How long it sleeps when nothing is asked of it.
const LOOK: Duration = Duration::from_secs(5);
/// Segments made ahead at most.
const SPARES_MAX: usize = 8;

#[derive(Default)]
struct Spares {
    ready: VecDeque<(u64, Arc<dyn VfsFile>)>,
    next_number: u64,
    /// Bytes left in the segment being written.
    active_left: u64,
    is_full: bool,
}

/// The spare segments.
pub(super) struct Preparer {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    shared: Arc<Shared>,
    spares: Mutex<Spares>,
    changed: Condvar,
}

impl Preparer {
    pub(super) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, shared: Arc<Shared>, next: u64) -> Self {
        let spares = Mutex::new(Spares { next_number: next, ..Spares::default() });
        Self { vfs, dir, shared, spares, changed: Condvar::new() }
    }

    /// Makes segments until enough stand ready or the disk is full. Only the preparer's own thread
    /// calls it, and opening before that thread runs.
    pub(super) fn prepare(&self) -> std::io::Result<()> {
        loop {
            let number = {
                let spares = self.spares.lock();
                let wanted = spares.ready.is_empty() || self.shared.queue.is_short();
                if !wanted || spares.ready.len() >= SPARES_MAX {
                    return Ok(());
                }
                spares.next_number
            };
            let made = self.make(number);
            let mut spares = self.spares.lock();
            match made {
                Ok(file) => {
                    spares.ready.push_back((number, file));
                    spares.next_number = number + 1;
                    spares.is_full = false;
                    self.tell_room(&spares, false);
                    self.changed.notify_all();
                }
                Err(error) if is_disk_full(&error) => {
                    spares.is_full = true;
                    self.tell_room(&spares, false);
                    self.changed.notify_all();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn make(&self, number: u64) -> std::io::Result<Arc<dyn VfsFile>> {
        let cfg = &self.shared.cfg;
        let needed = cfg.segment_bytes + cfg.disk_reserve_bytes;
        if self.vfs.free_bytes(&self.dir)? < needed {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let (vfs, id) = (self.vfs.as_ref(), self.shared.id);
        segment::create(vfs, &self.dir, number, id, cfg.segment_bytes, cfg.prefill)
    }

    /// The next segment; waits until there is one. `None` when the log has ended.
    pub(super) fn take(&self) -> Option<(u64, Arc<dyn VfsFile>)> {
        let mut spares = self.spares.lock();
        loop {
            if let Some(spare) = spares.ready.pop_front() {
                spares.active_left = self.shared.cfg.segment_bytes;
                self.tell_room(&spares, false);
                drop(spares);
                self.shared.queue.poke();
                return Some(spare);
            }
            if self.shared.queue.stopped().is_some() {
                return None;
            }
            self.changed.wait_for(&mut spares, RETRY);
        }
    }

    /// After a round the writer tells what its segment still holds; the room for appends follows from it.
    pub(super) fn set_active_left(&self, bytes: u64) {
        let mut spares = self.spares.lock();
        spares.active_left = bytes;
        self.tell_room(&spares, true);
    }

    fn tell_room(&self, spares: &Spares, is_round_done: bool) {
        let cfg = &self.shared.cfg;
        // The end of a segment stays unused when the next block does not fit.
        // Below zero there is still that end, for votes.
        let bytes = |bytes: u64| i64::try_from(bytes).expect("disks are smaller");
        let waste = bytes(cfg.segment_bytes / 4);
        let overhead = bytes(cfg.segment_bytes / 8);
        let spare = bytes(cfg.segment_bytes) - waste - overhead;
        let room = bytes(spares.active_left) - waste + spare * bytes(spares.ready.len() as u64);
        self.shared.queue.set_room(room, spares.is_full, is_round_done);
    }

    /// The preparer's thread.
    pub(super) fn run(&self) {
        while !self.shared.queue.has_ended() {
            if let Err(error) = self.prepare() {
                let reason =
                    StopReason { doing: "make a segment", cause: error.to_string().into() };
                let (reason, left) = self.shared.queue.stop(reason);
                super::writer::refuse(left, &reason);
                self.changed.notify_all();
                return;
            }
            let is_full = self.spares.lock().is_full;
            if is_full {
                // A full disk is asked again when somebody needs room, but not in a busy loop.
                std::thread::sleep(RETRY / 10);
            }
            self.shared.queue.wait_for_poke(if is_full { RETRY } else { LOOK });
        }
    }

    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }
}
