//! Builds a batch record by record, then compresses, seals and encodes it once. Hot path.
//!
//! ```text
//!  record -> check, mask, canonical -> hash (salted), resend tag, fingerprint
//!         -> SealedBody (protobuf, appended) -> LZ4 -> XAES-256-GCM with part A as associated data
//!         -> AppendBatch command, encoded: these bytes are replicated, logged and stored
//! ```

use bytes::{Bytes, BytesMut};
use dtm_catalog::ENVELOPE_TEXT_BYTES_MAX;
use dtm_ledger::Hash;
use dtm_machine::seams::Entropy;
use dtm_proto::ingest;
use dtm_types::command::command::Op;
use dtm_types::command::{Actor, ActorKind, AppendBatch, Command};
use dtm_types::format::{EntryBody, Envelope, Form, HeaderA, HeaderB, SealedRecord, Suite};
use dtm_types::{RequestId, StreamKey};
use prost::Message;

use super::keys::BatchKeys;
use super::quota::Quota;
use super::record::{Checked, RecordChecker};
use super::tally::Tally;
use crate::contract::Contract;
use crate::security::{self, SecurityStatus};
use crate::treatment::Treatment;

/// Version of part A.
const HEADER_VERSION: u32 = 1;
/// Codec 1: canonical JSON.
const CODEC_JSON: u32 = 1;
/// A batch shorter than this is not worth compressing.
const COMPRESS_BYTES_MIN: usize = 512;

/// What cuts a batch: records that differ here never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) security_status: u32,
    pub(crate) priority: u32,
}

impl Class {
    pub(crate) fn of(record: &ingest::Record, contract: &Contract) -> Self {
        let or = |own: u32, default: u32| if own == 0 { default } else { own };
        let security_status = or(record.security_status, contract.defaults.security_status);
        let priority = or(record.priority, contract.defaults.priority);
        if security::are_allowed(security_status, priority) {
            Self { security_status, priority }
        } else {
            // It is refused, and protected as far as can be.
            Self { security_status: 3, priority: 2 }
        }
    }

    /// Nothing of what a refused record held is kept.
    fn hides(self, contract: &Contract) -> bool {
        let status = SecurityStatus::of(self.security_status);
        contract.form == Form::Masked || !status.keeps_refused()
    }
}

/// A batch that still takes records.
pub(crate) struct OpenBatch {
    class: Class,
    first: u64,
    resend_until: Option<u64>,
    count: u32,
    body: BytesMut,
    hashes: Vec<u8>,
    tags: Vec<u8>,
    fingerprints: Vec<u8>,
    has_fingerprints: bool,
    refusal_bitmap: Vec<u8>,
    refused: Vec<ingest::RefusedRecord>,
    refused_bytes: usize,
    tally: Tally,
    quarantine_bytes: u64,
    quarantine_beyond: u32,
}

/// A batch ready to be proposed; its bytes never change again.
pub(crate) struct Sealed {
    /// In the command, in its leaf and in every log line about it.
    pub(crate) request_id: RequestId,
    pub(crate) command: Bytes,
    pub(crate) last: u64,
    pub(crate) count: u32,
    pub(crate) priority: u32,
    /// Before compression.
    pub(crate) plain_bytes: u64,
    pub(crate) refused: Vec<ingest::RefusedRecord>,
    /// Of what the client is told.
    pub(crate) refused_bytes: usize,
    pub(crate) tally: Tally,
}

impl Sealed {
    /// Its first sequence.
    pub(crate) fn first(&self) -> u64 {
        self.last + 1 - u64::from(self.count)
    }
}

impl OpenBatch {
    /// `resend_until`: where records end that the stream has taken before.
    pub(crate) fn new(
        first: u64,
        class: Class,
        records_hint: usize,
        bytes_hint: usize,
        resend_until: Option<u64>,
    ) -> Self {
        Self {
            class,
            first,
            resend_until,
            count: 0,
            body: BytesMut::with_capacity(bytes_hint + records_hint * 64),
            hashes: Vec::with_capacity(records_hint * 32),
            tags: Vec::with_capacity(records_hint * 16),
            fingerprints: Vec::with_capacity(records_hint * 16),
            has_fingerprints: false,
            refusal_bitmap: Vec::new(),
            refused: Vec::new(),
            refused_bytes: 0,
            tally: Tally::default(),
            quarantine_bytes: 0,
            quarantine_beyond: 0,
        }
    }

    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// The sequence from which on records are new, where this batch began with a resend: apply takes
    /// a batch of both for one behind a gap.
    pub(crate) fn resend_until(&self) -> Option<u64> {
        self.resend_until
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Of the refusals that the client will be told.
    pub(crate) fn refused_bytes(&self) -> usize {
        self.refused_bytes
    }

    pub(crate) fn plain_bytes(&self) -> usize {
        self.body.len()
    }

    /// Adds the next record.
    pub(crate) fn push(
        &mut self,
        record: ingest::Record,
        contract: &Contract,
        keys: &BatchKeys,
        checker: &mut RecordChecker,
        quota: &Quota,
    ) {
        let sequence = self.first + u64::from(self.count);
        let salt = keys.salts.salt(sequence);
        let hides = self.class.hides(contract);
        let checked = checker.check(contract, &record, &salt, hides, &mut self.tally);
        self.hashes.extend_from_slice(&checker.treatment.record_hash(&salt, &checked.content));
        self.tags.extend_from_slice(&keys.tags.resend_tag(&checked.content));
        self.fingerprint(&record, contract, keys, checked.refused.is_some());
        let sealed = self.sealed_record(sequence, record, checked, hides, quota);
        prost::encoding::message::encode(1, &sealed, &mut self.body);
        self.count += 1;
    }

    fn fingerprint(
        &mut self,
        record: &ingest::Record,
        contract: &Contract,
        keys: &BatchKeys,
        refused: bool,
    ) {
        if contract.ids_by_sequence || record.message_id.is_empty() || refused {
            self.fingerprints.extend_from_slice(&[0; 16]);
            return;
        }
        self.has_fingerprints = true;
        let fingerprint = keys.fingerprints.fingerprint(&contract.dataset, &record.message_id);
        self.fingerprints.extend_from_slice(&fingerprint);
    }

    fn sealed_record(
        &mut self,
        sequence: u64,
        record: ingest::Record,
        checked: Checked,
        hides: bool,
        quota: &Quota,
    ) -> SealedRecord {
        let mut envelope = record.envelope.map(|envelope| *envelope).unwrap_or_default();
        envelope.message_id = record.message_id;
        envelope.event_time_us = record.event_time_us;
        envelope.warnings = checked.warnings;
        // What the node did, not what a sender says of it.
        envelope.masked_pointers = if checked.masked { vec!["*".to_owned()] } else { Vec::new() };
        let Some(refused) = checked.refused else {
            return SealedRecord {
                envelope: some(envelope),
                payload: checked.content,
                ..SealedRecord::default()
            };
        };
        let at = self.count as usize;
        self.refusal_bitmap.resize(at / 8 + 1, 0);
        self.refusal_bitmap[at / 8] |= 1 << (at % 8);
        let told = ingest::RefusedRecord {
            sequence,
            message_id: shortened(&envelope.message_id),
            violations: refused.violations.clone(),
            messages_vi: refused.messages_vi,
            messages_en: refused.messages_en,
        };
        self.refused_bytes += told.encoded_len();
        self.refused.push(told);
        let content = if hides { Bytes::new() } else { checked.content };
        let Some(kept) = quota.keep(content.len()) else {
            self.quarantine_beyond += 1;
            return SealedRecord::default();
        };
        self.quarantine_bytes += kept as u64;
        SealedRecord {
            envelope: some(envelope),
            payload: content.slice(..kept),
            violations: refused.violations,
            ..SealedRecord::default()
        }
    }

    /// Compresses, seals and encodes.
    pub(crate) fn seal(
        mut self,
        stream: &StreamKey,
        session: u64,
        contract: &Contract,
        keys: &BatchKeys,
        stamp: Stamp<'_>,
    ) -> Sealed {
        assert!(self.count > 0, "an empty batch is never sealed");
        let last = self.first + u64::from(self.count) - 1;
        let plain_bytes = self.body.len() as u64;
        let (suite, mut text) = compress(&mut self.body);
        let mut nonce = [0_u8; 24];
        stamp.entropy.fill(&mut nonce);
        if !self.refusal_bitmap.is_empty() {
            self.refusal_bitmap.resize((self.count as usize).div_ceil(8), 0);
        }
        let root = stamp.treatment.record_root(&self.hashes);
        let parts = (suite, plain_bytes, &nonce, root, stamp.time_us);
        let header_a = self.header_a(stream, session, contract, keys, parts);
        let tag = keys
            .cipher
            .seal_batch(&nonce, &header_a, &mut text)
            .expect("a batch is far below 64 GiB");
        let part_b = HeaderB {
            ciphertext_digest: Bytes::copy_from_slice(&stamp.treatment.text_digest(&text)),
            tag: Bytes::copy_from_slice(&tag),
        };
        let fingerprints =
            if self.has_fingerprints { std::mem::take(&mut self.fingerprints) } else { Vec::new() };
        let body = EntryBody {
            header_a: header_a.into(),
            header_b: part_b.encode_to_vec().into(),
            record_hashes: self.hashes.into(),
            resend_tags: self.tags.into(),
            fingerprints: fingerprints.into(),
            sealed: text.into(),
        };
        let append = AppendBatch {
            body: Some(body),
            quarantine_bytes: self.quarantine_bytes,
            quarantine_beyond: self.quarantine_beyond,
            reported: self.tally.reported,
            unmasked: self.tally.unmasked,
        };
        let request_id = RequestId(stamp.entropy.id16());
        let command = Command {
            request_id: Bytes::copy_from_slice(&request_id.0),
            actor: Some(Actor { kind: ActorKind::Source.into(), id: stamp.actor_id }),
            op: Some(Op::AppendBatch(append)),
        };
        Sealed {
            request_id,
            command: command.encode_to_vec().into(),
            last,
            count: self.count,
            priority: self.class.priority,
            plain_bytes,
            refused: self.refused,
            refused_bytes: self.refused_bytes,
            tally: self.tally,
        }
    }

    /// Part A: everything that is known before sealing.
    fn header_a(
        &mut self,
        stream: &StreamKey,
        session: u64,
        contract: &Contract,
        keys: &BatchKeys,
        (suite, plain_bytes, nonce, root, time_us): (Suite, u64, &[u8; 24], Hash, i64),
    ) -> Vec<u8> {
        HeaderA {
            version: HEADER_VERSION,
            suite: suite.into(),
            codec: CODEC_JSON,
            source: stream.source.as_str().to_owned(),
            stream: stream.stream.to_string(),
            session,
            first_sequence: self.first,
            last_sequence: self.first + u64::from(self.count) - 1,
            dataset: contract.dataset.to_string(),
            schema_version: contract.schema_version,
            form: contract.form.into(),
            mode: contract.mode.into(),
            time_us,
            category: contract.defaults.category.clone(),
            responsible_agency: contract.defaults.responsible_agency.clone(),
            security_status: self.class.security_status,
            priority: self.class.priority,
            key_id: keys.key_id.clone(),
            nonce: Bytes::copy_from_slice(nonce),
            plain_bytes,
            count: self.count,
            refusal_bitmap: std::mem::take(&mut self.refusal_bitmap).into(),
            record_root: Bytes::copy_from_slice(&root),
            ..HeaderA::default()
        }
        .encode_to_vec()
    }
}

/// What is not deterministic about a batch.
pub(crate) struct Stamp<'a> {
    pub(crate) time_us: i64,
    pub(crate) entropy: &'a dyn Entropy,
    pub(crate) treatment: &'a dyn Treatment,
    /// 16 bytes: the source's id.
    pub(crate) actor_id: Bytes,
}

/// As much of a message id as one that is allowed has: it may be what the record is refused for.
fn shortened(message_id: &str) -> String {
    message_id[..message_id.floor_char_boundary(ENVELOPE_TEXT_BYTES_MAX)].to_owned()
}

/// An envelope that says something. Its encoded length tells: comparing it with an empty one calls
/// `memcmp` for no bytes at addresses that are not mapped, which was 5 % of a node's time.
fn some(envelope: Envelope) -> Option<Envelope> {
    (envelope.encoded_len() > 0).then_some(envelope)
}

/// LZ4 where it saves at least an eighth; else the bytes as they are.
fn compress(body: &mut BytesMut) -> (Suite, Vec<u8>) {
    if body.len() >= COMPRESS_BYTES_MIN {
        let compressed = lz4_flex::block::compress(body);
        if compressed.len() < body.len() - body.len() / 8 {
            return (Suite::Xaes256gcmLz4, compressed);
        }
    }
    // Hands the buffer over: it has one owner.
    (Suite::Xaes256gcm, Vec::from(std::mem::take(body)))
}
