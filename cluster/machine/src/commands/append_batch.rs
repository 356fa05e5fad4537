//! `AppendBatch`: order, once only, place, cursor and leaf of a batch, in one write.
//!
//! Hot path: no sealed byte is touched.
//!
//! ```text
//!  last <= cursor            -> ALREADY, or CONFLICT{sequence}: nothing stored, no leaf
//!  first != cursor + 1       -> GAP{expected}
//!  session != the current    -> SUPERSEDED
//!  else                      -> stored
//! ```

use bytes::Bytes;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{AppendBatch, Appended, Outcome, Refusal, RefusalKind};
use dtm_types::format::{EntryBody, HeaderA, HeaderB, Place, QuarantineQuota, QuarantineRow};
use dtm_types::{KeyId, Month, StreamKey};
use prost::Message;

use super::resend::{self, Resend};
use super::{Context, answer, refused, refused_at};
use crate::machine::ApplyError;
use crate::mirror::{StreamMirror, TAG_BYTES};
use crate::{day, keys, leaves};

/// Version of part A that this software knows.
const HEADER_VERSION: u32 = 1;
/// Bytes of a digest.
const HASH_BYTES: usize = 32;

/// Applies a batch.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, append: AppendBatch) -> Result<Outcome, ApplyError> {
    let batch = match Batch::check(&append) {
        Ok(batch) => batch,
        Err(cause) => return Ok(refused(RefusalKind::Malformed, cause)),
    };
    let Some(mut mirror) = ctx.mirror.take(&batch.stream, ctx.rows)? else {
        return Ok(refused(RefusalKind::NotFound, "the stream was never opened"));
    };
    let outcome = decide(ctx, &batch, &mut mirror);
    ctx.mirror.keep(batch.stream, mirror);
    outcome
}

/// A batch whose shape was checked.
struct Batch<'a> {
    append: &'a AppendBatch,
    body: &'a EntryBody,
    header: HeaderA,
    stream: StreamKey,
}

fn decide(
    ctx: &mut Context<'_, '_>,
    batch: &Batch<'_>,
    mirror: &mut StreamMirror,
) -> Result<Outcome, ApplyError> {
    let header = &batch.header;
    let (session, through) = (mirror.cursor.session, mirror.cursor.through);
    if header.session != session {
        return Ok(refused_at(RefusalKind::Superseded, 0, session));
    }
    if header.last_sequence <= through {
        return already(ctx, batch, mirror);
    }
    if header.first_sequence != through + 1 {
        return Ok(refused_at(RefusalKind::Gap, through + 1, session));
    }
    let Some(key) = KeyId::from_slice(&header.key_id) else {
        return Ok(refused(RefusalKind::Malformed, "a key id has 16 bytes"));
    };
    if mirror.known_key != Some(key) {
        if ctx.rows.get(&keys::key(key))?.is_none() {
            return Ok(refused(RefusalKind::UnknownKey, &format!("key {key} is not held")));
        }
        mirror.known_key = Some(key);
    }
    store(ctx, batch, mirror)
}

/// Stores an accepted batch.
fn store(
    ctx: &mut Context<'_, '_>,
    batch: &Batch<'_>,
    mirror: &mut StreamMirror,
) -> Result<Outcome, ApplyError> {
    let Batch { append, body, header, stream } = batch;
    let doubled = fingerprints(ctx, body, header)?;
    let duplicates = count_bits(&doubled);
    let refused_count = count_bits(&header.refusal_bitmap);
    let leaf_index = leaves::append_batch(ctx, body, doubled.clone());
    put_place(ctx, header, stream, leaf_index, doubled);
    resend::remember(ctx, stream, mirror, header.first_sequence, &body.resend_tags)?;
    let quota = match refused_count {
        0 => QuarantineQuota::default(),
        count => quarantine(ctx, append, header, count)?,
    };
    let cursor = &mut mirror.cursor;
    assert_eq!(cursor.through + 1, header.first_sequence, "ING-3: {stream} would have a hole");
    cursor.through = header.last_sequence;
    cursor.offset = ctx.index;
    cursor.leaf_index = leaf_index;
    cursor.last_time_us = ctx.group_time_us;
    cursor.records += u64::from(header.count - refused_count - duplicates);
    cursor.refused += u64::from(refused_count);
    cursor.duplicates += u64::from(duplicates);
    cursor.reported += u64::from(append.reported.min(header.count));
    cursor.unmasked += u64::from(append.unmasked.min(header.count));
    ctx.rows.put_row(keys::cursor(stream), cursor);
    let head = &mut ctx.mirror.head;
    let records = u64::from(header.count - refused_count - duplicates);
    day::count(head, ctx.group_time_us, records, u64::from(refused_count));
    head.records += records;
    head.refused += u64::from(refused_count);
    head.duplicates += u64::from(duplicates);
    head.payload_bytes = head.payload_bytes.saturating_add(header.plain_bytes);
    Ok(answer(Answer::Appended(Appended {
        acked_through: header.last_sequence,
        offset: ctx.index,
        leaf_index,
        duplicates,
        quarantine_records: quota.records,
        quarantine_bytes: quota.bytes,
        ..Appended::default()
    })))
}

fn already(
    ctx: &mut Context<'_, '_>,
    batch: &Batch<'_>,
    mirror: &mut StreamMirror,
) -> Result<Outcome, ApplyError> {
    let Batch { body, header, stream, .. } = batch;
    match resend::compare(ctx, stream, mirror, header.first_sequence, &body.resend_tags)? {
        Resend::Conflict(conflicts) => Ok(answer(Answer::Refusal(Refusal {
            kind: RefusalKind::Conflict.into(),
            sequence: conflicts[0],
            session: mirror.cursor.session,
            conflicts,
            ..Refusal::default()
        }))),
        Resend::Same { unverified } => {
            if unverified > 0 {
                mirror.cursor.unverified += unverified;
                ctx.rows.put_row(keys::cursor(stream), &mirror.cursor);
            }
            Ok(answer(Answer::Appended(Appended {
                acked_through: mirror.cursor.through,
                offset: mirror.cursor.offset,
                leaf_index: mirror.cursor.leaf_index,
                already: true,
                unverified,
                ..Appended::default()
            })))
        }
    }
}

impl<'a> Batch<'a> {
    /// The shape of a batch; apply trusts no proposer.
    fn check(append: &'a AppendBatch) -> Result<Self, &'static str> {
        let body = append.body.as_ref().ok_or("no entry body")?;
        let header = HeaderA::decode(body.header_a.clone())
            .map_err(|_| "part A of the header does not decode")?;
        let part_b = HeaderB::decode(body.header_b.clone())
            .map_err(|_| "part B of the header does not decode")?;
        let stream = StreamKey::parse(&header.source, &header.stream)
            .ok_or("source or stream name is not allowed")?;
        let count = header.count as usize;
        let span =
            header.last_sequence.checked_sub(header.first_sequence).and_then(|d| d.checked_add(1));
        if header.version != HEADER_VERSION {
            return Err("unknown version of the header");
        }
        if count == 0 || header.first_sequence == 0 || span != Some(u64::from(header.count)) {
            return Err("count and sequences do not agree");
        }
        if header.last_sequence > StreamKey::SEQUENCE_MAX {
            return Err("a sequence is above 2^53 - 1");
        }
        if body.record_hashes.len() != count * HASH_BYTES
            || body.resend_tags.len() != count * TAG_BYTES
        {
            return Err("hashes or tags do not agree with the count");
        }
        if !body.fingerprints.is_empty() && body.fingerprints.len() != count * TAG_BYTES {
            return Err("fingerprints do not agree with the count");
        }
        if !header.refusal_bitmap.is_empty() && header.refusal_bitmap.len() != count.div_ceil(8) {
            return Err("refusal bitmap does not agree with the count");
        }
        if count_bits(&header.refusal_bitmap) > header.count {
            return Err("refusal bitmap holds more records than the batch");
        }
        if header.nonce.len() != 24 || header.record_root.len() != HASH_BYTES {
            return Err("nonce or record root has a wrong length");
        }
        if part_b.ciphertext_digest.len() != HASH_BYTES || part_b.tag.len() != TAG_BYTES {
            return Err("digest or tag has a wrong length");
        }
        Ok(Self { append, body, header, stream })
    }
}

/// Marks records whose message id is already held; remembers the others. ING-2.
fn fingerprints(
    ctx: &mut Context<'_, '_>,
    body: &EntryBody,
    header: &HeaderA,
) -> Result<Bytes, ApplyError> {
    if body.fingerprints.is_empty() {
        return Ok(Bytes::new());
    }
    let (month, before) = months(ctx);
    let mut bitmap = vec![0_u8; (header.count as usize).div_ceil(8)];
    let mut any = false;
    for (record, fingerprint) in body.fingerprints.chunks_exact(TAG_BYTES).enumerate() {
        if fingerprint == [0; TAG_BYTES] || bit(&header.refusal_bitmap, record) {
            continue;
        }
        let key = keys::fingerprint(month, fingerprint);
        let held = ctx.rows.get(&key)?.is_some()
            || ctx.rows.get(&keys::fingerprint(before, fingerprint))?.is_some();
        if held {
            bitmap[record / 8] |= 1 << (record % 8);
            any = true;
            continue;
        }
        let mut row = Vec::with_capacity(16);
        row.extend_from_slice(&ctx.index.to_be_bytes());
        row.extend_from_slice(&ctx.ordinal.to_be_bytes());
        row.extend_from_slice(&(record as u32).to_be_bytes());
        ctx.rows.put(key, row);
    }
    Ok(if any { bitmap.into() } else { Bytes::new() })
}

/// The month that fingerprints are kept under, and the one that was it before: where group time went
/// over months, what was kept before that is still found.
fn months(ctx: &mut Context<'_, '_>) -> (Month, Month) {
    let (month, head) = (Month::of_micros(ctx.group_time_us), &mut ctx.mirror.head);
    if month.0 != head.fingerprint_month {
        head.fingerprint_month_before = head.fingerprint_month;
        head.fingerprint_month = month.0;
    }
    (month, Month(head.fingerprint_month_before))
}

fn put_place(
    ctx: &mut Context<'_, '_>,
    header: &HeaderA,
    stream: &StreamKey,
    leaf_index: u64,
    doubled: Bytes,
) {
    let place = Place {
        index: ctx.index,
        ordinal: ctx.ordinal,
        source: header.source.clone(),
        stream: header.stream.clone(),
        first_sequence: header.first_sequence,
        last_sequence: header.last_sequence,
        dataset: header.dataset.clone(),
        schema_version: header.schema_version,
        leaf_index,
        duplicate_bitmap: doubled,
        refusal_bitmap: header.refusal_bitmap.clone(),
        group_time_us: ctx.group_time_us,
        key_id: header.key_id.clone(),
    };
    ctx.rows.put_row(keys::place(ctx.index, ctx.ordinal), &place);
    let mut pointer = Vec::with_capacity(12);
    pointer.extend_from_slice(&ctx.index.to_be_bytes());
    pointer.extend_from_slice(&ctx.ordinal.to_be_bytes());
    ctx.rows.put(keys::stream_place(stream, header.last_sequence), pointer);
}

/// What a source has in quarantine of the month of this entry; its quota begins anew with the month.
pub(super) fn quota_of(ctx: &Context<'_, '_>, source: &str) -> Result<QuarantineQuota, ApplyError> {
    let quota: QuarantineQuota = ctx.rows.row(&keys::quota(source))?.unwrap_or_default();
    let month = Month::of_micros(ctx.group_time_us).0;
    Ok(if quota.month == month {
        quota
    } else {
        QuarantineQuota { month, records: 0, bytes: 0, ..quota }
    })
}

fn quarantine(
    ctx: &mut Context<'_, '_>,
    append: &AppendBatch,
    header: &HeaderA,
    count: u32,
) -> Result<QuarantineQuota, ApplyError> {
    let mut quota = quota_of(ctx, &header.source)?;
    quota.records += u64::from(count.saturating_sub(append.quarantine_beyond));
    quota.bytes = quota.bytes.saturating_add(append.quarantine_bytes);
    quota.beyond += u64::from(append.quarantine_beyond);
    ctx.rows.put_row(keys::quota(&header.source), &quota);
    let row = QuarantineRow {
        stream: header.stream.clone(),
        records: count,
        first_sequence: header.first_sequence,
        group_time_us: ctx.group_time_us,
        dataset: header.dataset.clone(),
    };
    ctx.rows.put_row(keys::quarantine(&header.source, ctx.index, ctx.ordinal), &row);
    Ok(quota)
}

fn count_bits(bitmap: &[u8]) -> u32 {
    bitmap.iter().map(|byte| byte.count_ones()).sum()
}

fn bit(bitmap: &[u8], at: usize) -> bool {
    bitmap.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}
