//! Writes and reads certificate and key files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

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
