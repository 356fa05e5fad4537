//! Operations on the content of files.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::counts::Counters;
use crate::disk::{Disk, errno, len};
use crate::folders::Found;
use crate::node::Node;
use crate::rule::{Effect, Op};
use crate::unsynced::{PAGE, Unsynced, read_up_to};

/// Memory for unsynced pages of all files. Beyond it a file's data counts as written, as a kernel
/// would have written it by itself.
const KEPT_BYTES_MAX: u64 = 512 << 20;
/// Blocks of `stat`.
const BLOCK: u64 = 512;

impl Disk {
    pub(crate) fn open(&self, number: u64, flags: i32) -> io::Result<u64> {
        let node = self.node(number)?;
        self.fault(Op::Open, || self.relative(&node))?;
        let _on = self.on()?;
        // Neither appending nor O_DIRECT nor O_SYNC reach the backing file: the kernel gives the
        // offset, buffers here are not aligned, and a sync comes as a call of its own.
        let file = node.open(flags & libc::O_ACCMODE != libc::O_RDONLY)?;
        Ok(self.keep_handle(node, Some(file)))
    }

    // Hot path: one read, no lock of a file.
    pub(crate) fn read(&self, handle: u64, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let handle = self.handle(handle)?;
        if self.rules.concern(Op::Read) {
            self.fault_of_read(&handle.node, offset, size)?;
        }
        let _on = self.on()?;
        Counters::add(&self.counters.reads, 1);
        let file = handle.file.as_ref().ok_or_else(|| errno(libc::EISDIR))?;
        let mut bytes = vec![0; size];
        let read = read_up_to(file, &mut bytes, offset)?;
        bytes.truncate(read);
        if self.rules.concern(Op::Read) {
            self.lie(&handle.node, file, offset, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn fault_of_read(&self, node: &Node, offset: u64, size: usize) -> io::Result<()> {
        let end = offset + u64::try_from(size).expect("a usize fits a u64");
        if let Some(number) = self.rules.bad(node.number, offset / PAGE..end.div_ceil(PAGE)) {
            return Err(errno(number));
        }
        self.fault(Op::Read, || self.relative(node)).inspect_err(|error| {
            if let Some(number) = error.raw_os_error() {
                self.rules.mark_bad(node.number, offset / PAGE, number);
            }
        })
    }

    /// Gives other bytes than the file has, where a rule says so and they differ.
    fn lie(&self, node: &Node, file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let older = self.older.lock();
        let held = |id| {
            let at = usize::try_from(offset).ok()?;
            let held: &Vec<u8> = older.get(&(id, node.number))?;
            let held = held.get(at..)?.get(..bytes.len())?;
            (held != &*bytes).then(|| held.to_vec())
        };
        let elsewhere = |by: i64| {
            let mut other = vec![0; bytes.len()];
            let read = read_up_to(file, &mut other, offset.checked_add_signed(by)?).ok()?;
            // Behind the end of the file nothing stands elsewhere.
            other.truncate(read);
            (other != bytes[..read]).then_some(other)
        };
        let accepts = |id, effect| match effect {
            Effect::Stale => held(id).is_some(),
            Effect::Misdirect(by) => elsewhere(by).is_some(),
            _ => false,
        };
        let Some((id, effect, _)) = self.rules.fire(Op::Read, &self.relative(node), accepts) else {
            return Ok(());
        };
        let (lie, counter) = match effect {
            Effect::Misdirect(by) => (elsewhere(by), &self.counters.misdirected_reads),
            _ => (held(id), &self.counters.stale_reads),
        };
        if let Some(lie) = lie {
            bytes[..lie.len()].copy_from_slice(&lie);
            Counters::add(counter, 1);
        }
        Ok(())
    }

    // Hot path: one write; an overwrite also reads the pages that it is the first to change.
    pub(crate) fn write(&self, handle: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        let handle = self.handle(handle)?;
        self.fault(Op::Write, || self.relative(&handle.node))?;
        let _on = self.on()?;
        let file = handle.file.as_ref().ok_or_else(|| errno(libc::EISDIR))?;
        self.in_space(file, offset + len(data), || {
            self.changing(&handle.node, file, offset, len(data), || file.write_all_at(data, offset))
        })?;
        Counters::add(&self.counters.writes, 1);
        Counters::add(&self.counters.bytes_written, len(data));
        Ok(())
    }

    /// Keeps what the disk has of these bytes, then changes them.
    fn changing<T>(
        &self,
        node: &Node,
        file: &File,
        offset: u64,
        len: u64,
        change: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut slot = node.unsynced.lock();
        let unsynced = match &mut *slot {
            Some(unsynced) => unsynced,
            slot => slot.insert(Unsynced::of(file)?),
        };
        let before = unsynced.bytes();
        unsynced.keep(file, offset, len)?;
        let changed = change()?;
        let more = unsynced.bytes() - before;
        let all = self.kept_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if all > KEPT_BYTES_MAX && more > 0 {
            let had = unsynced.bytes();
            unsynced.synced(file.metadata()?.len());
            self.kept_bytes.fetch_sub(had - unsynced.bytes(), Ordering::Relaxed);
            Counters::add(&self.counters.written_back, 1);
        }
        Ok(changed)
    }

    /// `fsync` and `fdatasync`: what the file holds now is on the disk when it returns.
    pub(crate) fn sync(&self, handle: u64) -> io::Result<()> {
        let handle = self.handle(handle)?;
        let fault = self.fault(Op::Sync, || self.relative(&handle.node));
        let _on = self.on()?;
        let file = handle.file.as_ref().ok_or_else(|| errno(libc::EISDIR))?;
        let mut slot = handle.node.unsynced.lock();
        if let Some(unsynced) = &mut *slot {
            let (len, had) = (file.metadata()?.len(), unsynced.bytes());
            if let Err(error) = fault {
                unsynced.sync_failed(len);
                self.kept_bytes.fetch_add(unsynced.bytes() - had, Ordering::Relaxed);
                return Err(error);
            }
            let is_whole = unsynced.synced(len);
            self.kept_bytes.fetch_sub(had - unsynced.bytes(), Ordering::Relaxed);
            if is_whole {
                *slot = None;
            }
        }
        drop(slot);
        fault?;
        // From here on a cut leaves the data, though the program does not know it yet: allowed.
        if self.does_sync {
            file.sync_data()?;
        }
        Counters::add(&self.counters.syncs, 1);
        Ok(())
    }

    /// `ftruncate`.
    pub(crate) fn resize(&self, node: &Arc<Node>, size: u64) -> io::Result<()> {
        self.fault(Op::Resize, || self.relative(node))?;
        let _on = self.on()?;
        let file = node.open(true)?;
        // Making a file longer takes no space.
        self.in_space(&file, 0, || {
            let cut_off = file.metadata()?.len().saturating_sub(size);
            self.changing(node, &file, size, cut_off, || file.set_len(size))
        })
    }

    pub(crate) fn allocate(
        &self,
        handle: u64,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> io::Result<()> {
        let handle = self.handle(handle)?;
        self.fault(Op::Resize, || self.relative(&handle.node))?;
        let _on = self.on()?;
        let file = handle.file.as_ref().ok_or_else(|| errno(libc::EISDIR))?;
        let mode = FallocateFlags::from_bits(mode).ok_or_else(|| errno(libc::EOPNOTSUPP))?;
        let moves =
            FallocateFlags::FALLOC_FL_COLLAPSE_RANGE | FallocateFlags::FALLOC_FL_INSERT_RANGE;
        if mode.intersects(moves) {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let empties = mode.intersects(
            FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_ZERO_RANGE,
        );
        let number = |bytes: u64| i64::try_from(bytes).map_err(|_| errno(libc::EFBIG));
        let (from, many) = (number(offset)?, number(length)?);
        let frees = mode.contains(FallocateFlags::FALLOC_FL_PUNCH_HOLE);
        self.in_space(file, if frees { 0 } else { offset + length }, || {
            // New room has no content that could be lost, only a length.
            self.changing(&handle.node, file, offset, if empties { length } else { 0 }, || {
                Ok(fallocate(file.as_fd(), mode, from, many)?)
            })
        })
    }

    /// Does `work`, which makes the file need room up to `end`, within the space that is left.
    fn in_space<T>(
        &self,
        file: &File,
        end: u64,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut space = self.space_left.lock();
        let Some(left) = *space else {
            drop(space);
            return work();
        };
        let before = taken(&file.metadata()?);
        if end.saturating_sub(before) > left {
            Counters::add(&self.counters.no_space, 1);
            return Err(errno(libc::ENOSPC));
        }
        let done = work();
        let after = taken(&file.metadata()?);
        *space = Some((left + before).saturating_sub(after));
        done
    }

    /// A file is about to lose a name; with its last one goes its space.
    pub(crate) fn give_back(&self, (_, metadata, links): &Found) {
        if *links <= 1
            && let Some(left) = self.space_left.lock().as_mut()
        {
            *left += taken(metadata);
        }
    }
}

fn taken(metadata: &Metadata) -> u64 {
    metadata.blocks() * BLOCK
}
