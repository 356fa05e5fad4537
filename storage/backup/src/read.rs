//! Reading a backup: every byte is held against a checksum before it is used, and opened where there
//! is a key.

use std::io::{self, Read};

use bytes::Bytes;
use dtm_seal::{BatchCipher, DataKey, Xaes256Gcm};
use dtm_types::{BackupId, GroupId};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::chunks::{self, CHUNK_BYTES_MAX, Entry, FRAME_BYTES, HEADER_BYTES, Kind, Row};
use crate::manifest::{MAGIC, MANIFEST, MANIFEST_BYTES_MAX, Manifest, PREFIX_BYTES, VERSION};
use crate::target::Target;
use crate::{Digest, Error, FilePart, GroupPart};

/// The manifest of a backup and the SHA-256 of its file. Its checksum is held, its seal is not: see
/// [`open_manifest`].
///
/// # Errors
/// [`Error::Unfinished`], [`Error::Damaged`], [`Error::Version`], [`Error::Io`].
pub fn read_manifest(target: &dyn Target, backup: &str) -> Result<(Manifest, Digest), Error> {
    let bytes = manifest_file(target, backup)?;
    let content = checked(backup, &bytes)?;
    let whole = bytes.len() as u64;
    let damaged = |what| damage(backup, MANIFEST, 0, whole, what);
    let manifest = Manifest::decode(content).map_err(|_| damaged("it does not decode"))?;
    if manifest.version != VERSION {
        return Err(Error::Version { backup: backup.to_owned(), version: manifest.version });
    }
    // Of another folder's, or of none.
    if manifest.id().to_string() != backup || manifest.cluster.len() != 16 {
        return Err(damaged("it is the manifest of another backup"));
    }
    Ok((manifest, Sha256::digest(&bytes).into()))
}

/// As [`read_manifest`], and its seal holds under the key.
///
/// # Errors
/// Also [`Error::WrongKey`].
pub fn open_manifest(target: &dyn Target, backup: &str, key: &DataKey) -> Result<Manifest, Error> {
    let (manifest, _) = read_manifest(target, backup)?;
    let bytes = manifest_file(target, backup)?;
    let nonce = bytes[16..40].try_into().expect("24 bytes");
    let tag = bytes[40..PREFIX_BYTES].try_into().expect("16 bytes");
    let header = [&MAGIC[..], &bytes[PREFIX_BYTES..]].concat();
    let opened = key.cipher().open_batch(&nonce, &header, &mut [], &tag);
    opened.map_err(|_| wrong_key(backup, MANIFEST))?;
    Ok(manifest)
}

fn manifest_file(target: &dyn Target, backup: &str) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Io {
        what: "read",
        backup: backup.to_owned(),
        file: MANIFEST.to_owned(),
        source,
    };
    let file = match target.open(backup, MANIFEST) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Unfinished { backup: backup.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The protobuf of a manifest whose checksum holds.
fn checked<'a>(backup: &str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    let whole = bytes.len() as u64;
    let damaged = |what| Err(damage(backup, MANIFEST, 0, whole, what));
    let Some((prefix, content)) = bytes.split_at_checked(PREFIX_BYTES) else {
        return damaged("it is cut");
    };
    if &prefix[..8] != MAGIC {
        return damaged("it does not begin as a manifest");
    }
    if u32_at(prefix, 8) as usize != content.len() {
        return damaged("it has another length than it says");
    }
    let crc = [&prefix[16..], content]
        .iter()
        .fold(crc32c::crc32c(&prefix[..12]), |crc, part| crc32c::crc32c_append(crc, part));
    if crc != u32_at(prefix, 12) {
        return damaged("its checksum does not hold");
    }
    Ok(content)
}

/// Reads every file of a backup and holds it against the manifest; with the key everything is opened
/// too. `progress` gets the bytes of each chunk that was read.
///
/// # Errors
/// [`Error::Damaged`] with file and place, [`Error::FileMissing`], [`Error::WrongKey`], [`Error::Io`],
/// and those of [`read_manifest`].
pub fn verify(
    target: &dyn Target,
    backup: &str,
    key: Option<&DataKey>,
    progress: &mut dyn FnMut(u64),
) -> Result<Manifest, Error> {
    let manifest = match key {
        Some(key) => open_manifest(target, backup, key)?,
        None => read_manifest(target, backup)?.0,
    };
    let cipher = key.map(DataKey::cipher);
    check_files(target, manifest.id(), &manifest.groups, cipher.as_ref(), progress)?;
    Ok(manifest)
}

/// Holds every file of these groups against what is said of it.
pub(crate) fn check_files(
    target: &dyn Target,
    id: BackupId,
    groups: &[GroupPart],
    cipher: Option<&Xaes256Gcm>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    for group in groups {
        let parts = [(Kind::Rows, &group.rows), (Kind::Entries, &group.entries)];
        for (kind, part) in
            parts.into_iter().filter_map(|(kind, part)| Some((kind, part.as_ref()?)))
        {
            let place = Place { id, group: GroupId(group.group), kind };
            scan(target, place, part, cipher, &mut |chunk| {
                progress(chunk.bytes);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// The rows of a group, chunk by chunk, ascending.
///
/// # Errors
/// As [`verify`], and [`Error::Taker`] with what `take` said.
pub fn read_rows(
    target: &dyn Target,
    manifest: &Manifest,
    group: GroupId,
    key: &DataKey,
    take: &mut dyn FnMut(Vec<Row>) -> Result<(), Error>,
) -> Result<(), Error> {
    let part = manifest.group(group).and_then(|part| part.rows.as_ref());
    read(target, manifest, (group, Kind::Rows), part, key, &mut |plain, items| {
        chunks::rows(plain, items).map(&mut *take)
    })
}

/// The entries of a group that this backup holds itself, chunk by chunk, ascending.
///
/// # Errors
/// As [`read_rows`].
pub fn read_entries(
    target: &dyn Target,
    manifest: &Manifest,
    group: GroupId,
    key: &DataKey,
    take: &mut dyn FnMut(Vec<Entry>) -> Result<(), Error>,
) -> Result<(), Error> {
    let part = manifest.group(group).and_then(|part| part.entries.as_ref());
    read(target, manifest, (group, Kind::Entries), part, key, &mut |plain, items| {
        chunks::entries(plain, items).map(&mut *take)
    })
}

type TakePlain<'a> = &'a mut dyn FnMut(Bytes, u32) -> Option<Result<(), Error>>;

fn read(
    target: &dyn Target,
    manifest: &Manifest,
    (group, kind): (GroupId, Kind),
    part: Option<&FilePart>,
    key: &DataKey,
    take: TakePlain<'_>,
) -> Result<(), Error> {
    let Some(part) = part else { return Ok(()) };
    let place = Place { id: manifest.id(), group, kind };
    let backup = place.id.to_string();
    scan(target, place, part, Some(&key.cipher()), &mut |chunk| {
        let (from, to) = (chunk.from, chunk.from + chunk.bytes);
        let taken = take(chunk.plain, chunk.items);
        taken.unwrap_or_else(|| Err(damage(&backup, &part.name, from, to, "it does not decode")))
    })
}

/// Which file of which backup.
#[derive(Clone, Copy)]
struct Place {
    id: BackupId,
    group: GroupId,
    kind: Kind,
}

/// A chunk whose checksum holds.
struct Chunk {
    /// Where its frame begins.
    from: u64,
    /// Frame and content.
    bytes: u64,
    items: u32,
    /// Empty where there is no key.
    plain: Bytes,
}

fn scan(
    target: &dyn Target,
    place: Place,
    part: &FilePart,
    cipher: Option<&Xaes256Gcm>,
    take: &mut dyn FnMut(Chunk) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut file = Input::open(target, place.id.to_string(), part)?;
    let header = chunks::header(place.id, place.kind, place.group);
    let mut found = [0; HEADER_BYTES];
    file.fill(&mut found)?;
    if found != header {
        return Err(file.damaged(0, "its header is of another file, or damaged"));
    }
    let (mut number, mut items) = (0, 0);
    while file.at < part.bytes {
        let from = file.at;
        let mut frame = [0; FRAME_BYTES];
        file.fill(&mut frame)?;
        let (bytes, count) = (u32_at(&frame, 0), u32_at(&frame, 4));
        if bytes as usize > CHUNK_BYTES_MAX || file.at + u64::from(bytes) > part.bytes {
            return Err(file.damaged(from, "the length of a chunk cannot be"));
        }
        let mut text = vec![0; bytes as usize];
        file.fill(&mut text)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..48]), &text);
        if crc != u32_at(&frame, 48) {
            return Err(file.damaged(from, "its checksum does not hold"));
        }
        let mut plain = Bytes::new();
        if let Some(cipher) = cipher {
            let data = chunks::associated_data(&header, number, bytes, count);
            let nonce = frame[8..32].try_into().expect("24 bytes");
            let tag = frame[32..48].try_into().expect("16 bytes");
            let opened = cipher.open_batch(&nonce, &data, &mut text, &tag);
            opened.map_err(|_| wrong_key(&file.backup, &part.name))?;
            plain = Bytes::from(text);
        }
        number += 1;
        items += u64::from(count);
        take(Chunk { from, bytes: file.at - from, items: count, plain })?;
    }
    file.end(number, items)
}

/// A file that is read to its end, with all that was read of it.
struct Input<'a> {
    backup: String,
    part: &'a FilePart,
    file: Box<dyn Read + Send>,
    at: u64,
    digest: Sha256,
}

impl<'a> Input<'a> {
    fn open(target: &dyn Target, backup: String, part: &'a FilePart) -> Result<Self, Error> {
        let opened = target.open(&backup, &part.name);
        let name = || part.name.clone();
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::FileMissing { backup, file: name() });
            }
            Err(source) => return Err(Error::Io { what: "read", backup, file: name(), source }),
        };
        Ok(Self { backup, part, file, at: 0, digest: Sha256::new() })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.file.read_exact(bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged(self.at, "the file is cut"));
            }
            Err(source) => {
                let (backup, file) = (self.backup.clone(), self.part.name.clone());
                return Err(Error::Io { what: "read", backup, file, source });
            }
        }
        self.digest.update(&*bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Nothing follows, and all of it is what the manifest names.
    fn end(mut self, chunks: u64, items: u64) -> Result<(), Error> {
        if !matches!(self.file.read(&mut [0]), Ok(0)) {
            let (from, backup) = (self.at, &self.backup);
            return Err(damage(backup, &self.part.name, from, from + 1, "bytes follow its end"));
        }
        let digest: Digest = std::mem::take(&mut self.digest).finalize().into();
        if (chunks, items) != (self.part.chunks, self.part.items) || self.part.digest != digest[..]
        {
            // Whole chunks that hold by themselves: of another file, or in another order.
            return Err(self.damaged(0, "it is not the file that the manifest names"));
        }
        Ok(())
    }

    /// From here to what was read or was to be read.
    fn damaged(&self, from: u64, what: &'static str) -> Error {
        let to = if from < self.at { self.at } else { self.part.bytes };
        damage(&self.backup, &self.part.name, from, to, what)
    }
}

fn damage(backup: &str, file: &str, from: u64, to: u64, what: &'static str) -> Error {
    Error::Damaged { backup: backup.to_owned(), file: file.to_owned(), from, to, what }
}

fn wrong_key(backup: &str, file: &str) -> Error {
    Error::WrongKey { backup: backup.to_owned(), file: file.to_owned() }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
