//! A batch is built, sealed, opened; what was changed is never opened.

use std::sync::Arc;

use bytes::Bytes;
use dtm_catalog::{CompiledSchema, Definition};
use dtm_machine::seams::SeededEntropy;
use dtm_proto::ingest;
use dtm_seal::{DataKey, Secret, SourceKey};
use dtm_types::command::Command;
use dtm_types::command::command::Op;
use dtm_types::format::{EntryBody, Envelope, Form, HeaderA, Mode, Violation};
use dtm_types::{Month, StreamKey};
use prost::Message;

use super::{BatchKeys, Class, OpenBatch, Quota, RecordChecker, Stamp, open_batch};
use crate::contract::{Contract, Defaults};
use crate::treatment::Full;

const DEFINITION: &str = r#"
id = "numbers"
version = 1
owner = "test"
category = "B3"
title = { vi = "Số", en = "Numbers" }
key = ["n"]

[[field]]
name = "n"
type = "Integer"
label = { vi = "Số", en = "Number" }

[[field]]
name = "name"
type = "Text"
label = { vi = "Tên", en = "Name" }
optional = true
personal = true
mask = "hide"
"#;

fn contract(form: Form) -> Contract {
    let definition = Definition::parse(DEFINITION, "test").expect("valid definition");
    Contract {
        dataset: "numbers".into(),
        schema_version: 1,
        schema: Arc::new(CompiledSchema::compile(&definition).expect("compiles")),
        mask: None,
        form,
        mode: Mode::Realtime,
        ids_by_sequence: false,
        defaults: Defaults {
            security_status: 2,
            priority: 2,
            category: "B3".into(),
            ..Defaults::default()
        },
        acks_at_site: false,
    }
}

fn data_key() -> DataKey {
    DataKey::from_bytes(&mut [1; 32])
}

fn keys(stream: &StreamKey) -> BatchKeys {
    let source = SourceKey::from_bytes(&mut [2; 32]);
    BatchKeys::new(
        stream,
        vec![3; 16].into(),
        Month(1),
        (&data_key(), Box::new(data_key().cipher())),
        &source,
    )
}

fn stream() -> StreamKey {
    StreamKey::parse("tinh-01", "main").expect("valid")
}

fn record(payload: &str, id: &str) -> ingest::Record {
    ingest::Record {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        message_id: id.into(),
        ..Default::default()
    }
}

fn build(
    form: Form,
    records: &[ingest::Record],
    quota: &Quota,
    seed: u64,
) -> (EntryBody, Vec<ingest::RefusedRecord>) {
    let (contract, stream) = (contract(form), stream());
    let keys = keys(&stream);
    let class = records
        .first()
        .map_or(Class { security_status: 2, priority: 2 }, |record| Class::of(record, &contract));
    let mut open = OpenBatch::new(10, class, records.len(), 100, None);
    for record in records {
        open.push(record.clone(), &contract, &keys, &mut RecordChecker::new(Arc::new(Full)), quota);
    }
    let entropy = SeededEntropy::new(seed);
    let stamp =
        Stamp { time_us: 5, entropy: &entropy, treatment: &Full, actor_id: vec![9; 16].into() };
    let sealed = open.seal(&stream, 7, &contract, &keys, stamp);
    let command = Command::decode(sealed.command).expect("decodes");
    let Some(Op::AppendBatch(append)) = command.op else { panic!("a batch") };
    (append.body.expect("body"), sealed.refused)
}

fn quota() -> Quota {
    let quota = Quota::new(100);
    quota.set(10, 1_000);
    quota
}

#[test]
fn what_was_sealed_is_opened_as_it_was() {
    let records =
        [record(r#"{"n":1}"#, "a"), record(r#"{ "n": 2 }"#, "b"), record(r#"{"n":"x"}"#, "c")];
    let (body, refused) = build(Form::Raw, &records, &quota(), 1);
    let opened = open_batch(&body, &data_key().cipher()).expect("opens");
    assert_eq!(
        (opened.header.first_sequence, opened.header.last_sequence, opened.header.count),
        (10, 12, 3)
    );
    assert_eq!(opened.records[0].payload.as_ref(), br#"{"n":1}"#);
    assert_eq!(opened.records[1].payload.as_ref(), br#"{"n":2}"#, "canonical form");
    assert_eq!(opened.header.refusal_bitmap.as_ref(), [0b100]);
    assert_eq!(opened.records[2].payload.as_ref(), br#"{"n":"x"}"#, "kept as it came");
    assert_eq!(opened.records[2].violations[0].pointer, "/n");
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (refused[0].sequence, refused[0].messages_vi.len(), refused[0].messages_en.len()),
        (12, 1, 1)
    );
}

// holds: SEC-1
#[test]
fn any_changed_byte_is_refused() {
    let (body, _) = build(Form::Raw, &[record(r#"{"n":1}"#, "a")], &quota(), 1);
    for at in 0..body.sealed.len() {
        let mut damaged = body.clone();
        let mut bytes = damaged.sealed.to_vec();
        bytes[at] ^= 1;
        damaged.sealed = bytes.into();
        assert!(open_batch(&damaged, &data_key().cipher()).is_err(), "byte {at}");
    }
    let mut other_header = body.clone();
    let mut header = HeaderA::decode(body.header_a.clone()).expect("decodes");
    header.session += 1;
    other_header.header_a = header.encode_to_vec().into();
    assert!(open_batch(&other_header, &data_key().cipher()).is_err());
}

#[test]
fn a_resend_has_the_same_tags_and_hashes_under_another_nonce() {
    let records = [record(r#"{"n":1}"#, "a"), record(r#"{"n":2}"#, "")];
    let (one, _) = build(Form::Raw, &records, &quota(), 1);
    let (two, _) = build(Form::Raw, &records, &quota(), 2);
    assert_eq!(
        (&one.record_hashes, &one.resend_tags, &one.fingerprints),
        (&two.record_hashes, &two.resend_tags, &two.fingerprints)
    );
    assert_ne!(one.sealed, two.sealed);
    assert_eq!(one.fingerprints[16..], [0; 16], "no message id, no fingerprint");
}

// holds: SEC-1
#[test]
fn under_masked_a_refusal_keeps_no_content() {
    let secret = "Nguyen Van Bi Mat";
    let payload = format!(r#"{{"n":"{secret}"}}"#);
    let (body, refused) = build(Form::Masked, &[record(&payload, "a")], &quota(), 1);
    let opened = open_batch(&body, &data_key().cipher()).expect("opens");
    assert!(opened.records[0].payload.is_empty());
    let violation = &opened.records[0].violations[0];
    assert!(
        violation.found.is_empty()
            && violation.found_bytes > 0
            && !violation.found_digest.is_empty()
    );
    assert!(!format!("{refused:?}{opened:?}", opened = opened.records).contains(secret));
}

#[test]
fn under_masked_a_refusal_keeps_the_digest_of_what_was_found() {
    let digest = |value: &str| {
        let payload = format!(r#"{{"n":"{value}"}}"#);
        let (body, _) = build(Form::Masked, &[record(&payload, "a")], &quota(), 1);
        let opened = open_batch(&body, &data_key().cipher()).expect("opens");
        opened.records[0].violations[0].found_digest.clone()
    };
    assert_eq!(digest("one"), digest("one"));
    assert_ne!(digest("one"), digest("two"));
}

// holds: SEC-1
#[test]
fn of_a_restricted_record_a_refusal_keeps_no_content() {
    let secret = "Nguyen Van Bi Mat";
    for (security_status, kept) in [(1, true), (2, true), (3, false), (4, false)] {
        let payload = format!(r#"{{"n":"{secret}"}}"#);
        let record = ingest::Record { security_status, ..record(&payload, "a") };
        let (body, refused) = build(Form::Raw, &[record], &quota(), 1);
        let opened = open_batch(&body, &data_key().cipher()).expect("opens");
        let said = format!("{refused:?}{:?}", opened.records);
        let holds = said.contains(secret) || !opened.records[0].payload.is_empty();
        assert_eq!(holds, kept, "{security_status}: {said}");
    }
}

#[test]
fn labels_that_do_not_exist_are_refused() {
    for (security_status, priority, pointer) in [(4, 0, "/security_status"), (0, 9, "/priority")] {
        let record = ingest::Record { security_status, priority, ..record(r#"{"n":1}"#, "a") };
        let (body, refused) = build(Form::Raw, &[record], &quota(), 1);
        let said = &refused[0].violations[0];
        assert_eq!((said.pointer.as_str(), said.rule.as_str()), (pointer, "label"));
        let header = HeaderA::decode(body.header_a).expect("decodes");
        assert_eq!((header.security_status, header.priority), (3, 2), "protected most");
    }
}

#[test]
fn a_broken_envelope_is_refused_alone_and_told_shortly() {
    let long = "ầ".repeat(10_000);
    let envelope = Some(Box::new(Envelope { channel: "d".into(), ..Envelope::default() }));
    let records = [
        record(r#"{"n":1}"#, "a"),
        record(r#"{"n":2}"#, &long),
        ingest::Record { envelope, ..record(r#"{"n":3}"#, "c") },
    ];
    let (body, refused) = build(Form::Raw, &records, &quota(), 1);
    let opened = open_batch(&body, &data_key().cipher()).expect("opens");
    assert_eq!(opened.header.refusal_bitmap.as_ref(), [0b110], "its neighbour is kept");
    assert_eq!(refused[0].violations[0].pointer, "/message_id");
    assert!(refused[0].message_id.len() <= 256, "{} bytes", refused[0].message_id.len());
    let said = &refused[1].violations[0];
    assert_eq!((said.pointer.as_str(), said.rule.as_str()), ("/envelope/channel", "label"));
}

#[test]
fn what_the_node_masked_is_not_for_the_sender_to_say() {
    let spoofed = Envelope {
        masked_pointers: vec!["/n".into()],
        warnings: vec![Violation::default()],
        ..Envelope::default()
    };
    let sent = ingest::Record { envelope: Some(Box::new(spoofed)), ..record(r#"{"n":1}"#, "a") };
    let (body, _) = build(Form::Raw, &[sent], &quota(), 1);
    let opened = open_batch(&body, &data_key().cipher()).expect("opens");
    let envelope = opened.records[0].envelope.as_ref().expect("an id stands in it");
    assert!(envelope.masked_pointers.is_empty() && envelope.warnings.is_empty());
}

#[test]
fn beyond_the_quota_refusals_are_only_counted() {
    let quota = quota();
    quota.set(1, 1_000);
    let bad: Vec<_> = (0..3).map(|n| record(r#"{"n":"x"}"#, &n.to_string())).collect();
    let (body, refused) = build(Form::Raw, &bad, &quota, 1);
    let opened = open_batch(&body, &data_key().cipher()).expect("opens");
    assert_eq!(refused.len(), 3, "the client hears of each");
    assert_eq!(opened.records.iter().filter(|r| !r.violations.is_empty()).count(), 1);
    assert_eq!(quota.records(), 0);
}

// holds: ING-1
#[test]
fn an_ack_is_proven_by_its_own_token_only() {
    let (keys, stream) = (keys(&stream()), stream());
    let token = keys.ack_token(&stream, 1, 10);
    assert!(keys.proves(&stream, 1, 10, &token));
    let other = StreamKey::parse("tinh-01", "other").expect("valid");
    assert!(!keys.proves(&stream, 1, 11, &token), "another sequence");
    assert!(!keys.proves(&stream, 2, 10, &token), "another life of the cluster");
    assert!(!keys.proves(&other, 1, 10, &token), "another stream");
    assert!(!keys.proves(&stream, 1, 10, &token[..15]) && !keys.proves(&stream, 1, 10, &[]));
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/v1");

/// What the file of this name holds; written from `made` where that is asked for, after which the
/// test calls [`nothing_was_written`].
fn golden(name: &str, made: &[u8]) -> Bytes {
    let path = std::path::Path::new(GOLDEN).join(name);
    if std::env::var_os("DTM_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, made).expect("written");
    }
    std::fs::read(path).expect("the golden file is committed").into()
}

/// What was only written proves nothing.
fn nothing_was_written() {
    let asked = std::env::var_os("DTM_WRITE_GOLDEN");
    assert!(asked.is_none(), "written: run again without DTM_WRITE_GOLDEN");
}

/// Payloads as they came, the second one to be refused.
fn sealed_records(names: usize) -> Vec<ingest::Record> {
    let named = format!(r#"{{"n":1,"name":"{}"}}"#, "Nguyễn ".repeat(names));
    let envelope = Envelope { channel: "b".into(), valid_to: "2026".into(), ..Envelope::default() };
    let third = ingest::Record {
        event_time_us: 3,
        envelope: Some(Box::new(envelope)),
        ..record(r#"{ "n": -0 }"#, "c")
    };
    vec![record(&named, "a"), record(r#"{"n":"x"}"#, "b"), third]
}

/// Opens what is kept and holds it against what was sent.
fn opens_as(kept: &Bytes, names: usize) -> HeaderA {
    let body = EntryBody::decode(kept.clone()).expect("an entry body");
    let opened = open_batch(&body, &data_key().cipher()).expect("opens");
    let sent = sealed_records(names);
    let payloads = [sent[0].payload.as_ref(), b"{\"n\":\"x\"}", b"{\"n\":0}"];
    for (sealed, payload) in opened.records.iter().zip(payloads) {
        assert_eq!(sealed.payload.as_ref(), payload);
    }
    let ids = opened.records.iter().map(|r| r.envelope.as_ref().map(|e| e.message_id.as_str()));
    assert!(ids.eq([Some("a"), Some("b"), Some("c")]));
    assert_eq!(opened.records[1].violations[0].pointer, "/n");
    assert_eq!(opened.records[2].envelope.as_ref().expect("an envelope").valid_to, "2026");
    opened.header
}

#[test]
fn a_batch_of_version_1_is_sealed_the_same_and_opens_for_ever() {
    let (body, _) = build(Form::Raw, &sealed_records(1), &quota(), 1);
    let made = body.encode_to_vec();
    let kept = golden("sealed-batch.bin", &made);
    assert!(made == kept, "the format changed: that needs a new version");
    assert_eq!(opens_as(&kept, 1).suite, 1);
    // What LZ4 makes of it may change with the library; that it opens may not.
    let (body, _) = build(Form::Raw, &sealed_records(200), &quota(), 2);
    let kept = golden("sealed-batch-lz4.bin", &body.encode_to_vec());
    let header = opens_as(&kept, 200);
    assert_eq!(header.suite, 2);
    let plain = body.encoded_len() as u64;
    assert!(header.plain_bytes > plain, "{plain}");
    nothing_was_written();
}

#[test]
fn a_token_is_made_of_stream_incarnation_and_sequence() {
    let token = keys(&stream()).ack_token(&stream(), 3, 258);
    let kept = std::fs::read_to_string(format!("{GOLDEN}/formulas.txt")).expect("it is committed");
    let kept = kept.lines().find_map(|line| line.strip_prefix("ack_token "));
    let made: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(kept, Some(made.as_str()));
}
