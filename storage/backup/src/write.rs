//! Writing a backup: files, then the manifest.

use std::io::{self, Write};

use bytes::Bytes;
use dtm_machine::seams::Entropy;
use dtm_seal::{BatchCipher, DataKey, Nonce, Xaes256Gcm};
use dtm_types::{BackupId, GroupId};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::chunks::{self, CHUNK_BYTES, Entry, HEADER_BYTES, Kind};
use crate::manifest::{MAGIC, MANIFEST, Manifest, VERSION};
use crate::read::check_files;
use crate::target::{NewFile, Target};
use crate::{Digest, Error, FilePart, GroupPart};

/// A backup that is being written. It is none until [`Writer::finish`] returned.
pub struct Writer<'a> {
    target: &'a dyn Target,
    entropy: &'a dyn Entropy,
    id: BackupId,
    name: String,
    cipher: Xaes256Gcm,
}

impl<'a> Writer<'a> {
    /// Begins a backup under an id that was never used; `key` is its own and must be fresh.
    pub fn new(
        target: &'a dyn Target,
        entropy: &'a dyn Entropy,
        id: BackupId,
        key: &DataKey,
    ) -> Self {
        Self { target, entropy, id, name: id.to_string(), cipher: key.cipher() }
    }

    /// Begins a file of a group.
    ///
    /// # Errors
    /// [`Error::Io`], here and in what is called on it.
    pub fn file(&self, group: GroupId, kind: Kind) -> Result<FileWriter<'_>, Error> {
        let name = match kind {
            Kind::Rows => format!("g{:03}.rows", group.0),
            Kind::Entries => format!("g{:03}.entries", group.0),
        };
        let created = self.target.create(&self.name, &name);
        let header = chunks::header(self.id, kind, group);
        let mut file = FileWriter {
            backup: self,
            file: created.map_err(|source| self.failed("create", &name, source))?,
            part: FilePart { name, ..FilePart::default() },
            header,
            kind,
            plain: Vec::with_capacity(CHUNK_BYTES + (64 << 10)),
            items: 0,
            on_disk: Sha256::new(),
            state: Sha256::new(),
        };
        file.put(&header)?;
        Ok(file)
    }

    /// Reads every file that the manifest is to name from where it lies now, and opens it. It comes
    /// before [`Writer::finish`]: a manifest names nothing that was not read back. `progress` gets the
    /// bytes of each chunk.
    ///
    /// # Errors
    /// As [`crate::verify`].
    pub fn read_back(
        &self,
        groups: &[GroupPart],
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let settled = self.target.settle(&self.name);
        settled.map_err(|source| self.failed("sync", "", source))?;
        check_files(self.target, self.id, groups, Some(&self.cipher), progress)
    }

    /// Writes the manifest: with it this is a backup. Version, id and nothing else are filled in here.
    /// Returns the SHA-256 of its file. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Io`]; what was written so far is then no backup.
    pub fn finish(self, mut manifest: Manifest) -> Result<Digest, Error> {
        // Names of the files first: a manifest never names what a power cut takes.
        self.target.settle(&self.name).map_err(|source| self.failed("sync", "", source))?;
        manifest.version = VERSION;
        manifest.backup = Bytes::copy_from_slice(&self.id.0);
        let content = manifest.encode_to_vec();
        let mut nonce: Nonce = [0; 24];
        self.entropy.fill(&mut nonce);
        let header = [&MAGIC[..], &content].concat();
        let tag = self.cipher.seal_batch(&nonce, &header, &mut []).expect("nothing is sealed");
        let length = u32::try_from(content.len()).expect("a manifest is far below 4 GiB");
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes);
        let crc = [&nonce[..], &tag, &content].iter().fold(crc, |c, p| crc32c::crc32c_append(c, p));
        bytes.extend_from_slice(&crc.to_be_bytes());
        for part in [&nonce[..], &tag, &content] {
            bytes.extend_from_slice(part);
        }
        let failed = |what, source| self.failed(what, MANIFEST, source);
        let mut file = self.target.create(&self.name, MANIFEST).map_err(|e| failed("create", e))?;
        file.write_all(&bytes).map_err(|e| failed("write", e))?;
        file.finish().map_err(|e| failed("sync", e))?;
        self.target.settle(&self.name).map_err(|e| failed("sync", e))?;
        Ok(Sha256::digest(&bytes).into())
    }

    fn failed(&self, what: &'static str, file: &str, source: io::Error) -> Error {
        Error::Io { what, backup: self.name.clone(), file: file.to_owned(), source }
    }
}

/// A file that is being written.
pub struct FileWriter<'a> {
    backup: &'a Writer<'a>,
    file: Box<dyn NewFile>,
    part: FilePart,
    header: [u8; HEADER_BYTES],
    kind: Kind,
    plain: Vec<u8>,
    items: u32,
    on_disk: Sha256,
    state: Sha256,
}

impl FileWriter<'_> {
    /// Adds a row; keys ascend.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        assert_eq!(self.kind, Kind::Rows, "a row goes into a file of rows");
        self.add(|plain| chunks::put_row(plain, key, value))
    }

    /// Adds an entry; indexes ascend without holes.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        assert_eq!(self.kind, Kind::Entries, "an entry goes into a file of entries");
        self.add(|plain| chunks::put_entry(plain, entry))
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.part.bytes
    }

    fn add(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let from = self.plain.len();
        put(&mut self.plain);
        self.state.update(&self.plain[from..]);
        self.items += 1;
        if self.plain.len() >= CHUNK_BYTES { self.close_chunk() } else { Ok(()) }
    }

    fn close_chunk(&mut self) -> Result<(), Error> {
        if self.items == 0 {
            return Ok(());
        }
        let mut text = std::mem::take(&mut self.plain);
        let items = std::mem::take(&mut self.items);
        let bytes = u32::try_from(text.len()).expect("a chunk is below 32 MiB");
        let mut nonce: Nonce = [0; 24];
        self.backup.entropy.fill(&mut nonce);
        let header = chunks::associated_data(&self.header, self.part.chunks, bytes, items);
        let sealed = self.backup.cipher.seal_batch(&nonce, &header, &mut text);
        let tag = sealed.expect("a chunk is far below 64 GiB");
        let (bytes, count) = (bytes.to_be_bytes(), items.to_be_bytes());
        let frame = [&bytes[..], &count, &nonce, &tag].concat();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), &text).to_be_bytes();
        self.put(&frame)?;
        self.put(&crc)?;
        self.put(&text)?;
        self.part.chunks += 1;
        self.part.items += u64::from(items);
        text.clear();
        self.plain = text;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| self.backup.failed("write", &self.part.name, source))?;
        self.on_disk.update(bytes);
        self.part.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Ends the file. What it holds is on stable storage when this returns; the digest is that of all
    /// rows or entries in clear.
    pub fn finish(mut self) -> Result<(FilePart, Digest), Error> {
        self.close_chunk()?;
        let name = self.part.name.clone();
        self.file.finish().map_err(|source| self.backup.failed("sync", &name, source))?;
        let digest: Digest = self.on_disk.finalize().into();
        self.part.digest = Bytes::copy_from_slice(&digest);
        Ok((self.part, self.state.finalize().into()))
    }
}
