//! Files in memory, with the faults of real disks, from a seed.
//!
//! Owns the bytes. Each file has its durable image and a list of unsynced writes; a power cut
//! ([`MemVfs::crash`]) keeps the durable image and a random subset of the unsynced sectors, in any
//! order, as a disk with a volatile cache may. Names behave the same way until their folder is
//! synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::fault::{Dice, FaultCounts, Faults, parent};
use super::{Vfs, VfsFile};

/// What a disk writes as a whole.
const SECTOR_BYTES: u64 = 512;

/// What the operating system reads as a whole.
const PAGE_BYTES: u64 = 4096;

/// An in-memory file system with seeded faults. Clones share the same disk.
#[derive(Clone)]
pub struct MemVfs(Arc<Mutex<Disk>>);

struct Disk {
    /// Names as processes see them.
    names: BTreeMap<PathBuf, u64>,
    /// Names as they would be after a power cut.
    durable_names: BTreeMap<PathBuf, u64>,
    files: BTreeMap<u64, Content>,
    locks: BTreeSet<PathBuf>,
    next_file: u64,
    /// Rises at a crash: handles of the life before are dead.
    life: u64,
    faults: Faults,
    counts: FaultCounts,
    syncs: u64,
    dice: Dice,
}

#[derive(Default, Clone)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Byte ranges written since the last sync.
    dirty: Vec<(u64, u64)>,
    reserved: u64,
    /// Numbers of the pages that cannot be read.
    unreadable: BTreeSet<u64>,
}

struct MemFile {
    disk: Arc<Mutex<Disk>>,
    file: u64,
    life: u64,
}

struct MemLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    life: u64,
}

impl MemVfs {
    /// An empty disk whose faults follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            files: BTreeMap::new(),
            locks: BTreeSet::new(),
            next_file: 1,
            life: 0,
            faults: Faults::default(),
            counts: FaultCounts::default(),
            syncs: 0,
            dice: Dice(seed),
        })))
    }

    /// Replaces what is to go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// How often each fault really fired.
    pub fn counts(&self) -> FaultCounts {
        self.0.lock().counts
    }

    /// Successful [`VfsFile::sync_data`] calls so far.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// A power cut: of what was not synced a random subset of sectors survives, or nothing when
    /// `keep_percent` is 0, or all when 100. Handles opened before answer errors from now on.
    pub fn crash(&self, keep_percent: u64) {
        let mut disk = self.0.lock();
        let disk = &mut *disk;
        disk.life += 1;
        disk.counts.crashes += 1;
        disk.locks.clear();
        disk.faults.sync_error_after = None;
        disk.faults.write_error_after = None;
        for content in disk.files.values_mut() {
            content.cut_power(keep_percent, &mut disk.dice, &mut disk.counts);
        }
        if disk.names != disk.durable_names {
            let undone =
                disk.names.iter().filter(|entry| disk.durable_names.get(entry.0) != Some(entry.1));
            disk.counts.names_undone += undone.count() as u64;
        }
        disk.names = disk.durable_names.clone();
    }

    /// The process ends without a power cut (kill -9): everything written stays, handles die.
    pub fn kill(&self) {
        let mut disk = self.0.lock();
        disk.life += 1;
        disk.locks.clear();
    }

    /// Flips one bit of a stored file, durable at once. False when the file is shorter.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut disk = self.0.lock();
        let Some(file) = disk.names.get(path).copied() else {
            return false;
        };
        let content = disk.files.get_mut(&file).expect("a name has a file");
        let at = usize::try_from(offset).expect("files in memory are small");
        let Some(byte) = content.live.get_mut(at) else {
            return false;
        };
        *byte ^= 1 << (bit % 8);
        if let Some(byte) = content.durable.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
        disk.counts.bits_flipped += 1;
        true
    }

    /// Pages of a stored file that hold a byte of `bytes` answer reads with EIO from now on, as bad
    /// sectors do, until they are written as a whole; a page is read before it is written in part.
    pub fn fail_reads(&self, path: &Path, bytes: Range<u64>) {
        let mut disk = self.0.lock();
        let file = *disk.names.get(path).expect("a file that is there");
        let content = disk.files.get_mut(&file).expect("a name has a file");
        content.unreadable.extend(pages(&bytes));
    }

    /// The bytes of a file as a process sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.0.lock();
        let file = disk.names.get(path)?;
        disk.files.get(file).map(|content| content.live.clone())
    }

    /// Puts a file in place, durable at once: an old copy, a prepared image.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.0.lock();
        let file = disk.next_file;
        disk.next_file += 1;
        let reserved = bytes.len() as u64;
        let live = bytes.clone();
        let content = Content { live, durable: bytes, reserved, ..Content::default() };
        disk.files.insert(file, content);
        disk.names.insert(path.to_path_buf(), file);
        disk.durable_names.insert(path.to_path_buf(), file);
    }
}

fn pages(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / PAGE_BYTES..bytes.end.div_ceil(PAGE_BYTES)
}

impl Content {
    /// EIO when a page of these bytes cannot be read.
    fn check_readable(&self, bytes: &Range<u64>) -> io::Result<()> {
        match self.unreadable.range(pages(bytes)).next() {
            Some(_) if !bytes.is_empty() => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }

    /// Before a write: what it covers is whole again, what it touches is read first.
    fn heal(&mut self, bytes: &Range<u64>) -> io::Result<()> {
        let end = self.live.len() as u64;
        let is_covered = |page: u64| {
            bytes.start <= page * PAGE_BYTES && end.min((page + 1) * PAGE_BYTES) <= bytes.end
        };
        self.unreadable.retain(|page| !is_covered(*page));
        self.check_readable(bytes)
    }

    fn cut_power(&mut self, keep_percent: u64, dice: &mut Dice, counts: &mut FaultCounts) {
        let mut survived = self.durable.clone();
        // The length is data too: a longer file may or may not have reached the disk.
        if self.live.len() != survived.len() && dice.below(100) < keep_percent {
            survived.resize(self.live.len(), 0);
        }
        let mut sectors = BTreeSet::new();
        for (from, to) in self.dirty.drain(..) {
            sectors.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
        }
        for sector in sectors {
            if dice.below(100) >= keep_percent {
                counts.sectors_lost += 1;
                continue;
            }
            counts.sectors_kept += 1;
            let from = usize::try_from(sector * SECTOR_BYTES).expect("small");
            let to = (from + 512).min(self.live.len()).min(survived.len());
            if from < to {
                survived[from..to].copy_from_slice(&self.live[from..to]);
            }
        }
        self.reserved = survived.len() as u64;
        self.live = survived.clone();
        self.durable = survived;
    }
}

impl Disk {
    fn used(&self) -> u64 {
        self.names
            .values()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|file| self.files[file].reserved)
            .sum()
    }

    /// Reserves up to `end` bytes for a file or says that the disk is full.
    fn reserve(&mut self, file: u64, end: u64) -> io::Result<()> {
        let have = self.files[&file].reserved;
        if end <= have {
            return Ok(());
        }
        if let Some(capacity) = self.faults.capacity_bytes
            && self.used() + (end - have) > capacity
        {
            self.counts.disk_full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files.get_mut(&file).expect("open file").reserved = end;
        Ok(())
    }
}

impl Vfs for MemVfs {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let disk = self.0.lock();
        let file = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemFile { disk: Arc::clone(&self.0), file, life: disk.life }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut disk = self.0.lock();
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = disk.next_file;
        disk.next_file += 1;
        disk.files.insert(file, Content::default());
        disk.names.insert(path.to_path_buf(), file);
        Ok(Arc::new(MemFile { disk: Arc::clone(&self.0), file, life: disk.life }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.0.lock();
        let inside = disk.names.keys().filter(|path| parent(path) == dir);
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().names.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let file = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let disk = &mut *disk;
        disk.durable_names.retain(|path, _| parent(path) != dir);
        for (path, file) in disk.names.iter().filter(|(path, _)| parent(path) == dir) {
            disk.durable_names.insert(path.clone(), *file);
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let disk = self.0.lock();
        let capacity = disk.faults.capacity_bytes.unwrap_or(u64::MAX / 2);
        Ok(capacity.saturating_sub(disk.used()))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut disk = self.0.lock();
        if !disk.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (disk, life) = (Arc::clone(&self.0), disk.life);
        Ok(Box::new(MemLock { disk, path: path.to_path_buf(), life }))
    }
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.life == self.life {
            disk.locks.remove(&self.path);
        }
    }
}

impl MemFile {
    fn with<T>(&self, act: impl FnOnce(&mut Disk, u64) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.life != self.life {
            return Err(io::Error::other("the power was cut"));
        }
        act(&mut disk, self.file)
    }
}

impl VfsFile for MemFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.with(|disk, file| {
            let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let fails = Faults::fires(&mut disk.faults.write_error_after);
            if fails {
                disk.counts.write_errors += 1;
                bytes.truncate(bytes.len() / 2);
            }
            let end = offset + bytes.len() as u64;
            disk.reserve(file, end)?;
            let content = disk.files.get_mut(&file).expect("open file");
            content.heal(&(offset..end))?;
            let (from, to) = (to_usize(offset), to_usize(end));
            if content.live.len() < to {
                content.live.resize(to, 0);
            }
            content.live[from..to].copy_from_slice(&bytes);
            content.dirty.push((offset, end));
            if fails { Err(io::Error::other("injected write error")) } else { Ok(()) }
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|disk, file| {
            let content = &disk.files[&file];
            let live = &content.live;
            let from = to_usize(offset).min(live.len());
            let got = buffer.len().min(live.len() - from);
            let readable = content.check_readable(&(from as u64..(from + got) as u64));
            disk.counts.read_errors += u64::from(readable.is_err());
            readable?;
            let live = &disk.files[&file].live;
            buffer[..got].copy_from_slice(&live[from..from + got]);
            Ok(got)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|disk, file| {
            let fails = Faults::fires(&mut disk.faults.sync_error_after);
            let content = disk.files.get_mut(&file).expect("open file");
            let dirty = std::mem::take(&mut content.dirty);
            if fails {
                // Linux marks the pages clean: a second sync would succeed and prove nothing.
                disk.counts.sync_errors += 1;
                return Err(io::Error::other("injected sync error"));
            }
            content.durable.resize(content.live.len(), 0);
            for (from, to) in dirty {
                let to = to_usize(to).min(content.live.len());
                let from = to_usize(from).min(to);
                content.durable[from..to].copy_from_slice(&content.live[from..to]);
            }
            disk.syncs += 1;
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|disk, file| Ok(disk.files[&file].live.len() as u64))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(|disk, file| {
            disk.reserve(file, bytes)?;
            let content = disk.files.get_mut(&file).expect("open file");
            let old = content.live.len() as u64;
            content.live.resize(to_usize(bytes), 0);
            content.unreadable.retain(|page| page * PAGE_BYTES < bytes);
            content.reserved = bytes;
            if bytes > old {
                content.dirty.push((old, bytes));
            }
            Ok(())
        })
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.with(|disk, file| {
            disk.reserve(file, bytes)?;
            let content = disk.files.get_mut(&file).expect("open file");
            if to_usize(bytes) > content.live.len() {
                content.live.resize(to_usize(bytes), 0);
            }
            Ok(())
        })
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("files in memory are small")
}
