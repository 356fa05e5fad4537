//! The keyring's file.
//!
//! ```text
//!  ┌─────────┬─────────┬────────────┬────────┬────────┬─────────────────────┬─────┬────────┐
//!  │ magic   │ version │ check      │ nonce  │ length │ sealed ring         │ tag │ crc32c │
//!  │ DTMKEYS0│ 1       │ 16 bytes   │ 24     │ 4      │ XAES-256-GCM        │ 16  │ 4      │
//!  └─────────┴─────────┴────────────┴────────┴────────┴─────────────────────┴─────┴────────┘
//!  └────────── associated data of the seal ───────────┘
//! ```
//! `check` tells a wrong master key from damage; the CRC tells damage from forgery. Replacing it:
//! write a new file beside, sync it, rename it over the old one, sync the folder. A crash leaves
//! the old file or the new one, and at most a left-over `keyring.new` that the next start removes.

use super::ring::Ring;
use super::{Error, Master};
use crate::vfs::{Vfs, read_vec};
use dtm_machine::seams::Entropy;
use dtm_seal::{BatchCipher, Nonce, Tag};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"DTMKEYS0";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 8 + 1 + 16 + 24 + 4;
const TAIL_BYTES: usize = 16 + 4;
/// A longer file is not a keyring.
const FILE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The name of the file in its folder.
const NAME: &str = "keyring";
const NAME_NEW: &str = "keyring.new";

pub(super) fn path_in(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// True where the folder holds a keyring.
pub(super) fn exists(vfs: &dyn Vfs, dir: &Path) -> Result<bool, Error> {
    match vfs.open(&path_in(dir)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io { what: "opening", path: path_in(dir), source }),
    }
}

/// Removes what a crash in the middle of a replacement left.
pub(super) fn remove_left_over(vfs: &dyn Vfs, dir: &Path) -> Result<(), Error> {
    let path = dir.join(NAME_NEW);
    match vfs.remove(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Io { what: "removing", path, source }),
    }
}

/// Reads and opens the file.
pub(super) fn read(vfs: &dyn Vfs, dir: &Path, master: &Master) -> Result<Ring, Error> {
    let path = path_in(dir);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
        _ => Error::Io { what: "reading", path: path.clone(), source },
    };
    let file = vfs.open(&path).map_err(failed)?;
    let bytes = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
    if bytes > FILE_BYTES_MAX {
        return Err(Error::Damaged { path, what: "too long" });
    }
    let file = read_vec(file.as_ref(), 0, bytes).map_err(failed)?;
    open(&file, &path, master)
}

/// Replaces the file by one that holds `ring`. Durable when it returns.
///
/// With `wipe_old` the bytes of the old file are overwritten after it was replaced. That is as
/// much as a file system lets us do; a copying one, or the disk itself, may keep them, still
/// sealed by the master key.
pub(super) fn replace(
    vfs: &dyn Vfs,
    dir: &Path,
    ring: &Ring,
    master: &Master,
    entropy: &dyn Entropy,
    wipe_old: bool,
) -> Result<(), Error> {
    let (path, new) = (path_in(dir), dir.join(NAME_NEW));
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source }
    };
    let bytes = seal(ring, master, entropy);
    let old = if wipe_old { vfs.open(&path).ok() } else { None };
    remove_left_over(vfs, dir)?;
    let file = vfs.create(&new).map_err(failed("creating", &new))?;
    file.write_at(0, &[IoSlice::new(&bytes)]).map_err(failed("writing", &new))?;
    file.sync_data().map_err(failed("syncing", &new))?;
    vfs.rename(&new, &path).map_err(failed("renaming", &new))?;
    vfs.sync_dir(dir).map_err(failed("syncing folder", dir))?;
    if let Some(old) = old {
        let zeros = vec![0u8; usize::try_from(old.len().unwrap_or(0)).unwrap_or(0)];
        old.write_at(0, &[IoSlice::new(&zeros)])
            .and_then(|()| old.sync_data())
            .map_err(failed("overwriting the old", &path))?;
    }
    Ok(())
}

fn seal(ring: &Ring, master: &Master, entropy: &dyn Entropy) -> Vec<u8> {
    let mut body: Zeroizing<Vec<u8>> = ring.encode();
    let mut nonce: Nonce = [0; 24];
    entropy.fill(&mut nonce);
    let mut file = Vec::with_capacity(HEAD_BYTES + body.len() + TAIL_BYTES);
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    file.extend_from_slice(&master.key.check_value());
    file.extend_from_slice(&nonce);
    let length = u32::try_from(body.len()).expect("a ring within its bounds is below 4 GiB");
    file.extend_from_slice(&length.to_be_bytes());
    let tag = master
        .key
        .cipher()
        .seal_batch(&nonce, &file, &mut body)
        .expect("a ring within its bounds is one AES-GCM message");
    file.extend_from_slice(&body);
    file.extend_from_slice(&tag);
    let crc = crc32c::crc32c(&file);
    file.extend_from_slice(&crc.to_be_bytes());
    file
}

fn open(file: &[u8], path: &Path, master: &Master) -> Result<Ring, Error> {
    let damaged = |what| Error::Damaged { path: path.to_owned(), what };
    if file.len() < HEAD_BYTES + TAIL_BYTES || &file[..8] != MAGIC {
        return Err(damaged("not a keyring"));
    }
    // A newer version may look different from here on; it is named before anything is judged.
    if file[8] != VERSION {
        return Err(Error::Version { path: path.to_owned(), version: file[8] });
    }
    let (covered, crc) = file.split_at(file.len() - 4);
    if crc32c::crc32c(covered).to_be_bytes() != crc {
        return Err(damaged("checksum"));
    }
    let (head, rest) = covered.split_at(HEAD_BYTES);
    if head[9..25] != master.key.check_value() {
        return Err(Error::WrongMaster { path: path.to_owned(), master: master.origin.clone() });
    }
    let (sealed, tag) = rest.split_at(rest.len() - 16);
    let (mut nonce, mut length): (Nonce, [u8; 4]) = ([0; 24], [0; 4]);
    nonce.copy_from_slice(&head[25..49]);
    length.copy_from_slice(&head[49..]);
    if u32::from_be_bytes(length) as usize != sealed.len() {
        return Err(damaged("length"));
    }
    let tag: Tag = tag.try_into().map_err(|_| damaged("tag"))?;
    let mut body = Zeroizing::new(sealed.to_vec());
    master.key.cipher().open_batch(&nonce, head, &mut body, &tag).map_err(|_| damaged("seal"))?;
    Ring::decode(&body).ok_or_else(|| damaged("content"))
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
