//! The files of a spool folder: key, id, lock, ack hint, block files.

use super::Error;
use dtm_proto::ingest::Ack;
use prost::Message;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
/// Who has just ended gives the folder back within this; so does a process that is being started by
/// one that uses another spool: until it is another program it holds what was open.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    id: [u8; 16],
    key: Zeroizing<[u8; 32]>,
    /// Held while the folder is in use; the kernel lets go when the process ends.
    _lock: File,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let fail = |e| Error::io(path, e);
        fs::create_dir_all(path).map_err(fail)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(fail)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(fail)?;
        let mut tries = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Locked { path: path.display().to_string() });
                }
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
        }
        // The id comes last: a folder with an id has a key.
        let key = Zeroizing::new(secret::<32>(path, "key")?);
        let mut head = [0u8; 17];
        head.copy_from_slice(&{
            let mut fresh = vec![VERSION];
            fresh.extend_from_slice(&random::<16>().map_err(fail)?);
            make_once(path, "spool", &fresh)?
        });
        if head[0] != VERSION {
            let path = path.join("spool").display().to_string();
            return Err(Error::Damaged { path, offset: 0, what: "unknown version" });
        }
        let id = head[1..].try_into().expect("16 bytes");
        Ok(Self { path: path.to_owned(), id, key, _lock: lock })
    }

    pub(crate) fn id(&self) -> &[u8; 16] {
        &self.id
    }

    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Block files in the order of their sequences.
    pub(crate) fn segments(&self) -> Result<Vec<(u64, PathBuf)>, Error> {
        let fail = |e| Error::io(&self.path, e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let first = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".blocks"))
                .and_then(|number| number.parse().ok());
            found.extend(first.map(|first| (first, path)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// A new block file, known to the folder on disk.
    pub(crate) fn new_segment(&self, first: u64) -> Result<(File, Arc<Path>), Error> {
        let path = self.path.join(format!("{first:020}.blocks"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        self.sync()?;
        Ok((file, path.into()))
    }

    /// Notes how far the stream was acked. With `durable` it is on disk on return.
    pub(crate) fn write_acked(&self, ack: &Ack, durable: bool) -> Result<(), Error> {
        replace(&self.path, "acked", &ack.encode_to_vec(), durable)
    }

    /// The last note, where there is one that reads.
    pub(crate) fn read_acked(&self) -> Option<Ack> {
        Ack::decode(fs::read(self.path.join("acked")).ok()?.as_slice()).ok()
    }

    /// A note that the caller keeps beside the records, where there is one.
    pub(crate) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, e)),
        }
    }

    /// Writes it; on disk on return.
    pub(crate) fn write_note(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        replace(&self.path, name, bytes, true)
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        sync_folder(&self.path).map_err(|e| Error::io(&self.path, e))
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn secret<const N: usize>(folder: &Path, name: &str) -> Result<[u8; N], Error> {
    let path = folder.join(name);
    let fresh = Zeroizing::new(random::<N>().map_err(|e| Error::io(&path, e))?);
    let bytes = Zeroizing::new(make_once(folder, name, &*fresh)?);
    let wrong =
        || Error::Damaged { path: path.display().to_string(), offset: 0, what: "wrong length" };
    bytes.as_slice().try_into().map_err(|_| wrong())
}

/// Reads a file that is written once; writes it where it does not exist.
fn make_once(folder: &Path, name: &str, fresh: &[u8]) -> Result<Vec<u8>, Error> {
    let path = folder.join(name);
    match fs::read(&path) {
        Ok(bytes) if bytes.len() == fresh.len() => Ok(bytes),
        Ok(_) => Err(Error::Damaged {
            path: path.display().to_string(),
            offset: 0,
            what: "wrong length",
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            replace(folder, name, fresh, true)?;
            Ok(fresh.to_vec())
        }
        Err(e) => Err(Error::io(&path, e)),
    }
}

/// Replaces a file as a whole: a crash leaves the old or the new one.
fn replace(folder: &Path, name: &str, bytes: &[u8], durable: bool) -> Result<(), Error> {
    let (path, scratch) = (folder.join(name), folder.join(format!("{name}.new")));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&scratch)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&scratch, &path)?;
        if durable { sync_folder(folder) } else { Ok(()) }
    };
    write().map_err(|e| Error::io(&path, e))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
