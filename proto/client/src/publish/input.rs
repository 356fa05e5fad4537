//! Files as streams of batches: a reading thread and a short queue.

use super::PublishOptions;
use super::records::{Item, RecordReader};
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
        match start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start().first() {
            Some(b'[') => Self::JsonArray,
            Some(b'{') | None => Self::JsonLines,
            Some(_) if name.ends_with(".json") => Self::JsonLines,
            Some(_) => Self::Csv,
        }
    }
}

/// Why a file was not published to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It does not read.
    #[error("{file}: {reason}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// It changed while it was read.
    #[error("{file} changed while it was published: run again")]
    Changed {
        /// The file.
        file: String,
    },
    /// A table needs the definition of its data set.
    #[error("{file}: a table needs the definition of its data set")]
    Definition {
        /// The file.
        file: String,
    },
    /// The header does not fit the data set.
    #[error("{file}: {reason}")]
    Header {
        /// The file.
        file: String,
        /// Column and what is wrong.
        reason: String,
    },
    /// The array cannot be followed any further.
    #[error("{file}, line {line}: {what}")]
    Syntax {
        /// The file.
        file: String,
        /// The line.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The stream holds more records than the input has: it is not the same input.
    #[error("{file} has {sequence} records, its stream holds {held}: not the same input")]
    StreamLonger {
        /// The file.
        file: String,
        /// Highest sequence held.
        held: u64,
        /// Records of the input.
        sequence: u64,
    },
    /// The cluster or the way to it.
    #[error(transparent)]
    Client(#[from] crate::Error),
}

impl Error {
    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Client(error) => error.retryable(),
            Self::Changed { .. } => true,
            _ => false,
        }
    }

    fn io(file: &Path, error: &io::Error) -> Self {
        Self::Io { file: file.display().to_string(), reason: error.to_string() }
    }
}

/// SHA-256 and length of a file.
pub(crate) async fn digest(path: PathBuf) -> Result<([u8; 32], u64), Error> {
    let shown = path.clone();
    let work = move || -> io::Result<([u8; 32], u64)> {
        let mut file = File::open(&path)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0u64);
        let mut buffer = vec![0u8; 256 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok((hash.finalize().into(), bytes));
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| Error::io(&shown, &e))
}

/// Plain files of a folder that are not hidden and not done, by name.
pub(crate) fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |e: io::Error| Error::io(folder, &e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() && is_input(&entry.path()) {
            files.push(entry.path());
        }
    }
    files.sort_unstable();
    Ok(files)
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
        let (format, definition) = (options.format, options.definition.clone());
        let read = Arc::new(AtomicU64::new(0));
        let counted = Box::new(CountedRead { input, read: read.clone() });
        let work = move || {
            let mut reader = match RecordReader::new(&name, counted, format, definition.as_deref())
            {
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
