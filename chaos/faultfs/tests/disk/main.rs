//! The faulty disk as a plain program meets it: what passes, what each fault does, that it fired.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod faults;
mod model;
mod passes;
mod power;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtm_faultfs::{FaultFs, Options};
use tempfile::TempDir;

/// A mounted disk over a fresh folder.
pub(crate) struct Disk {
    // Unmounted before its folders go.
    fs: Arc<FaultFs>,
    folder: TempDir,
}

impl Disk {
    /// None where the machine does not let it be mounted: then the test says that it did not run.
    /// Under CI that is a failure.
    pub(crate) fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let (backing, mount_at) = (folder.path().join("backing"), folder.path().join("mount"));
        for folder in [&backing, &mount_at] {
            std::fs::create_dir(folder).unwrap();
        }
        let options = Options { does_sync: false, ..Options::new(&backing, &mount_at, 1) };
        match FaultFs::mount(options) {
            Ok(fs) => Some(Self { fs: Arc::new(fs), folder }),
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "cannot mount: {why:?}");
                eprintln!("DID NOT RUN: {why:?}");
                None
            }
        }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn shared(&self) -> Arc<FaultFs> {
        Arc::clone(&self.fs)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> File {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true);
        let mut file = options.open(self.at(name)).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// A file that a power cut leaves.
    pub(crate) fn write_durable(&self, name: &str, bytes: &[u8]) {
        self.write(name, bytes).sync_all().unwrap();
        self.sync_folder(Path::new(name).parent().unwrap().to_str().unwrap());
    }

    pub(crate) fn sync_folder(&self, name: &str) {
        File::open(self.at(name)).unwrap().sync_all().unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        File::open(self.at(name)).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn open(&self, name: &str) -> File {
        OpenOptions::new().read(true).write(true).open(self.at(name)).unwrap()
    }

    /// All names in a folder, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let lines = std::fs::read_dir(self.at(folder)).unwrap();
        let mut names: Vec<String> =
            lines.map(|line| line.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Deref for Disk {
    type Target = FaultFs;

    fn deref(&self) -> &FaultFs {
        &self.fs
    }
}

/// The number of an error that must have happened.
pub(crate) fn errno<T>(outcome: std::io::Result<T>) -> i32 {
    outcome.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}
