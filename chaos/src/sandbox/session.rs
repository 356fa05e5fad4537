//! True sessions over groups in memory, with keys that stay the same from life to life.

use std::sync::{Arc, OnceLock};

use dtm_actors::{
    Contract, Defaults, Deps, Full, KeyVault, Limits, OpenRequest, Outbox, SessionHandle,
    SourcesHandle, VaultError,
};
use dtm_catalog::{CompiledSchema, Definition, MaskKey};
use dtm_machine::MemoryGroups;
use dtm_machine::seams::{Entropy, ManualClock, OneSite};
use dtm_proto::ingest;
use dtm_seal::{DataKey, Secret, SourceKey};
use dtm_types::command::SourceLimits;
use dtm_types::format::{Form, KeyPurpose, Mode, WrappedKey};
use dtm_types::{GroupId, Incarnation, Month, SourceId, StreamKey};

use super::GROUP;
use super::commands::TIME_US;

/// The data key of every source: a canary too.
pub const DATA_KEY: [u8; 32] = *b"a data key that nobody may read!";
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

/// A vault that opens the same keys in every life, as the keyring does, and keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct FixedVault;

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

impl KeyVault for FixedVault {
    fn new_data_key(&self, _group: GroupId, source: &SourceId, month: Month) -> WrappedKey {
        row(KeyPurpose::Data, source.as_str(), month.0)
    }

    fn new_source_key(&self, _group: GroupId, source: &SourceId) -> WrappedKey {
        row(KeyPurpose::Source, source.as_str(), 0)
    }

    fn new_audit_key(&self, _group: GroupId, month: Month) -> WrappedKey {
        row(KeyPurpose::Audit, "", month.0)
    }

    fn open_data_key(&self, _group: GroupId, _row: &WrappedKey) -> Result<DataKey, VaultError> {
        Ok(DataKey::from_bytes(&mut DATA_KEY.clone()))
    }

    fn open_source_key(&self, _group: GroupId, _row: &WrappedKey) -> Result<SourceKey, VaultError> {
        Ok(SourceKey::from_bytes(&mut [4; 32]))
    }

    fn mask_key(&self) -> Arc<MaskKey> {
        Arc::new(MaskKey::new([1; 32]))
    }
}

/// Empty groups whose clock stands still.
pub fn groups() -> Arc<MemoryGroups> {
    let clock = Arc::new(ManualClock::at(TIME_US));
    Arc::new(MemoryGroups::new(1, clock).expect("empty rows load"))
}

fn contract() -> Contract {
    static SCHEMA: OnceLock<Arc<CompiledSchema>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let definition = Definition::parse(DEFINITION, "sandbox").expect("a definition");
        Arc::new(CompiledSchema::compile(&definition).expect("it compiles"))
    });
    Contract {
        dataset: "numbers".into(),
        schema_version: 1,
        schema: Arc::clone(schema),
        mask: None,
        form: Form::Raw,
        mode: Mode::Realtime,
        ids_by_sequence: true,
        defaults: Defaults { security_status: 2, priority: 2, ..Defaults::default() },
        acks_at_site: false,
    }
}

/// A node's sessions in one life, and one stream opened in it; records are `{"n":NUMBER}`.
///
/// # Panics
/// When the session cannot be opened: groups in memory refuse none.
pub async fn open(
    groups: &Arc<MemoryGroups>,
    entropy: Arc<dyn Entropy>,
    vault: Arc<dyn KeyVault>,
) -> (SourcesHandle, SessionHandle, Outbox) {
    let deps = Deps {
        proposer: Arc::clone(groups) as _,
        copies: Arc::new(OneSite),
        vault,
        treatment: Arc::new(Full),
        clock: Arc::new(ManualClock::at(TIME_US)),
        entropy,
        limits: Limits::default(),
        ack_times: Arc::default(),
        incarnation: Incarnation(1),
        node_name: "one".to_owned(),
    };
    let sources = SourcesHandle::start(deps).await.expect("actors run");
    let request = OpenRequest {
        stream: StreamKey::parse("tinh-01", "main").expect("allowed names"),
        group: GROUP,
        contract: contract(),
        limits: SourceLimits::default(),
        open: ingest::Open::default(),
        actor_id: vec![8; 16].into(),
        leader_address: None,
    };
    let (session, answers) = sources.open(request).await.expect("the stream opens");
    (sources, session, answers)
}
