//! What was published to a named stream from this computer: which inputs, from which sequence on,
//! and which of them to their end. A small file for each stream; without it a later run cannot know
//! what the records in a stream are.
//!
//! A note is on disk before the first record of its input is sent, and says that the input is whole
//! only after every record is acked.

use super::error::Error;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Inputs that are remembered; beyond it the oldest ones are forgotten.
const INPUTS_MAX: usize = 4096;

/// One input in a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Digest of its content and of how it is sent.
    pub(crate) input: String,
    /// Its name, for people.
    pub(crate) file: String,
    /// Its size; 0 = it was no file.
    pub(crate) bytes: u64,
    /// The stream's records before its first one.
    pub(crate) base: u64,
    /// Its records, once all are acked.
    pub(crate) records: Option<u64>,
    /// Refused records of the stream before its first one.
    pub(crate) refused_before: u64,
    /// Its refused records, once all are acked.
    pub(crate) refused: u64,
}

impl Entry {
    /// The last sequence that is surely its own.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.records.unwrap_or(0)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Notes {
    source: String,
    stream: String,
    inputs: Vec<Entry>,
}

/// The notes of one stream.
#[derive(Debug)]
pub(crate) struct History {
    path: Option<PathBuf>,
    notes: Notes,
}

impl History {
    /// Reads the notes of a stream; there are none where there is no folder.
    pub(crate) fn open(folder: Option<&Path>, source: &str, stream: &str) -> Result<Self, Error> {
        let fresh = Notes { source: source.into(), stream: stream.into(), inputs: Vec::new() };
        let Some(folder) = folder else {
            return Ok(Self { path: None, notes: fresh });
        };
        let name = Sha256::digest(format!("{source}\0{stream}"));
        let path = folder.join(format!("{}.json", hex::encode(&name[..16])));
        let notes = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fresh),
            Err(error) => Err(error),
        };
        let notes = notes.map_err(|e| failed(&path, &e))?;
        Ok(Self { path: Some(path), notes })
    }

    /// The last note of an input.
    pub(crate) fn of(&self, input: &str) -> Option<&Entry> {
        self.notes.inputs.iter().rev().find(|entry| entry.input == input)
    }

    /// The input that was interrupted, if one was.
    pub(crate) fn interrupted(&self) -> Option<&Entry> {
        self.notes.inputs.iter().find(|entry| entry.records.is_none())
    }

    /// The input at the end of a stream that holds so many records, whole or cut.
    pub(crate) fn newest(&self, held: u64) -> Option<&Entry> {
        let entry = self.notes.inputs.last()?;
        let is_end = entry.end() == held || (entry.records.is_none() && entry.base <= held);
        is_end.then_some(entry)
    }

    /// The last sequence that is accounted for.
    pub(crate) fn end(&self) -> u64 {
        self.notes.inputs.iter().map(Entry::end).max().unwrap_or(0)
    }

    /// Notes that an input is about to be sent; one that was interrupted stays cut.
    pub(crate) fn begin(&mut self, entry: Entry) -> Result<(), Error> {
        self.notes.inputs.retain(|old| old.records.is_some());
        self.notes.inputs.push(entry);
        let surplus = self.notes.inputs.len().saturating_sub(INPUTS_MAX);
        self.notes.inputs.drain(..surplus);
        self.write()
    }

    /// Notes that all of the input that was begun is acked.
    pub(crate) fn end_with(&mut self, records: u64, refused: u64) -> Result<(), Error> {
        let Some(entry) = self.notes.inputs.last_mut().filter(|entry| entry.records.is_none())
        else {
            return Ok(());
        };
        (entry.records, entry.refused) = (Some(records), refused);
        self.write()
    }

    /// Replaces the file as a whole. Returns after fsync.
    fn write(&self) -> Result<(), Error> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let text = serde_json::to_vec(&self.notes).expect("names and numbers have a JSON form");
        let next = path.with_extension(format!("json.{}", std::process::id()));
        let written = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            let mut file = File::create(&next)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&next, path)
        };
        written().map_err(|e| failed(path, &e))
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::History { path: path.display().to_string(), reason: error.to_string() }
}
