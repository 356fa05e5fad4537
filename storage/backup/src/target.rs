//! Where backups lie: a folder today; an object store would be a third twin.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::manifest::MANIFEST;

/// Files of backups, by backup and name. Blocking. Nothing is overwritten.
pub trait Target: Send + Sync {
    /// Names of the backups, finished or not, ascending.
    fn backups(&self) -> io::Result<Vec<String>>;

    /// Begins a file; a backup begins with its first.
    ///
    /// # Errors
    /// `AlreadyExists` where there is one.
    fn create(&self, backup: &str, file: &str) -> io::Result<Box<dyn NewFile>>;

    /// A file from its beginning.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    fn open(&self, backup: &str, file: &str) -> io::Result<Box<dyn Read + Send>>;

    /// Removes a backup, its manifest first: what is left of an interrupted removal is none. Where there
    /// is none nothing is done.
    fn remove(&self, backup: &str) -> io::Result<()>;

    /// Makes the names of all files of a backup, and its own, outlive a power cut.
    fn settle(&self, backup: &str) -> io::Result<()>;
}

/// A file that is being written.
pub trait NewFile: Write + Send {
    /// Returns when the content is on stable storage.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder; it is made with the first backup.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Target for Folder {
    fn backups(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, backup: &str, file: &str) -> io::Result<Box<dyn NewFile>> {
        let folder = self.path.join(backup);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(folder.join(file))?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, backup: &str, file: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.path.join(backup).join(file))?))
    }

    fn remove(&self, backup: &str) -> io::Result<()> {
        let folder = self.path.join(backup);
        match fs::remove_file(folder.join(MANIFEST)) {
            Ok(()) => File::open(&folder)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn settle(&self, backup: &str) -> io::Result<()> {
        let (own, all) = (self.path.join(backup), self.path.as_path());
        let above = all.parent().filter(|above| !above.as_os_str().is_empty());
        for folder in [own.as_path(), all, above.unwrap_or(Path::new("."))] {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

struct RealFile(File);

impl Write for RealFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl NewFile for RealFile {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.sync_all()
    }
}

type Files = BTreeMap<(String, String), Vec<u8>>;

/// The twin in memory. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct MemoryTarget {
    files: Arc<Mutex<Files>>,
}

impl MemoryTarget {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and content of the files of a backup, ascending: for tests.
    #[must_use]
    pub fn content(&self, backup: &str) -> Vec<(String, Vec<u8>)> {
        let files = self.files();
        let of = files.iter().filter(|((of, _), _)| of == backup);
        of.map(|((_, name), bytes)| (name.clone(), bytes.clone())).collect()
    }

    /// Replaces a file, or removes it: for tests of what then is found.
    pub fn spoil(&self, backup: &str, file: &str, content: Option<Vec<u8>>) {
        let key = (backup.to_owned(), file.to_owned());
        match content {
            Some(content) => self.files().insert(key, content),
            None => self.files().remove(&key),
        };
    }
}

impl Target for MemoryTarget {
    fn backups(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self.files().keys().map(|(of, _)| of.clone()).collect();
        names.dedup();
        Ok(names)
    }

    fn create(&self, backup: &str, file: &str) -> io::Result<Box<dyn NewFile>> {
        let key = (backup.to_owned(), file.to_owned());
        let mut files = self.files();
        if files.contains_key(&key) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(key.clone(), Vec::new());
        Ok(Box::new(MemoryFile { target: self.clone(), key, content: Vec::new() }))
    }

    fn open(&self, backup: &str, file: &str) -> io::Result<Box<dyn Read + Send>> {
        let files = self.files();
        let content = files.get(&(backup.to_owned(), file.to_owned()));
        let content = content.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(content.clone())))
    }

    fn remove(&self, backup: &str) -> io::Result<()> {
        self.files().retain(|(of, _), _| of != backup);
        Ok(())
    }

    fn settle(&self, _backup: &str) -> io::Result<()> {
        Ok(())
    }
}

/// Seen by others once it is finished, as of a store of whole objects.
struct MemoryFile {
    target: MemoryTarget,
    key: (String, String),
    content: Vec<u8>,
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for MemoryFile {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.target.files().insert(self.key, self.content);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract of the seam, over both twins.
    fn contract(target: &dyn Target) {
        assert_eq!(target.backups().expect("lists"), Vec::<String>::new());
        for (backup, file) in [("b", "two"), ("a", "one"), ("b", "one")] {
            let mut new = target.create(backup, file).expect("begins");
            new.write_all(file.as_bytes()).expect("writes");
            new.write_all(b" more").expect("writes");
            new.finish().expect("is on disk");
            target.settle(backup).expect("settles");
        }
        assert_eq!(target.backups().expect("lists"), ["a", "b"]);
        let mut text = String::new();
        target.open("b", "two").expect("opens").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "two more");
        let again = target.create("b", "two").map(|_| ()).expect_err("nothing is overwritten");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let none = target.open("b", "three").map(|_| ()).expect_err("not there");
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
        for _ in 0..2 {
            target.remove("b").expect("removes, and has nothing to remove");
            assert_eq!(target.backups().expect("lists"), ["a"]);
        }
        assert!(target.open("a", "one").is_ok() && target.open("b", "two").is_err());
    }

    #[test]
    fn a_folder_and_its_twin_keep_the_contract() {
        contract(&MemoryTarget::default());
        let folder = tempfile::tempdir().expect("a folder");
        contract(&Folder::new(folder.path().join("backups")));
    }
}
