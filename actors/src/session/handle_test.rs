//! What a frame costs: the stream counts as its client does, the node what it holds.

use bytes::Bytes;
use dtm_proto::ingest::publish_request::Request;
use dtm_types::command::SourceLimits;
use dtm_types::format::Hop;
use ractor::Actor;
use tokio::sync::mpsc;

use super::tests::Mailbox;
use super::*;
use crate::admission::{Share, ShareOf};
use crate::limits::Limits;

const MIB: usize = 1 << 20;

/// The share of a source that may take whatever its node has.
fn ample() -> Share {
    Share::new(ShareOf { bytes: u64::MAX, refused_per_second_max: 1_000 })
}

/// A session whose messages nobody works on, the node's budget, what the stream has in flight.
async fn session(
    budget: usize,
    limits: &Limits,
) -> (SessionHandle, Admission, InFlight, mpsc::Receiver<SessionMessage>) {
    let (sender, mailbox) = mpsc::channel(8);
    let (actor, _) = Actor::spawn(None, Mailbox(sender), ()).await.expect("starts");
    let stream = StreamKey::parse("tinh-01", "main").expect("allowed names");
    let (admission, in_flight) = (Admission::new(budget), InFlight::within(ample()));
    let handle = {
        let bounds = Bounds::new(limits, &SourceLimits::default());
        SessionHandle::new(actor, stream, admission.clone(), in_flight.clone(), bounds)
    };
    (handle, admission, in_flight, mailbox)
}

fn record(payload: usize, envelope: usize) -> ingest::Record {
    let envelope = (envelope > 0)
        .then(|| Box::new(Envelope { purpose_code: "p".repeat(envelope), ..Envelope::default() }));
    ingest::Record { payload: vec![b' '; payload].into(), envelope, ..Default::default() }
}

fn frame(records: Vec<ingest::Record>) -> ingest::Frame {
    ingest::Frame { first_sequence: 1, records, ..ingest::Frame::default() }
}

/// What of a frame is not supported yet.
async fn reserved_of(session: &SessionHandle, frame: ingest::Frame) -> Option<&'static str> {
    match session.frame(frame).await {
        Err(error @ Error::NotSupported { what, .. }) => {
            assert_eq!(error.code(), ErrorCode::NotSupported);
            Some(what)
        }
        Ok(()) => None,
        other => panic!("{other:?}"),
    }
}

/// Name, value and what was found of the limit that a frame is over.
async fn limit_of(session: &SessionHandle, frame: ingest::Frame) -> (&'static str, u64, u64) {
    match session.frame(frame).await {
        Err(Error::Limit { code: ErrorCode::TooLarge, bound, found, .. }) => {
            (bound.name, bound.value, found)
        }
        other => panic!("{other:?}"),
    }
}

// holds: LIVE-1
#[tokio::test]
async fn envelopes_take_room_of_the_node() {
    let limits = Limits { stream_in_flight_bytes_max: 64 * MIB, ..Limits::default() };
    let (session, _, _, mut mailbox) = session(MIB, &limits).await;
    session.frame(frame(vec![record(2, MIB)])).await.expect("there is room");
    let held = mailbox.recv().await.expect("the first");
    let second = session.frame(frame(vec![record(2, MIB)]));
    let mut second = std::pin::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(50), second.as_mut()).await;
    assert!(early.is_err(), "the node's budget is used up");
    drop(held);
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, second).await.expect("its turn").expect("taken");
}

// holds: LIVE-1
#[tokio::test]
async fn the_stream_counts_as_its_client_and_the_node_what_it_holds() {
    let (session, admission, in_flight, mut mailbox) = session(256 * MIB, &Limits::default()).await;
    let sent = frame(vec![record(0, 0); 60_000]);
    let request = ingest::PublishRequest { request: Some(Request::Frame(sent.clone())) };
    session.frame(sent).await.expect("within every limit");
    let held = mailbox.recv().await;
    assert_eq!(in_flight.bytes(), request.encoded_len() as u64);
    let memory = 60_000 * size_of::<ingest::Record>();
    assert!(admission.in_flight_bytes() >= memory as u64, "{}", admission.in_flight_bytes());
    drop(held);
    let lists = Envelope { warnings: vec![Violation::default(); 1_000], ..Envelope::default() };
    let listed = ingest::Record { envelope: Some(Box::new(lists)), ..record(2, 0) };
    session.frame(frame(vec![listed])).await.expect("within every limit");
    let _held = mailbox.recv().await;
    assert!(admission.in_flight_bytes() >= 1_000 * size_of::<Violation>() as u64);
}

#[tokio::test]
async fn what_is_reserved_is_refused_and_never_dropped() {
    let (session, _, in_flight, _mailbox) = session(MIB, &Limits::default()).await;
    let set = Bytes::from_static(b"set");
    let of_frame = |change: &dyn Fn(&mut ingest::Frame)| {
        let mut frame = frame(vec![record(2, 0); 3]);
        change(&mut frame);
        frame
    };
    for signed in [
        of_frame(&|f| f.sender_root = set.clone()),
        of_frame(&|f| f.sender_signature = set.clone()),
        of_frame(&|f| f.certificate_chain = set.clone()),
        of_frame(&|f| f.signing_time_us = -1),
    ] {
        assert_eq!(reserved_of(&session, signed).await, Some("a signed frame"));
    }
    let hops = of_frame(&|f| f.hops = vec![Hop::default()]);
    assert_eq!(reserved_of(&session, hops).await, Some("a list of hops"));
    let consent = of_frame(&|f| f.consent_id = "C-1".into());
    assert_eq!(reserved_of(&session, consent).await, Some("a consent"));

    // In the last record of several.
    let of_record = |change: &dyn Fn(&mut ingest::Record, &mut Envelope)| {
        let (mut last, mut envelope) = (record(2, 0), Envelope::default());
        change(&mut last, &mut envelope);
        frame(vec![record(2, 0), ingest::Record { envelope: Some(Box::new(envelope)), ..last }])
    };
    let cases = [
        (of_record(&|r, _| r.blobs = vec![set.clone()]), "a blob"),
        (of_record(&|r, _| r.salt = set.clone()), "a salt of the sender"),
        (of_record(&|_, e| e.signature = Some(Box::default())), "a signed record"),
        (of_record(&|_, e| e.payload_digest = set.clone()), "a payload digest"),
        (of_record(&|_, e| e.hops = vec![Hop::default()]), "a list of hops"),
        (of_record(&|_, e| e.consent_id = "C-1".into()), "a consent"),
    ];
    for (frame, what) in cases {
        assert_eq!(reserved_of(&session, frame).await, Some(what));
    }
    assert_eq!(in_flight.bytes(), 0, "nothing of it was taken");
    assert_eq!(reserved_of(&session, of_record(&|_, _| {})).await, None);
}

#[tokio::test]
async fn a_limit_is_named_with_its_value_and_what_was_found() {
    let (session, _, _, _mailbox) = session(256 * MIB, &Limits::default()).await;
    let max = Limits::default();
    let (name, value, found) = limit_of(&session, frame(vec![record(8 * MIB - 10, 100)])).await;
    assert_eq!((name, value), ("record_bytes_max", max.record_bytes_max as u64));
    assert!(found > value);
    let many = frame(vec![record(0, 0); max.frame_records_max + 1]);
    let wanted = max.frame_records_max as u64;
    assert_eq!(limit_of(&session, many).await, ("frame_records_max", wanted, wanted + 1));
    let large = frame(vec![record(3 * MIB, 0); 3]);
    assert_eq!(limit_of(&session, large).await.0, "frame_bytes_max");
    // What a client may send at the utmost: its records are as large as a frame may be.
    let (mut last, rest) = (record(0, 0), frame(vec![record(3 * MIB, 0); 2]));
    let room = max.frame_bytes_max - (rest.encoded_len() - 2);
    last.payload = Bytes::from(vec![b' '; room - 10]);
    let full = frame(rest.records.into_iter().chain([last]).collect());
    assert_eq!(full.encoded_len() - 2, max.frame_bytes_max);
    session.frame(full).await.expect("not over it");
}
