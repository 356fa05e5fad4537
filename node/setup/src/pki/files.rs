//! Writes and reads certificate and key files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dtm_storage::vfs::{RealVfs, rename_for_good};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Error;

/// Largest certificate or key file that is read, bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// Makes a folder (0700) and those above it; one that is there stays as it is.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn make_folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make folder", path))
}

/// Writes a new file of mode 0600 and syncs it and its folder.
///
/// # Errors
/// [`Error::Exists`], [`Error::Io`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    write(path, content, 0o600)
}

/// Writes a new file of mode 0644 and syncs it and its folder.
///
/// # Errors
/// [`Error::Exists`], [`Error::Io`].
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), Error> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    dtm_ctl::write_new(path, content, mode).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
        _ => Error::Io { what: "write", path: path.to_owned(), source },
    })
}

/// Replaces a file, or makes it, whole or not at all, by way of `NAME.new` beside it. Durable when it
/// returns. A link is followed: what it names is replaced.
///
/// # Errors
/// [`Error::Io`]; the file holds what it held, or the new content.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let new = with_ending(&path, ".new");
    remove(&new)?;
    write(&new, content, mode)?;
    rename_for_good(&RealVfs, &new, &path).map_err(failed("replace", &path))
}

/// Removes a file; one that is not there is removed already.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The file of that name with an ending, in the same folder.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Certificates of a PEM file, in order; at least one.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`].
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let malformed = |what: String| Error::Malformed { path: path.to_owned(), what };
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|e| malformed(format!("not PEM ({e})")))?;
    if all.is_empty() {
        return Err(malformed("holds no certificate".into()));
    }
    Ok(all)
}

/// A whole file, bounded.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::metadata(path).map_err(failed("read", path))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(Error::Malformed {
            path: path.to_owned(),
            what: format!("{bytes} bytes are too many"),
        });
    }
    fs::read(path).map_err(failed("read", path))
}
