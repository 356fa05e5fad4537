//! What is counted before anything is built.

use bytes::Bytes;
use dtm_proto::ingest::{Frame, Record};
use dtm_types::format::{Envelope, Hop, Violation};

use super::*;

fn request(records: Vec<Record>) -> Vec<u8> {
    passed(records, 0)
}

/// Records in a frame that passed some systems.
fn passed(records: Vec<Record>, hops: usize) -> Vec<u8> {
    let hops = vec![Hop::default(); hops];
    let frame = Frame { first_sequence: 7, records, hops, ..Frame::default() };
    PublishRequest { request: Some(Asked::Frame(frame)) }.encode_to_vec()
}

/// A record that passed some systems.
fn hopping(hops: usize) -> Record {
    let envelope = Envelope { hops: vec![Hop::default(); hops], ..Envelope::default() };
    Record { envelope: Some(Box::new(envelope)), ..Record::default() }
}

fn listing(blobs: usize, pointers: usize, warnings: usize) -> Record {
    let envelope = Envelope {
        masked_pointers: vec![String::new(); pointers],
        warnings: vec![Violation::default(); warnings],
        ..Envelope::default()
    };
    Record {
        payload: Bytes::from_static(b"{}"),
        blobs: vec![Bytes::new(); blobs],
        envelope: Some(Box::new(envelope)),
        ..Record::default()
    }
}

fn counted(request: &[u8]) -> Count {
    let mut count = Count { records: 0, entries: 0, max: u64::MAX };
    let _ = count.walk(request, Level::Request);
    count
}

/// Records and entries that prost builds.
fn built(request: &[u8]) -> Option<(u64, u64)> {
    let Some(Asked::Frame(frame)) = PublishRequest::decode(request).ok()?.request else {
        return None;
    };
    let lists = |envelope: &Envelope| {
        envelope.masked_pointers.len() + envelope.warnings.len() + envelope.hops.len()
    };
    let entries = frame
        .records
        .iter()
        .map(|record| record.blobs.len() + record.envelope.as_deref().map_or(0, lists));
    let entries = entries.sum::<usize>() + frame.hops.len();
    Some((frame.records.len() as u64, entries as u64))
}

// holds: LIVE-1
#[test]
fn what_holds_more_than_the_limit_is_refused() {
    let found = |request: &[u8]| count(request, 100).err().map(|error| error.found);
    assert_eq!(found(&request(vec![Record::default(); 100])), None);
    assert_eq!(found(&request(vec![Record::default(); 101])), Some(101));
    assert_eq!(found(&request(vec![listing(20, 30, 50)])), None);
    for over in [listing(101, 0, 0), listing(0, 101, 0), listing(0, 0, 101), hopping(101)] {
        assert_eq!(found(&request(vec![over])), Some(101));
    }
    assert_eq!(found(&passed(vec![hopping(50)], 51)), Some(101));
    assert_eq!(found(&request(vec![listing(10, 10, 10); 4])), Some(101), "in all of them");
    // Frames of one request are merged, and so are the envelopes of one record.
    let half = request(vec![Record::default(); 51]);
    assert_eq!(found(&[half.clone(), half].concat()), Some(101));
}

#[test]
fn nothing_is_built_that_was_not_counted() {
    let records = vec![listing(1, 2, 3), Record::default(), listing(3, 2, 1), hopping(3)];
    let whole = passed(records, 2);
    assert_eq!(built(&whole), Some((4, 17)));
    let mut read = 0;
    for at in 0..whole.len() {
        for value in 0..=u8::MAX {
            let mut broken = whole.clone();
            broken[at] = value;
            let Some((records, entries)) = built(&broken) else { continue };
            let count = counted(&broken);
            assert!(records <= count.records && entries <= count.entries, "byte {at}: {value}");
            read += 1;
        }
    }
    assert!(read > 1_000, "{read} were read");
}

#[test]
fn the_refusal_names_limit_and_value() {
    let error = count(&request(vec![Record::default(); 101]), 100).expect_err("over it");
    let status = refusal(error);
    assert_eq!(status.code() as i32, ErrorCode::TooLarge.grpc_code());
    assert!(status.message().contains("frame_records_max"), "{}", status.message());
    assert!(status.message().contains("100"), "{}", status.message());
}
