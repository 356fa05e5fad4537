//! The records of one data set out of a backup, into files that people read and `dtm publish` sends.
//!
//! ```text
//!  backup ─▶ batches of the data set (rows say which, entries hold them) ─▶ opened under their keys
//!    ─▶ INTO/records/SOURCE.jsonl   a document a record: where it stood, its hash, its content
//!    ─▶ INTO/publish/SOURCE.jsonl   its content alone, a line each, in the same order
//! ```
//! Only what was stored comes out: neither refused nor doubled records. The order of a stream is kept; a
//! source lies in one group, so each file has the order in which its group committed.
//!
//! What is written is clear text: files are for their owner alone, and whoever has keyring and master
//! key answers for them. Owner of the state: the folder, which is new or empty and is emptied again
//! where the export fails.

mod files;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dtm_actors::{OpenedBatch, open_batch};
use dtm_backup::{Batch, OpenChain, Wanted};
use dtm_proto::records::StoredRecord;
use dtm_seal::DataKey;
use dtm_types::GroupId;
use dtm_types::format::{Place, WrappedKey};
use sha2::{Digest as _, Sha256};

use crate::files::Files;

/// Data keys kept at hand.
const KEYS_MAX: usize = 1_024;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] dtm_backup::Error),
    /// The folder holds something.
    #[error("{0} is not empty: name a folder that is new")]
    NotEmpty(PathBuf),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A batch that does not open: nothing of it is written.
    #[error("batch {index}-{ordinal} of group {group}: {cause}")]
    Batch {
        /// The group.
        group: GroupId,
        /// Its entry.
        index: u64,
        /// Its place in it.
        ordinal: u32,
        /// In words.
        cause: String,
    },
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records, in `records/`.
    pub records: u64,
    /// Of them those that are no line of `publish/`: their content has line ends of its own.
    pub unsendable: u64,
    /// Codes of the sources with their records, ascending.
    pub sources: Vec<(String, u64)>,
}

/// How an export opens and shows what it reads.
#[derive(Clone, Copy)]
pub struct With<'a> {
    /// Opens a data key of a group, or says why it cannot be.
    pub open_key: &'a dyn Fn(GroupId, &WrappedKey) -> Result<DataKey, String>,
    /// A record as one line of `records/`, without its end.
    pub document: &'a dyn Fn(&StoredRecord) -> String,
}

/// Writes the records of a data set into a folder that is new or empty. On stable storage when it
/// returns. `progress` gets the number of records so far.
///
/// # Errors
/// [`Error`]; what was begun is removed again.
pub fn export(
    chain: OpenChain<'_>,
    wanted: &Wanted,
    into: &Path,
    with: With<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Exported, Error> {
    if let Some(asked_us) = wanted.until_us {
        let newest_us = chain.newest().anchor_us();
        if asked_us > newest_us {
            return Err(dtm_backup::Error::TooLate { asked_us, newest_us }.into());
        }
    }
    let mut files = Files::new(into)?;
    let written = write(chain, wanted, with, &mut files, progress);
    let ended = written.and_then(|()| files.finish());
    if ended.is_err() {
        files::remove(into);
    }
    ended
}

fn write(
    chain: OpenChain<'_>,
    wanted: &Wanted,
    with: With<'_>,
    files: &mut Files,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let groups = chain.newest().groups.iter().map(|part| GroupId(part.group));
    for group in groups.filter(|group| !group.is_meta()) {
        let mut keys = HashMap::new();
        let mut failed = None;
        let read = chain.batches(group, wanted, &mut |batch| {
            let taken = take(group, &batch, with, &mut keys, files);
            progress(files.records());
            taken.map_err(|error| {
                // What went wrong stays what it is; the backup is only told to stop.
                failed = Some(error);
                dtm_backup::Error::Taker("stopped".into())
            })
        });
        match (failed, read) {
            (Some(error), _) => return Err(error),
            (None, read) => read?,
        }
    }
    Ok(())
}

fn take(
    group: GroupId,
    batch: &Batch,
    with: With<'_>,
    keys: &mut HashMap<Bytes, DataKey>,
    files: &mut Files,
) -> Result<(), Error> {
    let Batch { place, body, key } = batch;
    let failed = |cause| Error::Batch { group, index: place.index, ordinal: place.ordinal, cause };
    if !keys.contains_key(&key.key_id) {
        if keys.len() >= KEYS_MAX {
            keys.clear();
        }
        keys.insert(key.key_id.clone(), (with.open_key)(group, key).map_err(failed)?);
    }
    let cipher = keys[&key.key_id].cipher();
    let opened = open_batch(body, &cipher).map_err(failed)?;
    if body.record_hashes.len() != opened.records.len() * 32 {
        return Err(failed("its hashes do not fit its records".to_owned()));
    }
    let OpenedBatch { header, records } = opened;
    let is_stored = |n| !bit(&place.refusal_bitmap, n) && !bit(&place.duplicate_bitmap, n);
    for (n, record) in records.into_iter().enumerate().filter(|(n, _)| is_stored(*n)) {
        let stored = StoredRecord {
            envelope: record.envelope,
            payload_digest: Bytes::copy_from_slice(&Sha256::digest(&record.payload)),
            payload: record.payload,
            record_hash: body.record_hashes.slice(n * 32..(n + 1) * 32),
            form: header.form,
            mode: header.mode,
            security_status: header.security_status,
            priority: header.priority,
            ..standing(group, place, n)
        };
        files.add(&stored, &(with.document)(&stored))?;
    }
    Ok(())
}

/// Where a record stands.
fn standing(group: GroupId, place: &Place, n: usize) -> StoredRecord {
    StoredRecord {
        source: place.source.clone(),
        stream: place.stream.clone(),
        sequence: place.first_sequence + n as u64,
        dataset: place.dataset.clone(),
        schema_version: place.schema_version,
        group: group.0,
        offset: place.index,
        leaf_index: place.leaf_index,
        group_time_us: place.group_time_us,
        ..StoredRecord::default()
    }
}

fn bit(bitmap: &[u8], at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}

#[cfg(test)]
#[path = "export_test.rs"]
mod tests;
