//! What a resend leaves behind when its caller goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dtm_actors::{Contract, Defaults, Deps, Full};
use dtm_catalog::{CompiledSchema, Definition};
use dtm_machine::MemoryGroups;
use dtm_machine::seams::{OneSite, Proposer, Reply};
use dtm_storage::keys::{Keyring, Master};
use dtm_storage::vfs::RealVfs;
use dtm_types::command::command::Op as CommandOp;
use dtm_types::command::{Command, SourceLimits};
use dtm_types::format::{Form, Mode};
use dtm_types::{Incarnation, StreamKey};

use super::*;
use crate::system::{OsEntropy, SystemClock};
use crate::vault::NodeVault;

const PATIENCE: Duration = Duration::from_secs(10);

/// Groups that lose every batch on its way: it never gets an outcome.
struct Mute {
    groups: MemoryGroups,
    batches: AtomicUsize,
}

impl Proposer for Mute {
    fn propose(&self, group: GroupId, command: Bytes, reply: Reply) {
        let op = Command::decode(command.clone()).ok().and_then(|command| command.op);
        if matches!(op, Some(CommandOp::AppendBatch(_))) {
            self.batches.fetch_add(1, Ordering::AcqRel);
            return;
        }
        self.groups.propose(group, command, reply);
    }
}

/// Waits until it holds, for a bounded time.
async fn soon(what: &str, is_so: impl Fn() -> bool) {
    let holds = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.unwrap_or_else(|_| panic!("{what}"));
}

fn vault(folder: &std::path::Path) -> NodeVault {
    let master = Master::create(&folder.join("master"), &OsEntropy).expect("written");
    let (vfs, entropy) = (Arc::new(RealVfs), Arc::new(OsEntropy));
    let ring = Keyring::create(vfs, &folder.join("ring"), master, entropy, 1).expect("written");
    NodeVault::found(&ring, &OsEntropy).expect("written");
    NodeVault::new(Arc::new(ring), Arc::new(OsEntropy)).expect("a key for pseudonyms")
}

fn request() -> OpenRequest {
    let definition = Definition::built_in(dtm_catalog::BUILT_IN_IDS[0]).expect("built in");
    let contract = Contract {
        dataset: definition.id.as_str().into(),
        schema_version: definition.version,
        schema: Arc::new(CompiledSchema::compile(&definition).expect("it compiles")),
        mask: None,
        form: Form::Raw,
        mode: Mode::Realtime,
        ids_by_sequence: true,
        defaults: Defaults::default(),
        acks_at_site: false,
    };
    OpenRequest {
        stream: StreamKey::parse("tinh-01", "resend.1-1-0-0").expect("allowed names"),
        group: GroupId(1),
        contract,
        limits: SourceLimits::default(),
        open: Open::default(),
        actor_id: vec![8; 16].into(),
        leader_address: None,
    }
}

/// Each open session holds one of the source's `streams_open_max`.
#[tokio::test]
async fn a_call_that_is_broken_off_gives_its_stream_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(SystemClock::start());
    let groups = MemoryGroups::new(1, Arc::clone(&clock) as _).expect("empty rows load");
    let proposer = Arc::new(Mute { groups, batches: AtomicUsize::new(0) });
    let deps = Deps {
        proposer: Arc::clone(&proposer) as _,
        copies: Arc::new(OneSite),
        vault: Arc::new(vault(folder.path())),
        treatment: Arc::new(Full),
        clock,
        entropy: Arc::new(OsEntropy),
        limits: Limits { streams_open_max: 1, ..Limits::default() },
        ack_times: Arc::default(),
        incarnation: Incarnation(1),
        node_name: "one".to_owned(),
    };
    let sources = SourcesHandle::start(deps).await.expect("actors run");
    for call in 1..=2 {
        let (calling, record) = (sources.clone(), Record::default());
        let call_task =
            tokio::spawn(async move { send(&calling, request(), 1, record).await.map(drop) });
        soon("the record is on its way", || proposer.batches.load(Ordering::Acquire) == call).await;
        assert_eq!(sources.sessions(), 1);
        call_task.abort();
        soon("the session ends with its call", || sources.sessions() == 0).await;
    }
}

#[test]
fn it_is_sent_as_is_agreed_now() {
    let refused = QuarantinedRecord {
        dataset: "a".to_owned(),
        form: Form::Raw.into(),
        mode: Mode::Realtime.into(),
        ..QuarantinedRecord::default()
    };
    let opened = |dataset: &str, modes: &[Mode]| {
        let agreement = dtm_types::command::Agreement {
            dataset: dataset.to_owned(),
            modes: modes.iter().map(|mode| i32::from(*mode)).collect(),
            form: Form::Masked.into(),
            ..Default::default()
        };
        let source = SourceRow { agreements: vec![agreement], ..SourceRow::default() };
        let open = open_of(&source, "resend.1-1-0-0", &refused);
        (open.form(), open.mode())
    };
    assert_eq!(opened("a", &[Mode::Batch, Mode::Realtime]), (Form::Masked, Mode::Realtime));
    assert_eq!(opened("a", &[Mode::Batch]), (Form::Masked, Mode::Batch));
    assert_eq!(opened("b", &[Mode::Batch]), (Form::Raw, Mode::Realtime), "refused when it opens");
}
