//! Opens stored batches again. Blocking: runs on a blocking thread, one bundle at a time.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dtm_actors::{KeyVault, OpenedBatch, SecurityStatus, open_batch};
use dtm_machine::reads;
use dtm_machine::seams::{GroupView, RecordError, StateRead};
use dtm_proto::records::{QuarantinedRecord, Resent, StoredRecord};
use dtm_seal::DataKey;
use dtm_types::command::command::Op;
use dtm_types::command::{Bundle, Command};
use dtm_types::format::{Cursor, EntryBody, Place, SealedRecord, Violation};
use dtm_types::text::Lang;
use dtm_types::{ErrorCode, KeyId, StreamKey, bundle};
use sha2::{Digest, Sha256};
use tonic::Status;

use super::pages::{Batches, Wanted};
use super::refused_id::RefusedId;
use crate::status::{internal, status};

/// Keys that a reader keeps at hand.
const KEYS_MAX: usize = 1_024;

/// Reads batches of one group.
pub(crate) struct BatchReader {
    view: GroupView,
    vault: Arc<dyn KeyVault>,
    keys: HashMap<KeyId, Arc<DataKey>>,
    /// The bundle that was read last: its batches are usually read one after the other.
    last: Option<(u64, Arc<Bundle>)>,
}

impl BatchReader {
    pub(crate) fn new(view: GroupView, vault: Arc<dyn KeyVault>) -> Self {
        Self { view, vault, keys: HashMap::new(), last: None }
    }

    fn record(
        &self,
        place: &Place,
        body: &EntryBody,
        n: usize,
        record: SealedRecord,
        digests_only: bool,
    ) -> StoredRecord {
        StoredRecord {
            source: place.source.clone(),
            stream: place.stream.clone(),
            sequence: place.first_sequence + n as u64,
            dataset: place.dataset.clone(),
            schema_version: place.schema_version,
            envelope: if digests_only { None } else { record.envelope },
            payload_digest: Bytes::copy_from_slice(&Sha256::digest(&record.payload)),
            payload: if digests_only { Bytes::new() } else { record.payload },
            record_hash: body.record_hashes.slice(n * 32..(n + 1) * 32),
            group: self.view.group.0,
            offset: place.index,
            leaf_index: place.leaf_index,
            group_time_us: place.group_time_us,
            ..StoredRecord::default()
        }
    }

    fn open(&mut self, place: &Place) -> Result<(EntryBody, OpenedBatch), Status> {
        let key = self.key(place)?;
        let bundle = self.bundle(place.index)?;
        let command: Option<&Command> = bundle.commands.get(place.ordinal as usize);
        let Some(Op::AppendBatch(append)) = command.and_then(|c| c.op.as_ref()) else {
            return Err(internal(format!("no batch at {}-{}", place.index, place.ordinal)));
        };
        let body = append.body.clone().unwrap_or_default();
        let cipher = self.vault.batch_cipher(&key);
        let opened = open_batch(&body, &*cipher).map_err(|cause| {
            status(
                ErrorCode::Damaged,
                format!(
                    "batch {}-{} of group {}: {cause}",
                    place.index, place.ordinal, self.view.group
                ),
            )
        })?;
        // Digests and plaintext must be of the same length before any is served.
        if body.record_hashes.len() != opened.records.len() * 32 {
            return Err(internal(format!(
                "hashes of batch {}-{} do not fit",
                place.index, place.ordinal
            )));
        }
        Ok((body, opened))
    }

    fn bundle(&mut self, index: u64) -> Result<Arc<Bundle>, Status> {
        if let Some((last, bundle)) = &self.last
            && *last == index
        {
            return Ok(Arc::clone(bundle));
        }
        let bytes = self.view.records.bundle(index).map_err(|error| match error {
            RecordError::Missing(_) => status(ErrorCode::Unavailable, error),
            _ => status(ErrorCode::Damaged, error),
        })?;
        let bundle = Arc::new(bundle::decode(&bytes).map_err(|e| status(ErrorCode::Damaged, e))?);
        self.last = Some((index, Arc::clone(&bundle)));
        Ok(bundle)
    }

    fn key(&mut self, place: &Place) -> Result<Arc<DataKey>, Status> {
        let id =
            KeyId::from_slice(&place.key_id).ok_or_else(|| internal("a key id has 16 bytes"))?;
        if let Some(key) = self.keys.get(&id) {
            return Ok(Arc::clone(key));
        }
        let row = reads::key(self.view.state.as_ref(), id).map_err(internal)?;
        let row = row.ok_or_else(|| status(ErrorCode::KeyMissing, format!("key {id}")))?;
        let key = self
            .vault
            .open_data_key(self.view.group, &row)
            .map_err(|e| status(ErrorCode::KeyMissing, e))?;
        let key = Arc::new(key);
        if self.keys.len() >= KEYS_MAX {
            self.keys.clear();
        }
        self.keys.insert(id, Arc::clone(&key));
        Ok(key)
    }
}

impl Batches for BatchReader {
    fn stored(
        &mut self,
        place: &Place,
        wanted: Wanted,
        digests_only: bool,
    ) -> Result<Vec<StoredRecord>, Status> {
        let (body, batch) = self.open(place)?;
        let is_stored = |n| !bit(&place.refusal_bitmap, n) && !bit(&place.duplicate_bitmap, n);
        let records = batch.records.into_iter().enumerate().skip(passed(place, wanted));
        let records = records.filter(|(n, _)| is_stored(*n)).take(wanted.records_max);
        let header = &batch.header;
        Ok(records
            .map(|(n, record)| StoredRecord {
                form: header.form,
                mode: header.mode,
                security_status: header.security_status,
                priority: header.priority,
                ..self.record(place, &body, n, record, digests_only)
            })
            .collect())
    }

    fn refused(
        &mut self,
        place: &Place,
        wanted: Wanted,
        with_payload: bool,
    ) -> Result<Vec<QuarantinedRecord>, Status> {
        let (_, batch) = self.open(place)?;
        let (view, header) = (&self.view, &batch.header);
        let status = SecurityStatus::of(header.security_status);
        let shows_excerpts = with_payload || status.shows_excerpts();
        let records = batch.records.into_iter().enumerate().skip(passed(place, wanted));
        let refused = records.filter(|(n, _)| bit(&place.refusal_bitmap, *n));
        let veiled = refused.take(wanted.records_max).map(|(n, mut record)| {
            if !shows_excerpts {
                record.violations.iter_mut().for_each(veil);
            }
            (n, record)
        });
        let shown = veiled.map(|(n, record)| {
            let id = RefusedId::new(view.group, place, n);
            let (origin, sequence) = (id.origin(&place.stream), place.first_sequence + n as u64);
            let again = (origin != id).then_some(sequence);
            Ok(QuarantinedRecord {
                id: id.to_string(),
                resent: resent(view.state.as_ref(), &place.source, origin, again)?,
                resend_of: again.map(|_| origin.to_string()).unwrap_or_default(),
                source: place.source.clone(),
                stream: place.stream.clone(),
                sequence: place.first_sequence + n as u64,
                dataset: place.dataset.clone(),
                message_id: record
                    .envelope
                    .as_ref()
                    .map(|e| e.message_id.clone())
                    .unwrap_or_default(),
                envelope: record.envelope.filter(|_| with_payload),
                group_time_us: place.group_time_us,
                messages_vi: record.violations.iter().map(|v| message(v, Lang::Vi)).collect(),
                messages_en: record.violations.iter().map(|v| message(v, Lang::En)).collect(),
                violations: record.violations,
                form: header.form,
                mode: header.mode,
                security_status: header.security_status,
                priority: header.priority,
                payload: if with_payload { record.payload } else { Bytes::new() },
            })
        });
        shown.collect()
    }
}

/// What became of a refused record where it was sent again: the cursor of the stream that bears its
/// id, which is in the same group.
fn resent(
    state: &dyn StateRead,
    source: &str,
    id: RefusedId,
    again: Option<u64>,
) -> Result<Option<Resent>, Status> {
    let Some(key) = StreamKey::parse(source, &id.stream()) else { return Ok(None) };
    let cursor = reads::cursor(state, &key).map_err(internal)?.unwrap_or_default();
    Ok(became(id, &cursor, again))
}

/// The same for the record itself, or for what was refused again at a sequence of that stream: only
/// what came behind it tells of that.
fn became(id: RefusedId, cursor: &Cursor, again: Option<u64>) -> Option<Resent> {
    let is_closed = cursor.records + cursor.duplicates > 0;
    // Until one is stored or doubled, which ends the stream, every sequence is a refusal.
    let behind = cursor.through.saturating_sub(again.unwrap_or(0));
    let refused = cursor.refused.min(behind.saturating_sub(u64::from(is_closed)));
    if !is_closed && refused == 0 {
        return None;
    }
    // What is stored is the last of its stream.
    let sequence = if cursor.records > 0 { cursor.through } else { 0 };
    Some(Resent { stream: id.stream(), sequence, is_duplicate: cursor.duplicates > 0, refused })
}

/// Records of a batch before the first that is wanted.
fn passed(place: &Place, wanted: Wanted) -> usize {
    usize::try_from(wanted.from.saturating_sub(place.first_sequence)).unwrap_or(usize::MAX)
}

fn bit(bitmap: &[u8], at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}

/// Leaves place, rule and length.
fn veil(violation: &mut Violation) {
    violation.found.clear();
    let rule = dtm_catalog::Rule::from_name(&violation.rule);
    if rule.is_none_or(dtm_catalog::Rule::expects_content) {
        violation.expected.clear();
    }
}

/// A stored violation in words.
pub(crate) fn message(violation: &Violation, lang: Lang) -> String {
    let Some(rule) = dtm_catalog::Rule::from_name(&violation.rule) else {
        return violation.rule.clone();
    };
    let known = dtm_catalog::Violation {
        pointer: violation.pointer.clone(),
        rule,
        expected: violation.expected.clone(),
        found: violation.found.clone(),
        found_bytes: violation.found_bytes,
        byte_offset: violation.byte_offset,
    };
    known.message(lang)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_again_is_open_and_closed_with_the_first() {
        let id = RefusedId::parse("1-12-0-10").expect("an id");
        let told = |through, refused, records, duplicates, again| {
            let cursor = Cursor { through, refused, records, duplicates, ..Cursor::default() };
            became(id, &cursor, again).map(|resent| {
                assert_eq!(resent.stream, "resend.1-12-0-10");
                (resent.sequence, resent.is_duplicate, resent.refused)
            })
        };
        assert_eq!(told(0, 0, 0, 0, None), None, "not resent");
        assert_eq!(told(2, 2, 0, 0, None), Some((0, false, 2)));
        assert_eq!(told(2, 2, 0, 0, Some(1)), Some((0, false, 1)), "once more since");
        assert_eq!(told(2, 2, 0, 0, Some(2)), None, "the last one is open");
        for again in [None, Some(1), Some(2)] {
            let refused = 2 - again.unwrap_or(0);
            assert_eq!(
                told(3, 2, 1, 0, again),
                Some((3, false, refused)),
                "stored: all are closed"
            );
            assert_eq!(
                told(3, 2, 0, 1, again),
                Some((0, true, refused)),
                "doubled: all are closed"
            );
        }
    }
}
