//! Where an acceptor keeps its state: one small file, replaced whole.
//!
//! ```text
//!  save:  NAME.new ── write ── fsync ── rename to NAME ── fsync of the folder ── answer
//!                                        └ a crash before: the former file; after: this one
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// The stable storage of one acceptor. The folder belongs to one process (the node's own lock).
pub trait Keep: Send {
    /// What was saved last; `None` where nothing ever was. Damage is not looked for here.
    fn load(&self) -> io::Result<Option<Bytes>>;

    /// Replaces what was saved, whole or not at all. Returns when it is on stable storage. After an
    /// error either may be there; the caller stops and loads at its next start.
    fn save(&mut self, state: &[u8]) -> io::Result<()>;

    /// Name for messages.
    fn name(&self) -> String;
}

/// A file of a folder that exists.
#[derive(Clone, Debug)]
pub struct FileKeep {
    path: PathBuf,
}

impl FileKeep {
    /// The file `path`; its folder exists already.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

impl Keep for FileKeep {
    fn load(&self) -> io::Result<Option<Bytes>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            // A folder that is missing is an unmounted disk rather than a new acceptor.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::metadata(self.folder()).map(|_| None)
            }
            Err(error) => Err(error),
        }
    }

    fn save(&mut self, state: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(state)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&new, &self.path)?;
        File::open(self.folder())?.sync_all()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// The twin in memory: a disk that can lose power. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryKeep {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    stable: Option<Bytes>,
    /// Written and not synced: seen by reads, gone after a crash.
    cached: Option<Bytes>,
    is_lying: bool,
    fails: Option<bool>,
}

impl MemoryKeep {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on `save` returns before anything is stable: a fault, for tests of checkers.
    pub fn lie(&self) {
        self.with(|disk| disk.is_lying = true);
    }

    /// The next `save` fails; `lands` says whether the bytes are there all the same.
    pub fn fail_once(&self, lands: bool) {
        self.with(|disk| disk.fails = Some(lands));
    }

    /// The power goes: what was not synced is gone.
    pub fn crash(&self) {
        self.with(|disk| disk.cached = None);
    }

    /// The disk is another, empty one.
    pub fn wipe(&self) {
        self.with(|disk| {
            disk.stable = None;
            disk.cached = None;
        });
    }

    /// Changes what is stored: damage.
    pub fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        self.with(|disk| {
            let mut bytes = disk.stable.take().unwrap_or_default().to_vec();
            change(&mut bytes);
            disk.stable = Some(bytes.into());
        });
    }

    fn with<T>(&self, run: impl FnOnce(&mut Disk) -> T) -> T {
        run(&mut self.disk.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Keep for MemoryKeep {
    fn load(&self) -> io::Result<Option<Bytes>> {
        Ok(self.with(|disk| disk.cached.clone().or_else(|| disk.stable.clone())))
    }

    fn save(&mut self, state: &[u8]) -> io::Result<()> {
        let bytes = Bytes::copy_from_slice(state);
        self.with(|disk| {
            let fails = disk.fails.take();
            if fails != Some(false) {
                if disk.is_lying {
                    disk.cached = Some(bytes);
                } else {
                    disk.stable = Some(bytes);
                }
            }
            if fails.is_some() { Err(io::Error::other("the disk failed")) } else { Ok(()) }
        })
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}
