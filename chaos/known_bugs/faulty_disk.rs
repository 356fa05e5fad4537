//! A disk whose syncs do nothing: a drive with a volatile cache that lies.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dtm_chaos::sandbox::Seams;
use dtm_storage::vfs::{Vfs, VfsFile};

/// Ack before fsync: from the moment it is armed.
#[derive(Default)]
pub(crate) struct LyingSync {
    armed: Arc<AtomicBool>,
}

impl Seams for LyingSync {
    fn vfs(&self, _node: usize, disk: Arc<dyn Vfs>) -> Arc<dyn Vfs> {
        Arc::new(Disk { inner: disk, lies: Arc::clone(&self.armed) })
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

struct Disk {
    inner: Arc<dyn Vfs>,
    lies: Arc<AtomicBool>,
}

struct File {
    inner: Arc<dyn VfsFile>,
    lies: Arc<AtomicBool>,
}

impl Disk {
    fn wrap(&self, inner: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(File { inner, lies: Arc::clone(&self.lies) })
    }
}

impl Vfs for Disk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.wrap(self.inner.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.wrap(self.inner.create(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path)
    }
}

impl VfsFile for File {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.inner.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.lies.load(Ordering::SeqCst) { Ok(()) } else { self.inner.sync_data() }
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.inner.preallocate(bytes)
    }
}
