//! Requests that come in pieces, or do not come.

use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::*;

const WITHIN: Duration = Duration::from_millis(800);
const PATIENCE: Duration = Duration::from_millis(50);

/// Sends pieces of a body.
type Wire = mpsc::Sender<&'static [u8]>;

fn call(arrivals: &Arrivals, sender: &str) -> (Wire, Body, Arc<Inlet>) {
    call_of(&connection(), arrivals, sender)
}

/// One that has just been made.
fn connection() -> PeerInfo {
    PeerInfo::new(([127, 0, 0, 1], 1).into(), None)
}

fn call_of(from: &PeerInfo, arrivals: &Arrivals, sender: &str) -> (Wire, Body, Arc<Inlet>) {
    let (wire, mut pieces) = mpsc::channel::<&'static [u8]>(16);
    let pieces = futures::stream::poll_fn(move |context| pieces.poll_recv(context));
    let frames = futures::StreamExt::map(pieces, |piece| {
        Ok::<_, Status>(Frame::data(bytes::Bytes::from_static(piece)))
    });
    let body = Body::new(http_body_util::StreamBody::new(frames));
    let mut request = http::Request::new(body);
    request.extensions_mut().insert(from.clone());
    let (request, inlet) = arrivals.wait_for_sender(request, 1 << 20);
    inlet.enter(arrivals.share(sender.to_owned()));
    (wire, request.into_body(), inlet)
}

fn room_of(kib: u64) -> Arrivals {
    // A sender has half.
    let within = u64::try_from(WITHIN.as_millis()).expect("short");
    Arrivals::new(2 * kib * 1_024, within)
}

async fn data(body: &mut Body) -> Vec<u8> {
    let frame = body.frame().await.expect("goes on").expect("no error");
    frame.into_data().expect("data").to_vec()
}

async fn waits(body: &mut Body) -> bool {
    tokio::time::timeout(PATIENCE, body.frame()).await.is_err()
}

#[tokio::test]
async fn messages_are_passed_on_as_they_came() {
    let arrivals = room_of(4);
    let (wire, mut body, inlet) = call(&arrivals, "a");
    let pieces: [&[u8]; 6] = [
        &[0, 0],
        &[0, 0, 3, 1],
        &[2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9],
        &[],
        &[1, 0, 0, 0, 2, 7, 8],
        &[0],
    ];
    for piece in pieces {
        wire.try_send(piece).expect("open");
    }
    drop(wire);
    let mut came = Vec::new();
    while let Some(frame) = body.frame().await {
        came.extend(frame.expect("no error").into_data().expect("data"));
    }
    assert_eq!(came, pieces.concat());
    assert_eq!(arrivals.bytes(), 1_024, "of the last one");
    drop(inlet.taken());
    assert_eq!(arrivals.bytes(), 0);
}

// holds: LIVE-1
#[tokio::test]
async fn a_message_is_read_when_it_has_room() {
    let arrivals = room_of(4);
    let (wire, mut body, inlet) = call(&arrivals, "a");
    // 3,000 bytes, of which 2 come.
    wire.try_send(&[0, 0, 0, 0x0b, 0xb8, 1, 2]).expect("open");
    assert_eq!(data(&mut body).await.len(), 7);
    let (other_wire, mut other, other_inlet) = call(&arrivals, "a");
    other_wire.try_send(&[0, 0, 0, 0x0b, 0xb8, 1]).expect("open");
    assert!(waits(&mut other).await, "the share is taken by what may still come");
    assert_eq!(arrivals.bytes(), 3 << 10);
    // Nobody else waits for it.
    let (neighbour_wire, mut neighbour, _inlet) = call(&arrivals, "b");
    neighbour_wire.try_send(&[0, 0, 0, 0x0b, 0xb8]).expect("open");
    assert_eq!(data(&mut neighbour).await.len(), 5);
    // What is left comes, and is taken in.
    wire.try_send(&[3; 2_998]).expect("open");
    assert_eq!(data(&mut body).await.len(), 2_998);
    assert!(waits(&mut other).await, "it has no room elsewhere yet");
    drop(inlet.taken());
    assert_eq!(data(&mut other).await, [0, 0, 0, 0x0b, 0xb8]);
    assert_eq!(data(&mut other).await, [1]);
    // Who leaves gives back.
    drop((other, other_inlet));
    let (last_wire, mut last, _inlet) = call(&arrivals, "a");
    last_wire.try_send(&[0, 0, 0, 0x0b, 0xb8]).expect("open");
    assert_eq!(data(&mut last).await.len(), 5);
}

// holds: LIVE-1
#[tokio::test]
async fn a_message_that_is_not_completed_ends_its_call() {
    let arrivals = room_of(4);
    let (wire, mut body, _inlet) = call(&arrivals, "a");
    wire.try_send(&[0, 0, 0, 0, 3, 1]).expect("open");
    assert_eq!(data(&mut body).await.len(), 6);
    let half = tokio::time::timeout(WITHIN / 2, body.frame()).await;
    assert!(half.is_err(), "it has time");
    // Some of it is not all of it.
    wire.try_send(&[2]).expect("open");
    assert_eq!(data(&mut body).await, [2]);
    let late = tokio::time::timeout(WITHIN * 9, body.frame()).await.expect("in time");
    let status = late.expect("a status").expect_err("too late");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("request_within_ms = 800"), "{status}");
    // Between two messages there is all the time in the world.
    let (wire, mut body, _inlet) = call(&arrivals, "b");
    wire.try_send(&[0, 0, 0, 0, 1, 1, 0]).expect("open");
    assert_eq!(data(&mut body).await.len(), 6);
    assert!(tokio::time::timeout(WITHIN * 2, body.frame()).await.is_err());
}

// holds: LIVE-1
#[tokio::test]
async fn a_connection_whose_requests_wait_keeps_a_part_of_its_window() {
    let arrivals = room_of(4);
    let connection = connection();
    let first = call_of(&connection, &arrivals, "a");
    first.0.try_send(&[0, 0, 0, 0x0b, 0xb8]).expect("open");
    let (_, mut reading, inlet) = first;
    assert_eq!(data(&mut reading).await.len(), 5);
    // As many as the connection has places, and one more.
    let places = connection.unread.available_permits();
    let mut waiting = Vec::new();
    for _ in 0..places {
        let (wire, mut body, inlet) = call_of(&connection, &arrivals, "a");
        wire.try_send(&[0, 0, 0, 0x0b, 0xb8]).expect("open");
        assert!(waits(&mut body).await);
        waiting.push((wire, body, inlet));
    }
    let (wire, mut body, _inlet) = call_of(&connection, &arrivals, "a");
    wire.try_send(&[0, 0, 0, 0x0b, 0xb8]).expect("open");
    let crowded = tokio::time::timeout(WITHIN, body.frame()).await.expect("at once");
    let status = crowded.expect("a status").expect_err("no place");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("arriving_bytes_max = 8192"), "{status}");
    // Another connection of the sender has places of its own.
    let (wire, mut elsewhere, _inlet) = call(&arrivals, "a");
    wire.try_send(&[0, 0, 0, 0x0b, 0xb8]).expect("open");
    assert!(waits(&mut elsewhere).await);
    // Who gets room gives its place back.
    drop((reading, inlet));
    assert_eq!(data(&mut waiting[0].1).await.len(), 5);
    assert_eq!(connection.unread.available_permits(), 1);
    drop(waiting);
    assert_eq!(connection.unread.available_permits(), places);
}
