//! Limits that change while streams are open.

use std::sync::Arc;
use std::time::Duration;

use dtm_proto::ingest::publish_response::Response;

use super::fixture::{groups, next, node, open, sends};
use crate::error::Error;
use crate::limits::Limits;
use crate::treatment::Full;

// holds: ING-1
#[tokio::test]
async fn open_streams_are_asked_to_open_again_and_ended_where_they_do_not() {
    let (groups, clock) = groups();
    let sources = node(Arc::new(groups), clock, Arc::new(Full)).await;
    let (session, mut answers) = open(&sources, "main").await;
    sends(&session, &mut answers, 1).await;
    let spread = Duration::from_millis(1);
    assert_eq!(sources.set_limits(Limits::default(), spread), 0, "the same as before");
    let lower = Limits { record_bytes_max: 2_000, ..Limits::default() };
    assert_eq!(sources.set_limits(lower.clone(), spread), 1);
    let Ok(Response::Reconnect(advice)) = next(&mut answers).await else { panic!("no advice") };
    assert_eq!((advice.reason.as_str(), advice.address.as_str()), ("limits-changed", ""));
    // It goes on under its own bounds until then.
    sends(&session, &mut answers, 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ended = next(&mut answers).await;
    assert!(matches!(ended, Err(Error::Changed { .. })), "{ended:?}");
    assert_eq!(sources.set_limits(lower, spread), 0);
}

#[tokio::test]
async fn streams_that_may_have_more_are_told_so_and_left() {
    let (groups, clock) = groups();
    let sources = node(Arc::new(groups), clock, Arc::new(Full)).await;
    let (session, mut answers) = open(&sources, "main").await;
    let higher = Limits { record_bytes_max: 9 << 20, ..Limits::default() };
    assert_eq!(sources.set_limits(higher, Duration::from_millis(1)), 1);
    let Ok(Response::Reconnect(advice)) = next(&mut answers).await else { panic!("no advice") };
    assert_eq!(advice.reason, "limits-raised");
    tokio::time::sleep(Duration::from_secs(3)).await;
    sends(&session, &mut answers, 1).await;
}
