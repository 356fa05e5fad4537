//! Bodies whose clients take nothing.

use std::time::Duration;

use dtm_identity::{Caller, Role};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tonic::{Code, Status};

use super::*;

const PAGE: usize = 2 * PAGE_BYTES as usize;

fn caller(name: &str) -> Caller {
    let role = Role::Auditor;
    Caller::Operator { name: name.to_owned(), role, certificate_digest: [0; 32] }
}

/// A read that has pages without end, each when there is room for it; with how many were read.
fn endless(ahead: &Ahead, name: &str) -> (Body, Arc<AtomicU64>) {
    let reading = ahead.enter(&caller(name));
    let (work, read) = (Arc::clone(&reading), Arc::<AtomicU64>::default());
    let count = Arc::clone(&read);
    let pages = futures::stream::unfold(work, move |work| {
        let count = Arc::clone(&count);
        async move {
            work.room().await;
            count.fetch_add(1, Ordering::Relaxed);
            Some((Ok::<_, Status>(Frame::data(Bytes::from(vec![7; PAGE]))), work))
        }
    });
    let body = Body::new(http_body_util::StreamBody::new(Box::pin(pages)));
    let mut response = http::Response::new(body);
    response.extensions_mut().insert(reading);
    (metered(response).into_body(), read)
}

async fn piece(body: &mut Body) -> usize {
    let frame = body.frame().await.expect("goes on").expect("no error");
    frame.into_data().expect("data").len()
}

// holds: LIVE-1
#[tokio::test]
async fn a_page_is_read_when_the_one_before_is_taken() {
    let ahead = Ahead::new(64 << 20);
    let (mut body, read) = endless(&ahead, "a");
    assert_eq!(piece(&mut body).await, 32 << 10);
    assert_eq!(*ahead.node.held.lock(), (PAGE - (32 << 10)) as u64);
    let mut taken = 32 << 10;
    while taken < PAGE {
        taken += piece(&mut body).await;
    }
    assert_eq!((*ahead.node.held.lock(), read.load(Ordering::Relaxed)), (0, 1));
    piece(&mut body).await;
    assert_eq!(read.load(Ordering::Relaxed), 2);
    drop(body);
    assert_eq!(*ahead.node.held.lock(), 0);
}

// holds: LIVE-1
#[tokio::test]
async fn readers_that_take_nothing_end_where_others_wait_for_their_room() {
    let patience = Duration::from_millis(1_500);
    let ahead = Ahead::with_patience(4 * PAGE as u64, patience);
    let mut stalled = Vec::new();
    for n in 0..4 {
        let (mut body, read) = endless(&ahead, &format!("stalled-{n}"));
        piece(&mut body).await;
        stalled.push((body, read));
    }
    let (mut other, _) = endless(&ahead, "other");
    let early = tokio::time::timeout(patience / 2, piece(&mut other)).await;
    assert!(early.is_err(), "they are given time");
    let late = tokio::time::timeout(Duration::from_secs(30), piece(&mut other)).await;
    assert!(late.is_ok(), "it waits for ever");
    // The one that took nothing for longest is told so; the others go on.
    let (body, _) = &mut stalled[0];
    let end = body.frame().await.expect("a status").expect("no error");
    let status = Status::from_header_map(&end.into_trailers().expect("trailers")).expect("status");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(body.frame().await.is_none());
    for (body, _) in &mut stalled[1..] {
        piece(body).await;
    }
}

// A piece on its way must not keep its page; nor is work kept that nobody takes anything of.
#[tokio::test]
async fn what_is_ended_is_dropped() {
    let ahead = Ahead::new(64 << 20);
    let (mut body, read) = endless(&ahead, "a");
    piece(&mut body).await;
    let reading = ahead.node.readers.lock().values().next().and_then(Weak::upgrade).expect("one");
    assert!(reading.end());
    assert_eq!((*ahead.node.held.lock(), Arc::strong_count(&read)), (0, 1), "the work is gone");
    assert!(!reading.end(), "once");
}
