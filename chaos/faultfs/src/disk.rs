//! The disk that lies behind the mount: a backing folder, what of it is not durable, the rules.
//!
//! Every operation holds `power` for reading; a power cut holds it for writing, so it happens
//! between operations and none is answered as done afterwards. Order of locks: power, entries,
//! nodes, one node's `unsynced`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::counts::Counters;
use crate::entries::Entries;
use crate::node::{Node, Nodes};
use crate::rule::{Effect, Op, RuleId, Rules};

/// The folder, beside what programs see, for what only the disk still has.
pub(crate) const GRAVE: &str = ".faultfs-grave";

/// An open file or folder.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) node: Arc<Node>,
    /// Of a file.
    pub(crate) file: Option<File>,
    /// Of a folder, as it was listed first.
    pub(crate) list: Mutex<Vec<crate::folders::Listed>>,
}

/// The state of the disk; outlives mounts.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) root: Arc<Node>,
    pub(crate) root_path: PathBuf,
    pub(crate) does_sync: bool,
    pub(crate) nodes: Mutex<Nodes>,
    pub(crate) entries: Mutex<Entries>,
    pub(crate) rules: Rules,
    pub(crate) counters: Counters,
    /// Bytes that are left; None: what the backing file system has.
    pub(crate) space_left: Mutex<Option<u64>>,
    /// What files held when a rule about stale reads was made.
    pub(crate) older: Mutex<HashMap<(RuleId, u64), Vec<u8>>>,
    /// Memory that unsynced pages take.
    pub(crate) kept_bytes: AtomicU64,
    pub(crate) power: RwLock<bool>,
    /// A rule cut the power; the rest of the cut is still to be done.
    is_failing: AtomicBool,
    handles: RwLock<HashMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
    next_grave: AtomicU64,
}

impl Disk {
    /// Over a folder that exists. What a run before left in the grave is removed.
    pub(crate) fn new(backing: &Path, seed: u64, does_sync: bool) -> io::Result<Self> {
        let root_path = backing.canonicalize()?;
        let grave = root_path.join(GRAVE);
        if grave.exists() {
            std::fs::remove_dir_all(&grave)?;
        }
        std::fs::create_dir(&grave)?;
        Ok(Self {
            root: Arc::new(Node::at(&root_path)?),
            root_path,
            does_sync,
            nodes: Mutex::default(),
            entries: Mutex::default(),
            rules: Rules::new(seed),
            counters: Counters::default(),
            space_left: Mutex::default(),
            older: Mutex::default(),
            kept_bytes: AtomicU64::new(0),
            power: RwLock::new(true),
            is_failing: AtomicBool::new(false),
            handles: RwLock::default(),
            next_handle: AtomicU64::new(1),
            next_grave: AtomicU64::new(1),
        })
    }

    /// Held during every operation.
    pub(crate) fn on(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let power = self.power.read();
        if !*power || self.is_failing.load(Ordering::SeqCst) {
            return Err(errno(libc::EIO));
        }
        Ok(power)
    }

    /// The power is on again.
    pub(crate) fn recovered(&self) {
        self.is_failing.store(false, Ordering::SeqCst);
        *self.power.write() = true;
    }

    /// Whether a rule cut the power.
    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::SeqCst)
    }

    /// What the rules have for an operation, before it is begun and without any lock.
    pub(crate) fn fault(&self, op: Op, path: impl FnOnce() -> String) -> io::Result<()> {
        if !self.rules.concern(op) {
            return Ok(());
        }
        let is_plain = |_, effect| !matches!(effect, Effect::Stale | Effect::Misdirect(_));
        let Some((_, effect, draw)) = self.rules.fire(op, &path(), is_plain) else {
            return Ok(());
        };
        match effect {
            Effect::Fail(number) => {
                Counters::add(&self.counters.failed, 1);
                Err(errno(number))
            }
            Effect::PowerCut => {
                self.is_failing.store(true, Ordering::SeqCst);
                Err(errno(libc::EIO))
            }
            Effect::Delay(shortest, longest) => {
                Counters::add(&self.counters.delayed, 1);
                let spread = longest.saturating_sub(shortest).as_micros();
                let more = (u128::from(draw >> 32) * spread) >> 32;
                let more = u64::try_from(more).expect("below the spread, which fits");
                std::thread::sleep(shortest + std::time::Duration::from_micros(more));
                Ok(())
            }
            Effect::Stale | Effect::Misdirect(_) => Ok(()),
        }
    }

    /// Its path below the mount; empty for the root and for what is gone.
    pub(crate) fn relative(&self, node: &Node) -> String {
        let path = node.backing_path().unwrap_or_default();
        path.strip_prefix(&self.root_path).unwrap_or(Path::new("")).to_string_lossy().into_owned()
    }

    /// The node that the kernel means.
    pub(crate) fn node(&self, number: u64) -> io::Result<Arc<Node>> {
        let number = self.swapped(number);
        if number == self.root.number {
            return Ok(Arc::clone(&self.root));
        }
        self.nodes.lock().find(number).ok_or_else(|| errno(libc::ESTALE))
    }

    /// The kernel calls the root 1; who has that number in the backing folder gets the root's.
    pub(crate) fn swapped(&self, number: u64) -> u64 {
        match number {
            1 => self.root.number,
            number if number == self.root.number => 1,
            number => number,
        }
    }

    pub(crate) fn handle(&self, number: u64) -> io::Result<Arc<Handle>> {
        self.handles.read().get(&number).cloned().ok_or_else(|| errno(libc::EBADF))
    }

    pub(crate) fn keep_handle(&self, node: Arc<Node>, file: Option<File>) -> u64 {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let handle = Handle { node, file, list: Mutex::default() };
        self.handles.write().insert(number, Arc::new(handle));
        number
    }

    pub(crate) fn drop_handle(&self, number: u64) {
        let handle = self.handles.write().remove(&number);
        if let Some(handle) = handle {
            let number = handle.node.number;
            drop(handle);
            self.nodes.lock().sweep(number);
        }
    }

    pub(crate) fn drop_all_handles(&self) {
        self.handles.write().clear();
    }

    /// A fresh path in the grave.
    pub(crate) fn grave(&self) -> PathBuf {
        let number = self.next_grave.fetch_add(1, Ordering::Relaxed);
        self.root_path.join(GRAVE).join(number.to_string())
    }
}

pub(crate) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

pub(crate) fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a usize fits a u64")
}
