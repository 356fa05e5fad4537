//! The master key file: 32 bytes as text on one line, readable by its owner only.
//!
//! It is the operator's file, provided from outside (a mounted secret, a safe), so it is read
//! from the operating system and not through `Vfs`.

use super::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dtm_machine::seams::Entropy;
use dtm_seal::{KEY_BYTES, MasterKey, Secret};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// A longer file is not a master key file.
pub const MASTER_FILE_BYTES_MAX: usize = 256;

/// The permission bits of group and others: none may be set.
const MODE_OTHERS: u32 = 0o077;

/// A master key and where it came from, for messages.
#[derive(Clone, Debug)]
pub struct Master {
    pub(super) key: MasterKey,
    pub(super) origin: String,
}

impl Master {
    /// A key from elsewhere, such as a KMS; `origin` is named in messages.
    #[must_use]
    pub fn new(key: MasterKey, origin: &str) -> Self {
        Self { key, origin: origin.to_owned() }
    }

    /// Reads the key from its file. The mode of the very file that is read is checked.
    ///
    /// # Errors
    /// [`Error::MasterMissing`], [`Error::MasterExposed`], [`Error::MasterMalformed`],
    /// [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::MasterMissing { path: path.to_owned() },
            _ => Error::Io { what: "reading", path: path.to_owned(), source },
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::MasterMalformed { path: path.to_owned() });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & MODE_OTHERS != 0 {
            return Err(Error::MasterExposed { path: path.to_owned(), mode });
        }
        // A fixed buffer: a growing one would leave copies behind.
        let mut text = Zeroizing::new([0u8; MASTER_FILE_BYTES_MAX + 1]);
        let mut held = 0;
        while held < text.len() {
            match (&file).read(&mut text[held..]) {
                Ok(0) => break,
                Ok(bytes) => held += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let mut bytes = Some(&text[..held])
            .filter(|text| text.len() <= MASTER_FILE_BYTES_MAX)
            .and_then(parse)
            .ok_or_else(|| Error::MasterMalformed { path: path.to_owned() })?;
        Ok(Self { key: MasterKey::from_bytes(&mut bytes), origin: path.display().to_string() })
    }

    /// Makes a new key and its file (mode 0600, hexadecimal). Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Io`], also where the file exists: a master key is never overwritten.
    pub fn create(path: &Path, entropy: &dyn Entropy) -> Result<Self, Error> {
        let failed = |source| Error::Io { what: "creating", path: path.to_owned(), source };
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        entropy.fill(bytes.as_mut());
        let mut text = Zeroizing::new([b'\n'; 2 * KEY_BYTES + 1]);
        hex::encode_to_slice(bytes.as_ref(), &mut text[..2 * KEY_BYTES])
            .expect("two digits for each byte");
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(text.as_ref()).and_then(|()| file.sync_all()).map_err(failed)?;
        let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|d| d.sync_all()).map_err(failed)?;
        Ok(Self { key: MasterKey::from_bytes(&mut bytes), origin: path.display().to_string() })
    }
}

/// Hexadecimal or base64, with blanks around it.
fn parse(text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let text = text.trim_ascii();
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    if text.len() == 2 * KEY_BYTES {
        hex::decode_to_slice(text, key.as_mut()).ok()?;
        return Some(key);
    }
    if text.len() != 44 {
        return None;
    }
    // One byte more than a key: 44 characters could hold 33.
    let mut decoded = [0u8; KEY_BYTES + 1];
    let length = STANDARD.decode_slice(text, &mut decoded).ok().filter(|n| *n == KEY_BYTES);
    key.copy_from_slice(&decoded[..KEY_BYTES]);
    decoded.zeroize();
    length.map(|_| key)
}

#[cfg(test)]
#[path = "master_test.rs"]
mod tests;
