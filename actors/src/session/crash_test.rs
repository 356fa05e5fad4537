//! A session that panics ends for its client; its neighbours go on.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dtm_catalog::{CompiledSchema, Definition, MaskKey, Scratch};
use dtm_machine::MemoryGroups;
use dtm_machine::seams::{ManualClock, SeededEntropy};
use dtm_seal::{DataKey, Secret, SourceKey};
use dtm_types::command::SourceLimits;
use dtm_types::format::{Form, KeyPurpose, Mode, WrappedKey};
use dtm_types::{GroupId, Incarnation, Month, SourceId, StreamKey};
use futures::StreamExt;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::*;
use crate::contract::{Contract, Defaults};
use crate::limits::Limits;
use crate::session::SessionHandle;
use crate::sources::{Deps, OpenRequest, SourcesHandle};
use crate::treatment::Treatment;
use crate::vault::{KeyVault, VaultError};

const GROUP: GroupId = GroupId(1);
const TIME_US: i64 = 1_795_000_000_000_000;
const POISON: &str = r#"{"n":13}"#;
const ENDS_WITHIN: Duration = Duration::from_secs(1);
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
"#;

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

struct Vault;

fn row(purpose: KeyPurpose, source: &str, month: u32) -> WrappedKey {
    WrappedKey {
        key_id: vec![purpose as u8; 16].into(),
        purpose: purpose.into(),
        source: source.to_owned(),
        month,
        cluster_key_id: vec![5; 16].into(),
        wrapped: vec![6; 73].into(),
    }
}

impl KeyVault for Vault {
    fn new_data_key(&self, _: GroupId, source: &SourceId, month: Month) -> WrappedKey {
        row(KeyPurpose::Data, source.as_str(), month.0)
    }

    fn new_source_key(&self, _: GroupId, source: &SourceId) -> WrappedKey {
        row(KeyPurpose::Source, source.as_str(), 0)
    }

    fn new_audit_key(&self, _: GroupId, month: Month) -> WrappedKey {
        row(KeyPurpose::Audit, "", month.0)
    }

    fn open_data_key(&self, _: GroupId, _: &WrappedKey) -> Result<DataKey, VaultError> {
        Ok(DataKey::from_bytes(&mut [3; 32]))
    }

    fn open_source_key(&self, _: GroupId, _: &WrappedKey) -> Result<SourceKey, VaultError> {
        Ok(SourceKey::from_bytes(&mut [4; 32]))
    }

    fn mask_key(&self) -> Arc<MaskKey> {
        Arc::new(MaskKey::new([1; 32]))
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

fn contract() -> Contract {
    let definition = Definition::parse(DEFINITION, "test").expect("a definition");
    Contract {
        dataset: "numbers".into(),
        schema_version: 1,
        schema: Arc::new(CompiledSchema::compile(&definition).expect("it compiles")),
        mask: None,
        form: Form::Raw,
        mode: Mode::Realtime,
        ids_by_sequence: true,
        defaults: Defaults { security_status: 2, priority: 2, ..Defaults::default() },
    }
}

async fn node() -> SourcesHandle {
    let clock = Arc::new(ManualClock::at(TIME_US));
    let groups = MemoryGroups::new(1, Arc::clone(&clock) as _).expect("empty rows load");
    let deps = Deps {
        proposer: Arc::new(groups),
        vault: Arc::new(Vault),
        treatment: Arc::new(Faulty),
        clock,
        entropy: Arc::new(SeededEntropy::new(1)),
        limits: Limits::default(),
        ack_times: Arc::default(),
        incarnation: Incarnation(1),
        node_name: "one".to_owned(),
    };
    SourcesHandle::start(deps).await.expect("actors run")
}

/// A session and its answers after `Opened`.
async fn open(sources: &SourcesHandle, stream: &str) -> (SessionHandle, Outbox) {
    let request = OpenRequest {
        stream: StreamKey::parse("tinh-01", stream).expect("allowed names"),
        group: GROUP,
        contract: contract(),
        limits: SourceLimits::default(),
        open: ingest::Open::default(),
        actor_id: vec![8; 16].into(),
        leader_address: None,
    };
    let (session, mut answers) = sources.open(request).await.expect("the stream opens");
    let Ok(Response::Opened(_)) = next(&mut answers).await else { panic!("not opened") };
    (session, answers)
}

async fn next(answers: &mut Outbox) -> Result<Response, Error> {
    let answer = tokio::time::timeout(ENDS_WITHIN, answers.next()).await;
    Ok(answer.expect("in time").expect("an answer")?.response.expect("of a known kind"))
}

async fn send(session: &SessionHandle, sequence: u64, payloads: &[&str]) {
    let record = |payload: &&str| ingest::Record {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..ingest::Record::default()
    };
    let records = payloads.iter().map(record).collect();
    let frame = ingest::Frame { first_sequence: sequence, records, ..ingest::Frame::default() };
    session.frame(frame).await.expect("taken");
}

/// Sends one good record and waits until it is acked.
async fn sends(session: &SessionHandle, answers: &mut Outbox, sequence: u64) {
    send(session, sequence, &[r#"{"n":1}"#]).await;
    match next(answers).await {
        Ok(Response::Ack(ack)) => assert_eq!(ack.acked_through, sequence),
        other => panic!("{other:?}"),
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
    let sources = node().await;
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
