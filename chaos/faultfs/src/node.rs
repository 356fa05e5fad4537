//! The files and folders that the kernel knows, each by a descriptor that survives renames.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::unsynced::Unsynced;

/// A file, folder or link of the backing folder.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its number in the backing file system; cannot be used again while `handle` is open.
    pub(crate) number: u64,
    pub(crate) is_dir: bool,
    /// A place, neither readable nor writable (`O_PATH`).
    handle: File,
    /// None: all of it is on the disk.
    pub(crate) unsynced: Mutex<Option<Unsynced>>,
}

impl Node {
    /// What stands at `path`, a link itself and not its target.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let handle = options.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        let metadata = handle.metadata()?;
        Ok(Self {
            number: metadata.ino(),
            is_dir: metadata.is_dir(),
            handle,
            unsynced: Mutex::new(None),
        })
    }

    /// A path that leads to it whatever it is called now. Not for symbolic links, which would be
    /// followed.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// A path to an entry of this folder.
    pub(crate) fn child(&self, name: &OsStr) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.handle.metadata()
    }

    /// What it is called now in the backing file system; gone ones have an odd name.
    pub(crate) fn backing_path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(self.path())
    }

    /// The file itself.
    pub(crate) fn open(&self, is_writable: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(is_writable).open(self.path())
    }
}

/// All nodes by number. A number has one node as long as anybody refers to it.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    slots: HashMap<u64, Slot>,
}

#[derive(Debug)]
struct Slot {
    node: Arc<Node>,
    /// How often the kernel was handed it.
    lookups: u64,
}

impl Nodes {
    /// The node of this number.
    pub(crate) fn find(&self, number: u64) -> Option<Arc<Node>> {
        self.slots.get(&number).map(|slot| Arc::clone(&slot.node))
    }

    /// The one node of what was found, which may be an older one of the same number.
    pub(crate) fn adopt(&mut self, found: Node, lookups: u64) -> Arc<Node> {
        let slot = self
            .slots
            .entry(found.number)
            .or_insert_with(|| Slot { node: Arc::new(found), lookups: 0 });
        slot.lookups += lookups;
        Arc::clone(&slot.node)
    }

    /// The kernel dropped so many of its references. A node with unsynced data stays, and one that
    /// others hold, such as an entry that a cut would bring back.
    pub(crate) fn forget(&mut self, number: u64, lookups: u64) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.lookups = slot.lookups.saturating_sub(lookups);
        }
        self.sweep(number);
    }

    /// Drops a node that nobody needs any more.
    pub(crate) fn sweep(&mut self, number: u64) {
        let unneeded = self.slots.get(&number).is_some_and(|slot| {
            slot.lookups == 0
                && Arc::strong_count(&slot.node) == 1
                && slot.node.unsynced.lock().is_none()
        });
        if unneeded {
            self.slots.remove(&number);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.slots.values().map(|slot| Arc::clone(&slot.node)).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }
}
