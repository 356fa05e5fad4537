//! Commands as a session would propose them, with content that follows from stream and sequence.
//!
//! The sealed bytes are not sealed (no key is needed to judge a history), but everything that the
//! ledger's leaf covers is true of them: digest, record hashes, their root.

use bytes::Bytes;
use dtm_ledger::MerkleRoot;
use dtm_types::command::command::Op;
use dtm_types::command::{Actor, ActorKind, AppendBatch, Command, OpenSession, PutKey};
use dtm_types::format::{EntryBody, HeaderA, HeaderB, KeyPurpose, WrappedKey};
use dtm_types::{Month, StreamKey};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::checker::Digest;

/// Every command's time: what is stamped must not depend on the machine's clock.
pub const TIME_US: i64 = 1_795_000_000_000_000;
const DATASET: &str = "numbers";
const RECORD_BYTES: usize = 100;

/// One record's content.
pub fn record(stream: &StreamKey, sequence: u64) -> Vec<u8> {
    let mut text = format!("{stream} {sequence} ").into_bytes();
    text.resize(RECORD_BYTES.max(text.len()), b'.');
    text
}

fn hash(stream: &StreamKey, sequence: u64) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(record(stream, sequence)).finalize().into()
}

/// What a reader of the record must see.
pub fn digest(stream: &StreamKey, sequence: u64) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&hash(stream, sequence)[..16]);
    digest
}

fn source_actor(stream: &StreamKey) -> Actor {
    let id = Bytes::copy_from_slice(&Sha256::digest(stream.source.as_str())[..16]);
    Actor { kind: ActorKind::Source.into(), id }
}

fn id_of(text: &str) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(text)[..16])
}

/// A command in the name of the stream's source; its request id follows from `request`.
pub fn command(stream: &StreamKey, request: &str, op: Op) -> Bytes {
    let actor = Some(source_actor(stream));
    Command { request_id: id_of(request), actor, op: Some(op) }.encode_to_vec().into()
}

/// The data key that every batch of the source names.
pub fn put_key(stream: &StreamKey) -> Bytes {
    let source = stream.source.as_str();
    let key = WrappedKey {
        key_id: id_of(&format!("key of {source}")),
        purpose: KeyPurpose::Data.into(),
        source: source.to_owned(),
        month: Month::of_micros(TIME_US).0,
        cluster_key_id: vec![2; 16].into(),
        wrapped: vec![3; 73].into(),
    };
    command(stream, &format!("put key of {source}"), Op::PutKey(PutKey { key: Some(key) }))
}

/// Opens a session; `attempt` tells one opening from another.
pub fn open(stream: &StreamKey, attempt: u64) -> Bytes {
    let open = OpenSession {
        source: stream.source.as_str().to_owned(),
        stream: stream.stream.to_string(),
        dataset: DATASET.to_owned(),
        month: Month::of_micros(TIME_US).0,
        stream_names_max: 1_000,
        quarantine_records_max: 10,
        quarantine_bytes_max: 1_000,
        ids_by_sequence: true,
        ..OpenSession::default()
    };
    command(stream, &format!("open {stream} {attempt}"), Op::OpenSession(open))
}

/// The batch of `count` records from `first`, the same whenever it is built for the same session.
pub fn batch(stream: &StreamKey, session: u64, first: u64, count: u32) -> Bytes {
    let last = first + u64::from(count) - 1;
    let sealed: Vec<u8> = (first..=last).flat_map(|sequence| record(stream, sequence)).collect();
    let hashes: Vec<[u8; 32]> = (first..=last).map(|sequence| hash(stream, sequence)).collect();
    let name = format!("{stream} {session} {first} {count}");
    let header = HeaderA {
        version: 1,
        source: stream.source.as_str().to_owned(),
        stream: stream.stream.to_string(),
        session,
        first_sequence: first,
        last_sequence: last,
        dataset: DATASET.to_owned(),
        schema_version: 1,
        time_us: TIME_US,
        key_id: id_of(&format!("key of {}", stream.source)),
        nonce: Bytes::copy_from_slice(&Sha256::digest(&name)[..24]),
        plain_bytes: sealed.len() as u64,
        count,
        record_root: Bytes::copy_from_slice(&MerkleRoot::of(hashes.iter().copied()).0),
        ..HeaderA::default()
    };
    let part_b = HeaderB {
        ciphertext_digest: Bytes::copy_from_slice(&Sha256::digest(&sealed)),
        tag: vec![7; 16].into(),
    };
    let tags: Vec<u8> = hashes.iter().flat_map(|hash| hash[16..].to_vec()).collect();
    let body = EntryBody {
        header_a: header.encode_to_vec().into(),
        header_b: part_b.encode_to_vec().into(),
        record_hashes: hashes.concat().into(),
        resend_tags: tags.into(),
        fingerprints: Bytes::new(),
        sealed: sealed.into(),
    };
    let append = AppendBatch { body: Some(body), ..AppendBatch::default() };
    command(stream, &name, Op::AppendBatch(append))
}
