//! Streams beside another site: what they are told of it, and acks that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dtm_machine::seams::{ManualClock, SiteCopies};
use dtm_proto::ingest::Ack;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::{ErrorCode, GroupId};
use futures::StreamExt;

use super::fixture::{groups, next, node_beside, open_at, send, sends};
use crate::error::Error;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::sources::SourcesHandle;
use crate::treatment::Full;

/// Longer than any look at the other site.
const A_WHILE: Duration = Duration::from_millis(300);
/// There is no standby.
const NONE: u64 = u64::MAX;

/// The other site, as the test says.
struct Other(AtomicU64);

impl Other {
    fn has(&self, index: u64) {
        self.0.store(index, Ordering::Release);
    }
}

impl SiteCopies for Other {
    fn has_standby(&self) -> bool {
        self.0.load(Ordering::Acquire) != NONE
    }

    fn through(&self, _: GroupId) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|index| *index != NONE)
    }
}

async fn beside(index: u64, within: Duration) -> (Arc<Other>, SourcesHandle, Arc<ManualClock>) {
    let (groups, clock) = groups();
    let other = Arc::new(Other(AtomicU64::new(index)));
    let limits = Limits { site_ack_within: within, ..Limits::default() };
    let copies: (Arc<dyn SiteCopies>, Limits) = (Arc::clone(&other) as _, limits);
    let time = Arc::clone(&clock);
    let sources = node_beside(Arc::new(groups), time as _, Arc::new(Full), copies).await;
    (other, sources, clock)
}

async fn ack(answers: &mut Outbox) -> Ack {
    match next(answers).await {
        Ok(Response::Ack(ack)) => ack,
        other => panic!("{other:?}"),
    }
}

async fn nothing_comes(answers: &mut Outbox) {
    let came = tokio::time::timeout(A_WHILE, answers.next()).await;
    assert!(came.is_err(), "{came:?}");
}

const ALL: u64 = 1 << 40;
const WITHIN: Duration = Duration::from_secs(10);

// holds: ING-1
#[tokio::test]
async fn what_the_other_site_has_is_told_with_acks_and_alone() {
    let (other, sources, _) = beside(0, WITHIN).await;
    let (session, mut answers, opened) = open_at(&sources, "main", false).await.expect("opens");
    assert!(opened.site_copies && opened.site_through == 0);
    send(&session, 1, &[r#"{"n":1}"#]).await;
    let first = ack(&mut answers).await;
    assert_eq!((first.acked_through, first.site_copies, first.site_through), (1, true, 0));
    nothing_comes(&mut answers).await;
    other.has(first.offset);
    let told = ack(&mut answers).await;
    assert_eq!((told.acked_through, told.site_through, told.only_site), (1, 1, true));
    assert_eq!((told.offset, &told.token), (first.offset, &first.token));
    nothing_comes(&mut answers).await;
    other.has(ALL);
    send(&session, 2, &[r#"{"n":1}"#]).await;
    let second = ack(&mut answers).await;
    assert_eq!((second.acked_through, second.site_through, second.only_site), (2, 2, false));

    // Opened again: the entry of the open covers what the stream held.
    other.has(0);
    let (_session, mut answers, opened) = open_at(&sources, "main", false).await.expect("opens");
    assert_eq!((opened.next_sequence, opened.site_through), (3, 0));
    other.has(ALL);
    let told = ack(&mut answers).await;
    assert_eq!((told.acked_through, told.site_through, told.only_site), (2, 2, true));
    let (_session, _, opened) = open_at(&sources, "main", false).await.expect("opens");
    assert_eq!(opened.site_through, 2, "known at once");
}

#[tokio::test]
async fn without_another_site_nothing_is_told_of_it() {
    let (_, sources, _) = beside(NONE, WITHIN).await;
    let (session, mut answers, opened) = open_at(&sources, "main", false).await.expect("opens");
    assert!(!opened.site_copies);
    sends(&session, &mut answers, 1).await;
    nothing_comes(&mut answers).await;
    let refused = open_at(&sources, "safe", true).await.err().expect("it needs a standby");
    assert_eq!((refused.code(), refused.retryable()), (ErrorCode::NotAgreed, false));
    let told = refused.told().expect("in words").to_string();
    assert!(told.contains("dtm site layout") && told.contains("--ack-level majority"), "{told}");
}

// holds: ING-1
#[tokio::test]
async fn an_ack_at_level_site_waits_for_it_and_then_nobody_knows() {
    let (other, sources, clock) = beside(ALL, WITHIN).await;
    let (session, mut answers, _) = open_at(&sources, "main", true).await.expect("opens");
    sends(&session, &mut answers, 1).await;
    other.has(0);
    for sequence in 2..=4 {
        send(&session, sequence, &[r#"{"n":1}"#]).await;
    }
    nothing_comes(&mut answers).await;
    other.has(ALL);
    let mut acked = 1;
    while acked < 4 {
        let ack = ack(&mut answers).await;
        assert_eq!(ack.site_through, ack.acked_through);
        acked = ack.acked_through;
    }
    // It does not become less when the standby is given up.
    other.has(NONE);
    send(&session, 5, &[r#"{"n":1}"#]).await;
    loop {
        match tokio::time::timeout(A_WHILE, answers.next()).await {
            Err(_) => break,
            Ok(Some(Ok(answer))) => match answer.response {
                Some(Response::Ack(ack)) => assert!(ack.acked_through == 4, "{ack:?}"),
                other => panic!("{other:?}"),
            },
            Ok(ended) => panic!("{ended:?}"),
        }
    }
    clock.advance_us(11_000_000);
    let ended = next(&mut answers).await;
    assert!(matches!(ended, Err(Error::SiteBehind { .. })), "{ended:?}");
}

// holds: ING-1
#[tokio::test]
async fn an_open_at_level_site_waits_until_what_is_stored_is_there() {
    let (other, sources, _) = beside(ALL, A_WHILE).await;
    let (session, mut answers, _) = open_at(&sources, "main", true).await.expect("opens");
    sends(&session, &mut answers, 1).await;
    other.has(0);
    // What the open tells as stored would pass for acked.
    let late = open_at(&sources, "main", true).await.err().expect("the standby is behind");
    assert_eq!((late.code(), late.retryable()), (ErrorCode::OutcomeUnknown, true));
    assert!(late.to_string().contains("site_ack_within_ms"), "{late}");
    other.has(ALL);
    let (_session, _, opened) = open_at(&sources, "main", true).await.expect("opens");
    assert_eq!((opened.next_sequence, opened.site_through), (2, 1));
}
