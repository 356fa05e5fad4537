//! A node's sessions over groups in memory, for the tests of sessions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_catalog::{CompiledSchema, Definition, MaskKey};
use dtm_machine::MemoryGroups;
use dtm_machine::seams::{Clock, ManualClock, OneSite, Proposer, SeededEntropy, SiteCopies};
use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_seal::{DataKey, Secret, SourceKey};
use dtm_types::command::SourceLimits;
use dtm_types::format::{Form, KeyPurpose, Mode, WrappedKey};
use dtm_types::{GroupId, Incarnation, Month, SourceId, StreamKey};
use futures::StreamExt;

use super::SessionHandle;
use crate::contract::{Contract, Defaults};
use crate::error::Error;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::sources::{Deps, OpenRequest, SourcesHandle};
use crate::treatment::Treatment;
use crate::vault::{KeyVault, VaultError};

const GROUP: GroupId = GroupId(1);
const TIME_US: i64 = 1_795_000_000_000_000;
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
        acks_at_site: false,
    }
}

/// Groups in memory, and the clock that they go by.
pub(super) fn groups() -> (MemoryGroups, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(TIME_US));
    (MemoryGroups::new(1, Arc::clone(&clock) as _).expect("empty rows load"), clock)
}

/// A node that proposes to those groups.
pub(super) async fn node(
    proposer: Arc<dyn Proposer>,
    clock: Arc<dyn Clock>,
    treatment: Arc<dyn Treatment>,
) -> SourcesHandle {
    node_beside(proposer, clock, treatment, (Arc::new(OneSite), Limits::default())).await
}

/// As [`node`], beside another site.
pub(super) async fn node_beside(
    proposer: Arc<dyn Proposer>,
    clock: Arc<dyn Clock>,
    treatment: Arc<dyn Treatment>,
    (copies, limits): (Arc<dyn SiteCopies>, Limits),
) -> SourcesHandle {
    let deps = Deps {
        proposer,
        copies,
        vault: Arc::new(Vault),
        treatment,
        clock,
        entropy: Arc::new(SeededEntropy::new(1)),
        limits,
        ack_times: Arc::default(),
        incarnation: Incarnation(1),
        node_name: "one".to_owned(),
    };
    SourcesHandle::start(deps).await.expect("actors run")
}

/// A session and its answers after `Opened`.
pub(super) async fn open(sources: &SourcesHandle, stream: &str) -> (SessionHandle, Outbox) {
    let opened = open_at(sources, stream, false).await.expect("the stream opens");
    (opened.0, opened.1)
}

/// As [`open`], with what it was told; its acks may have to wait for the other site.
pub(super) async fn open_at(
    sources: &SourcesHandle,
    stream: &str,
    acks_at_site: bool,
) -> Result<(SessionHandle, Outbox, ingest::Opened), Error> {
    let request = OpenRequest {
        stream: StreamKey::parse("tinh-01", stream).expect("allowed names"),
        group: GROUP,
        contract: Contract { acks_at_site, ..contract() },
        limits: SourceLimits::default(),
        open: ingest::Open::default(),
        actor_id: vec![8; 16].into(),
        leader_address: None,
    };
    let (session, mut answers) = sources.open(request).await?;
    let Ok(Response::Opened(opened)) = next(&mut answers).await else { panic!("not opened") };
    Ok((session, answers, opened))
}

pub(super) async fn next(answers: &mut Outbox) -> Result<Response, Error> {
    let answer = tokio::time::timeout(ENDS_WITHIN, answers.next()).await;
    Ok(answer.expect("in time").expect("an answer")?.response.expect("of a known kind"))
}

pub(super) async fn send(session: &SessionHandle, sequence: u64, payloads: &[&str]) {
    let record = |payload: &&str| ingest::Record {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..ingest::Record::default()
    };
    let records = payloads.iter().map(record).collect();
    let frame = ingest::Frame { first_sequence: sequence, records, ..ingest::Frame::default() };
    session.frame(frame).await.expect("taken");
}

/// Sends one good record and waits until it is acked.
pub(super) async fn sends(session: &SessionHandle, answers: &mut Outbox, sequence: u64) {
    send(session, sequence, &[r#"{"n":1}"#]).await;
    match next(answers).await {
        Ok(Response::Ack(ack)) => assert_eq!(ack.acked_through, sequence),
        other => panic!("{other:?}"),
    }
}
