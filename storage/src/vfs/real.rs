//! The operating system's files: positioned vectored writes, `fdatasync`, `fallocate`.
//!
//! Owns no state. The calls that std lacks go to libc.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Vfs, VfsFile};

/// Buffers in one system call (IOV_MAX of Linux).
const PARTS_MAX: usize = 1024;

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealVfs;

struct RealFile(File);

impl Vfs for RealVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    #[allow(unsafe_code)]
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let path = CString::new(dir.as_os_str().as_bytes())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: statvfs is plain old data, all zeros are a valid value of it.
        let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` ends with a zero byte and lives through the call; `answer` is writable.
        let code = unsafe { libc::statvfs(path.as_ptr(), &mut answer) };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl VfsFile for RealFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = offset;
        for chunk in parts.chunks(PARTS_MAX) {
            at += write_chunk(&self.0, at, chunk)?;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.0.read_at(&mut buffer[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    #[allow(unsafe_code)]
    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let length = libc::off_t::try_from(bytes)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the descriptor is open for the whole call; no memory is passed.
        let code = unsafe { libc::fallocate(self.0.as_raw_fd(), 0, 0, length) };
        if code == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) {
            return self.0.set_len(bytes);
        }
        // What a failed call reserved is given back; the error that counts is the first one.
        drop(self.0.set_len(0));
        Err(error)
    }
}

/// Writes up to [`PARTS_MAX`] parts and answers their bytes. A short write is carried on plainly.
#[allow(unsafe_code)]
fn write_chunk(file: &File, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<u64> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let at =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let count = libc::c_int::try_from(parts.len()).expect("at most PARTS_MAX parts");
    // SAFETY: IoSlice has the layout of iovec (documented by std); the slices outlive the call.
    let wrote =
        unsafe { libc::pwritev(file.as_raw_fd(), parts.as_ptr().cast::<libc::iovec>(), count, at) };
    let mut done = match usize::try_from(wrote) {
        Ok(done) => done,
        Err(_) => {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            0
        }
    };
    if done < total {
        let mut position = 0usize;
        for part in parts {
            let end = position + part.len();
            if end > done {
                let rest = &part[done - position..];
                file.write_all_at(rest, offset + done as u64)?;
                done = end;
            }
            position = end;
        }
    }
    Ok(total as u64)
}
