//! SEC-1: nothing secret lies in clear, and no nonce is used twice under one key.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use dtm_types::format::{EntryBody, HeaderA};
use prost::Message;

use super::breach::Breach;
use super::image::{Image, hex};

/// Files of one search at most: beyond it the caller searches the wrong place.
const FILES_MAX: usize = 100_000;
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes that must be found nowhere: as they are, and in hex.
#[derive(Clone, Default)]
pub struct Canaries {
    needles: Vec<(String, Vec<u8>)>,
}

impl Canaries {
    /// Adds a secret under a name that may be shown.
    ///
    /// # Panics
    /// When it is shorter than 8 bytes: it would be found by chance.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= 8, "a canary of {} bytes is found by chance", secret.len());
        self.needles.push((name.to_owned(), secret.to_vec()));
        self.needles.push((format!("{name} in hex"), hex(secret).into_bytes()));
        self.needles.push((format!("{name} in HEX"), hex(secret).to_uppercase().into_bytes()));
    }

    /// Searches bytes: a metrics page, a log line, a file of a simulated disk.
    pub fn search_bytes(&self, place: &str, bytes: &[u8]) -> Option<Breach> {
        let secret = self.first_in(bytes)?.to_owned();
        Some(Breach::SecretFound { place: place.to_owned(), secret })
    }

    /// Searches every file below a folder, names included. Files that vanish are passed over.
    ///
    /// # Errors
    /// A file cannot be read, or there are more than 100,000.
    pub fn search_folder(&self, folder: &Path) -> io::Result<Search> {
        let mut search = Search::default();
        let mut open = vec![folder.to_path_buf()];
        while let Some(path) = open.pop() {
            let name = path.display().to_string();
            search.breaches.extend(self.search_bytes(&format!("name {name}"), name.as_bytes()));
            match search_one(&path, &mut open) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
                Ok(None) => continue,
                Ok(Some(file)) => {
                    search.files += 1;
                    let secret = self.first_in_file(file, &mut search.bytes)?;
                    search.breaches.extend(secret.map(|secret| Breach::SecretFound {
                        place: name,
                        secret: secret.to_owned(),
                    }));
                }
            }
            if search.files > FILES_MAX {
                return Err(io::Error::other("more files than a node ever has"));
            }
        }
        Ok(search)
    }

    fn first_in(&self, bytes: &[u8]) -> Option<&str> {
        let found = self.needles.iter().find(|(_, needle)| holds(bytes, needle));
        found.map(|(name, _)| name.as_str())
    }

    fn first_in_file(&self, mut file: impl Read, read: &mut u64) -> io::Result<Option<&str>> {
        let overlap = self.needles.iter().map(|(_, needle)| needle.len()).max().unwrap_or(1) - 1;
        let mut window = Vec::with_capacity(CHUNK_BYTES + overlap);
        loop {
            window.drain(..window.len() - window.len().min(overlap));
            let got = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut window)?;
            *read += got as u64;
            if let Some(found) = self.first_in(&window) {
                return Ok(Some(found));
            }
            if got == 0 {
                return Ok(None);
            }
        }
    }
}

/// Opens a file, or notes what a folder holds.
fn search_one(
    path: &Path,
    open: &mut Vec<std::path::PathBuf>,
) -> io::Result<Option<std::fs::File>> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open.push(entry?.path());
        }
    }
    if kind.is_file() { std::fs::File::open(path).map(Some) } else { Ok(None) }
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    let (first, rest) = needle.split_first().expect("canaries are not empty");
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        from += at + 1;
        if bytes[from..].starts_with(rest) {
            return true;
        }
    }
    false
}

/// What a search through a folder saw.
#[derive(Debug, Default)]
pub struct Search {
    /// Files read: a search that read none proves nothing.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Secrets found.
    pub breaches: Vec<Breach>,
}

/// Every nonce that was used, by the id of its key. The key and nonce of AES-GCM follow from the
/// data key and these 24 bytes, so they repeat only where both repeat.
#[derive(Debug, Default)]
pub struct Nonces {
    used: BTreeMap<(Bytes, Bytes), (Bytes, String)>,
    breaches: Vec<Breach>,
}

impl Nonces {
    /// A sealed batch. The same batch may be seen on many nodes and in many bundles.
    pub fn sealed(&mut self, body: &EntryBody) {
        let Ok(header) = HeaderA::decode(body.header_a.clone()) else {
            return;
        };
        let name = format!("{}/{} {}", header.source, header.stream, header.first_sequence);
        // Part B holds tag and digest of what was sealed: other content, another part B.
        let content = Bytes::from([&body.header_a[..], &body.header_b[..]].concat());
        let key = (header.key_id.clone(), header.nonce.clone());
        let (first, known) =
            self.used.entry(key).or_insert_with(|| (content.clone(), name.clone()));
        if *first != content {
            self.breaches.push(Breach::NonceTwice {
                key: hex(&header.key_id),
                nonce: hex(&header.nonce),
                first: known.clone(),
                second: name,
            });
        }
    }

    /// Every batch of an image, refused resends included.
    pub fn image(&mut self, image: &Image) {
        for index in image.bundles.keys() {
            let commands = image.bundle(*index).map(|bundle| bundle.commands).unwrap_or_default();
            for command in commands {
                if let Some(dtm_types::command::command::Op::AppendBatch(append)) = command.op {
                    append.body.iter().for_each(|body| self.sealed(body));
                }
            }
        }
    }

    /// Pairs seen: a check over none proves nothing.
    pub fn seen(&self) -> usize {
        self.used.len()
    }

    /// What was found so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }
}
