//! Files as streams of batches: a reading thread and a short queue.

use super::PublishOptions;
use super::error::Error;
use super::quotes::Quotes;
use super::records::{Item, Layout, RecordReader, UTF8_MARK};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Items of one batch, at most.
const BATCH_ITEMS: usize = 256;
/// Bytes of one batch, about.
const BATCH_BYTES: usize = 256 << 10;
/// Batches that wait.
const BATCHES: usize = 4;

/// What a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By its name, else by its first byte.
    #[default]
    Auto,
    /// One JSON value a line.
    JsonLines,
    /// One JSON array.
    JsonArray,
    /// CSV with a header.
    Csv,
}

impl Format {
    /// Decides `Auto`.
    pub(crate) fn guess(self, name: &str, start: &[u8]) -> Self {
        if self != Self::Auto {
            return self;
        }
        let name = name.to_ascii_lowercase();
        if name.ends_with(".csv") {
            return Self::Csv;
        }
        if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
            return Self::JsonLines;
        }
        match start.strip_prefix(UTF8_MARK).unwrap_or(start).trim_ascii_start().first() {
            Some(b'[') => Self::JsonArray,
            Some(b'{') | None => Self::JsonLines,
            Some(_) if name.ends_with(".json") => Self::JsonLines,
            Some(_) => Self::Csv,
        }
    }
}

/// What a file is, as a whole.
pub(crate) struct Digested {
    /// SHA-256.
    pub(crate) digest: [u8; 32],
    pub(crate) bytes: u64,
}

/// The quotes of an input, where it is a table.
#[derive(Default)]
struct TableQuotes {
    has_begun: bool,
    quotes: Option<Quotes>,
}

impl TableQuotes {
    /// Goes on with the next bytes; the first ones say what the input is.
    fn feed(&mut self, name: &str, layout: Layout, mut chunk: &[u8]) {
        if !self.has_begun && !chunk.is_empty() {
            self.has_begun = true;
            if layout.format.guess(name, chunk) == Format::Csv {
                self.quotes = Some(Quotes::new(layout.delimiter));
                chunk = chunk.strip_prefix(UTF8_MARK).unwrap_or(chunk);
            }
        }
        if let Some(quotes) = &mut self.quotes {
            quotes.feed(chunk);
        }
    }

    /// The line of a quote that is open now.
    fn unclosed(&self) -> Option<u64> {
        self.quotes.as_ref().and_then(Quotes::unclosed)
    }
}

/// Reads a table to its end; the line of a quote that is never closed. What is no table is not read
/// beyond its start.
pub(crate) fn open_quote(
    name: &str,
    layout: Layout,
    input: &mut impl Read,
) -> io::Result<Option<u64>> {
    let mut quotes = TableQuotes::default();
    let mut buffer = vec![0u8; 256 << 10];
    // Ends with the input.
    loop {
        let read = input.read(&mut buffer)?;
        quotes.feed(name, layout, &buffer[..read]);
        if read == 0 || quotes.quotes.is_none() {
            return Ok(quotes.unclosed());
        }
    }
}

/// Reads a file to its end. A table whose quotes do not close is refused here, before any of it is
/// sent.
pub(crate) async fn digest(path: &Path, options: &PublishOptions) -> Result<Digested, Error> {
    let (path, shown) = (PathBuf::from(path), PathBuf::from(path));
    let layout = Layout { format: options.format, delimiter: options.delimiter };
    let work = move || -> io::Result<(Digested, Option<u64>)> {
        let name = path.display().to_string();
        let mut file = File::open(&path)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0u64);
        let mut quotes = TableQuotes::default();
        let mut buffer = vec![0u8; 256 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            hash.update(&buffer[..read]);
            quotes.feed(&name, layout, &buffer[..read]);
            if read == 0 {
                let digested = Digested { digest: hash.finalize().into(), bytes };
                return Ok((digested, quotes.unclosed()));
            }
            bytes += read as u64;
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|e| Err(io::Error::other(e)));
    match done.map_err(|e| Error::io(&shown, &e))? {
        (digested, None) => Ok(digested),
        (_, Some(line)) => Err(Error::open_quote(&shown.display().to_string(), line)),
    }
}

/// SHA-256 of the first `bytes` of a file.
pub(crate) async fn digest_of_start(path: &Path, bytes: u64) -> Result<[u8; 32], Error> {
    let (path, shown) = (PathBuf::from(path), PathBuf::from(path));
    let work = move || -> io::Result<[u8; 32]> {
        let mut file = File::open(&path)?.take(bytes);
        let mut hash = Sha256::new();
        let mut buffer = vec![0u8; 256 << 10];
        // Ends with the file.
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(hash.finalize().into());
            }
            hash.update(&buffer[..read]);
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| Error::io(&shown, &e))
}

/// What is in a folder, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderFiles {
    /// Files to publish: `.json`, `.jsonl`, `.ndjson`, `.csv`.
    pub files: Vec<PathBuf>,
    /// Files of another kind.
    pub unknown: Vec<PathBuf>,
    /// Folders in it, which are not entered.
    pub folders: Vec<PathBuf>,
}

/// Looks into a folder. Hidden files and those that are half-written by their name (`.tmp`,
/// `.part`, `.partial`, `~`) or done (`.done`) are left out.
///
/// # Errors
/// [`Error::Io`] where the folder does not read.
pub fn folder_files(folder: &Path) -> Result<FolderFiles, Error> {
    let mut found = FolderFiles::default();
    for path in files_of(folder)? {
        if is_known(&path) {
            found.files.push(path);
        } else {
            found.unknown.push(path);
        }
    }
    found.folders = entries_of(folder, std::fs::FileType::is_dir)?;
    Ok(found)
}

/// Whether a file of a folder has one of the endings that are taken.
pub(crate) fn is_known(path: &Path) -> bool {
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    ["json", "jsonl", "ndjson", "csv"].iter().any(|known| end.eq_ignore_ascii_case(known))
}

/// Plain files of a folder that are not hidden and not done, by name.
pub(crate) fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    entries_of(folder, std::fs::FileType::is_file)
}

fn entries_of(
    folder: &Path,
    is_wanted: fn(&std::fs::FileType) -> bool,
) -> Result<Vec<PathBuf>, Error> {
    let failed = |e: io::Error| Error::io(folder, &e);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_wanted(&entry.file_type().map_err(failed)?) && is_input(&entry.path()) {
            entries.push(entry.path());
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Neither hidden, nor half-written by convention, nor done.
pub(crate) fn is_input(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
    let unfinished = [".tmp", ".part", ".partial", ".done", "~"];
    !name.starts_with('.') && !unfinished.iter().any(|end| name.ends_with(end))
}

/// Items and how far the input was read for them.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    pub(crate) bytes_read: u64,
}

/// Batches of an input, read ahead by a thread.
pub(crate) struct Batches(mpsc::Receiver<Result<Batch, Error>>);

impl Batches {
    pub(crate) fn open(path: &Path, options: &PublishOptions) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        Self::start(path.display().to_string(), Box::new(file), options)
    }

    pub(crate) fn start(
        name: String,
        input: Box<dyn Read + Send>,
        options: &PublishOptions,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(BATCHES);
        let layout = Layout { format: options.format, delimiter: options.delimiter };
        let definition = options.definition.clone();
        let read = Arc::new(AtomicU64::new(0));
        let counted = Box::new(CountedRead { input, read: read.clone() });
        let work = move || {
            let opened = RecordReader::new(&name, counted, layout, definition.as_deref());
            let mut reader = match opened {
                Ok(reader) => reader,
                Err(error) => return drop(sender.blocking_send(Err(error))),
            };
            // Ends with the input, or when nobody listens any more.
            loop {
                let batch = next_batch(&mut reader, &name, &read);
                let last = batch.as_ref().map_or(true, |batch| batch.items.is_empty());
                if sender.blocking_send(batch).is_err() || last {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("dtm-publish-read".into())
            .spawn(work)
            .map_err(|e| Error::Io { file: "reading thread".into(), reason: e.to_string() })?;
        Ok(Self(receiver))
    }

    /// The next batch; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, Error> {
        self.0.recv().await.transpose()
    }
}

fn next_batch(reader: &mut RecordReader, name: &str, read: &AtomicU64) -> Result<Batch, Error> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while items.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
        let Some(item) = reader.next_item(name)? else {
            break;
        };
        if let Item::Record { payload, .. } = &item {
            bytes += payload.len();
        }
        items.push(item);
    }
    Ok(Batch { items, bytes_read: read.load(Ordering::Relaxed) })
}

struct CountedRead {
    input: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for CountedRead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(into)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
