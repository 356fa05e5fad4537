//! Messages of `dtm.format.v1`: batches, leaves, rows.

use dtm_types::format::{
    EntryBody, Envelope, Form, HeaderA, HeaderB, Hop, Mode, ResealHeader, SealedBody, SealedRecord,
    Signature, Suite, Violation,
};

use crate::file::{Golden, digest, id};

/// Part A with every field set.
pub(crate) fn header_a() -> HeaderA {
    HeaderA {
        version: 1,
        suite: Suite::Xaes256gcmLz4.into(),
        codec: 3,
        source: "tinh-01".into(),
        stream: "ngày/1".into(),
        session: 6,
        first_sequence: 7,
        last_sequence: 8_888_888,
        dataset: "dossier_progress".into(),
        schema_version: 10,
        form: Form::Masked.into(),
        mode: Mode::Batch.into(),
        time_us: 1_795_000_000_000_013,
        category: "b.1".into(),
        security_status: 15,
        priority: 16,
        key_id: id(17),
        nonce: vec![18; 24].into(),
        plain_bytes: 1_900_000,
        count: 200,
        refusal_bitmap: vec![0b10, 0x21].into(),
        record_root: digest(22),
        responsible_agency: "H57.101.23".into(),
        sender_root: digest(40),
        sender_count: 41,
        sender_signature: vec![42; 64].into(),
        certificate_digest: digest(43),
        hops: vec![hop(44), hop(45)],
        consent_id: "CONSENT-45".into(),
        signing_time_us: 1_795_000_000_000_046,
        blobs: vec![digest(47), digest(48)],
    }
}

pub(crate) fn header_b() -> HeaderB {
    HeaderB { ciphertext_digest: digest(1), tag: id(2) }
}

fn hop(of: u8) -> Hop {
    Hop {
        system: format!("system-{of}"),
        channel: "b".into(),
        time_us: 1_795_000_000_000_000 + i64::from(of),
        digest: digest(of),
    }
}

fn violation(of: u8) -> Violation {
    Violation {
        pointer: format!("/list/{of}"),
        rule: "wrong_type".into(),
        expected: "Integer".into(),
        found: "\"mười\"".into(),
        byte_offset: Some(u64::from(of) + 500),
        found_bytes: 6,
        found_digest: id(of),
    }
}

fn envelope() -> Envelope {
    Envelope {
        message_id: "urn:uuid:1".into(),
        event_time_us: 1_795_000_000_000_002,
        sent_time_us: 1_795_000_000_000_003,
        sender_agency_code: "H57.04".into(),
        sender_system_id: "sender-5".into(),
        receiver_system_id: "receiver-6".into(),
        channel: "c".into(),
        environment: "production".into(),
        origin_system_id: "origin-9".into(),
        origin_record_id: "record-10".into(),
        is_original: true,
        reception_method: "online".into(),
        purpose_code: "purpose-13".into(),
        valid_from: "2026-01-14".into(),
        valid_to: "2026-01-15".into(),
        masked_pointers: vec!["/a".into(), "/b/16".into()],
        warnings: vec![violation(17)],
        consent_id: "CONSENT-18".into(),
        payload_digest: digest(19),
        signature: Some(Box::new(Signature {
            signature: vec![1; 64].into(),
            signing_time_us: 1_795_000_000_000_020,
            certificate_chain: vec![3; 90].into(),
        })),
        hops: vec![hop(21)],
    }
}

pub(crate) fn entry_body() -> EntryBody {
    EntryBody {
        header_a: prost::Message::encode_to_vec(&header_a()).into(),
        header_b: prost::Message::encode_to_vec(&header_b()).into(),
        record_hashes: [digest(3), digest(33)].concat().into(),
        resend_tags: [id(4), id(44)].concat().into(),
        fingerprints: [id(5), id(0)].concat().into(),
        sealed: vec![6; 100].into(),
    }
}

pub(crate) fn reseal() -> ResealHeader {
    ResealHeader {
        version: 1,
        first_leaf_hash: digest(2),
        key_id: id(3),
        nonce: vec![4; 24].into(),
        ciphertext_digest: digest(5),
        tag: id(6),
    }
}

#[test]
fn batches() {
    let mut golden = Golden::open("batch", "dtm.format.v1");
    golden.message("HeaderA", &header_a());
    golden.message("HeaderB", &header_b());
    golden.message("EntryBody", &entry_body());
    let refused = SealedRecord {
        envelope: Some(envelope()),
        payload: b"{\"n\":\"x\"}".as_slice().into(),
        violations: vec![violation(3), Violation { byte_offset: None, ..violation(4) }],
        signed_original: b"<n>x</n>".as_slice().into(),
        blobs: vec![digest(5), digest(55)],
        salt: id(6),
    };
    let accepted =
        SealedRecord { payload: b"{\"n\":1}".as_slice().into(), ..SealedRecord::default() };
    let records = vec![refused, accepted, SealedRecord::default()];
    golden.message("SealedBody", &SealedBody { records, certificate_chain: vec![2; 70].into() });
    golden.message("ResealHeader", &reseal());
    golden.close();
}
