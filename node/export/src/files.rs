//! The files of an export: two a source, for their owner alone.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dtm_proto::records::StoredRecord;

use crate::{Error, Exported};

/// Folder of the documents.
const RECORDS: &str = "records";
/// Folder of what `dtm publish` takes.
const PUBLISH: &str = "publish";
/// Sources whose files are open at a time, two each; others are opened again.
const OPEN_MAX: usize = 128;

/// The files that are written.
pub(crate) struct Files {
    into: PathBuf,
    open: HashMap<String, [BufWriter<File>; 2]>,
    counts: BTreeMap<String, u64>,
    records: u64,
    unsendable: u64,
}

impl Files {
    /// In a folder that is new or empty.
    pub(crate) fn new(into: &Path) -> Result<Self, Error> {
        match fs::read_dir(into) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::NotEmpty(into.to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { path: into.to_owned(), source }),
        }
        for folder in [RECORDS, PUBLISH] {
            let path = into.join(folder);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| Error::File { path, source })?;
        }
        Ok(Self {
            into: into.to_owned(),
            open: HashMap::new(),
            counts: BTreeMap::new(),
            records: 0,
            unsendable: 0,
        })
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Adds a record; `document` is its line in `records/`.
    pub(crate) fn add(&mut self, record: &StoredRecord, document: &str) -> Result<(), Error> {
        let is_line = !record.payload.is_empty()
            && !record.payload.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
        let source = &record.source;
        if !self.open.contains_key(source) {
            if self.open.len() >= OPEN_MAX {
                self.close()?;
            }
            let files = [self.file(RECORDS, source)?, self.file(PUBLISH, source)?];
            self.open.insert(source.clone(), files);
        }
        let [documents, contents] = self.open.get_mut(source).expect("it was just opened");
        let mut written = writeln!(documents, "{document}");
        if is_line {
            written = written
                .and_then(|()| contents.write_all(&record.payload))
                .and_then(|()| contents.write_all(b"\n"));
        }
        written.map_err(|error| self.failed(source, error))?;
        self.records += 1;
        self.unsendable += u64::from(!is_line);
        *self.counts.entry(source.clone()).or_default() += 1;
        Ok(())
    }

    /// On stable storage when it returns.
    pub(crate) fn finish(&mut self) -> Result<Exported, Error> {
        self.close()?;
        for folder in [self.into.join(RECORDS), self.into.join(PUBLISH), self.into.clone()] {
            let synced = File::open(&folder).and_then(|file| file.sync_all());
            synced.map_err(|source| Error::File { path: folder, source })?;
        }
        Ok(Exported {
            records: self.records,
            unsendable: self.unsendable,
            sources: std::mem::take(&mut self.counts).into_iter().collect(),
        })
    }

    /// Codes of sources hold no separators of paths: each is a file name.
    fn file(&self, folder: &str, source: &str) -> Result<BufWriter<File>, Error> {
        let path = self.into.join(folder).join(format!("{source}.jsonl"));
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        Ok(BufWriter::new(opened.map_err(|source| Error::File { path, source })?))
    }

    fn close(&mut self) -> Result<(), Error> {
        for (source, files) in std::mem::take(&mut self.open) {
            for file in files {
                let flushed = file.into_inner().map_err(io::IntoInnerError::into_error);
                let synced = flushed.and_then(|file| file.sync_all());
                synced.map_err(|error| self.failed(&source, error))?;
            }
        }
        Ok(())
    }

    fn failed(&self, of: &str, source: io::Error) -> Error {
        Error::File { path: self.into.join(RECORDS).join(of), source }
    }
}

/// Takes back what an export wrote; the folder itself may be somebody's.
pub(crate) fn remove(into: &Path) {
    for folder in [RECORDS, PUBLISH] {
        // What cannot be removed is seen by whoever looks: the export failed, and said so.
        let _ = fs::remove_dir_all(into.join(folder));
    }
    let _ = fs::remove_dir(into);
}
