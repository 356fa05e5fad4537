//! A session that panics ends for its client; its neighbours go on.

use std::sync::atomic::{AtomicU64, Ordering};

use dtm_catalog::{CompiledSchema, Scratch};
use futures::StreamExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::super::fixture::{groups, next, node, open, send, sends};
use super::*;
use crate::treatment::Treatment;

const POISON: &str = r#"{"n":13}"#;

/// The bug: one payload is more than it can bear.
struct Faulty;

impl Treatment for Faulty {
    fn check(
        &self,
        schema: &CompiledSchema,
        payload: &[u8],
        scratch: &mut Scratch,
    ) -> dtm_catalog::Outcome {
        assert!(payload != POISON.as_bytes(), "planted");
        schema.check(payload, scratch)
    }
}

/// Gauges and counters by name; no labels are told apart.
#[derive(Default)]
struct Meter {
    sessions_open: Arc<AtomicU64>,
    sessions_crashed: Arc<AtomicU64>,
}

impl Recorder for Meter {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "dtm_sessions_crashed_total" => Counter::from_arc(Arc::clone(&self.sessions_crashed)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match key.name() {
            "dtm_sessions_open" => Gauge::from_arc(Arc::clone(&self.sessions_open)),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

// holds: LIVE-1
#[tokio::test]
async fn a_session_that_panics_ends_for_its_client_and_its_neighbours_go_on() {
    let meter = Meter::default();
    let (open_now, crashed) =
        (Arc::clone(&meter.sessions_open), Arc::clone(&meter.sessions_crashed));
    // One thread runs the test and all its actors.
    let _meter = metrics::set_default_local_recorder(&meter);
    let (groups, clock) = groups();
    let sources = node(Arc::new(groups), clock, Arc::new(Faulty)).await;
    let (session, mut answers) = open(&sources, "main").await;
    let (neighbour, mut to_neighbour) = open(&sources, "other").await;
    sends(&session, &mut answers, 1).await;
    sends(&neighbour, &mut to_neighbour, 1).await;

    send(&session, 2, &[r#"{"n":2}"#, POISON]).await;
    let error = next(&mut answers).await.expect_err("it ends");
    assert_eq!(error.code(), dtm_types::ErrorCode::Unavailable);
    assert!(error.retryable(), "the client connects again");
    assert!(answers.next().await.is_none(), "nothing follows");
    let later = ingest::Frame {
        first_sequence: 4,
        records: vec![ingest::Record::default()],
        ..ingest::Frame::default()
    };
    assert!(matches!(session.frame(later).await, Err(Error::Gone)), "its reader ends too");

    sends(&neighbour, &mut to_neighbour, 2).await;
    assert_eq!(sources.sessions(), 1);
    assert_eq!(sources.in_flight_bytes(), 0, "its room is given back");
    assert_eq!(f64::from_bits(open_now.load(Ordering::Acquire)), 1.0);
    assert_eq!(crashed.load(Ordering::Acquire), 1);

    // The client comes back and goes on where it was acked: nothing of its frame was stored.
    let (again, mut answers) = open(&sources, "main").await;
    sends(&again, &mut answers, 2).await;
}
