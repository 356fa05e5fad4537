//! The contract suites over the in-memory twins and the real implementations.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dtm_chaos::sandbox::{self, Load, Sandbox, Settings};
use dtm_machine::MemoryGroups;
use dtm_machine::seams::{
    Freshness, ManualClock, MemoryStateStore, ReadView, RecordStore, SeededEntropy, StateStore,
};
use dtm_storage::state::{Owner, StateConfig, StateDb};
use dtm_storage::vfs::Vfs;
use dtm_tests::contract::{clock, entropy, proposer, read_view, record_store, state_store};
use dtm_types::{ClusterId, GroupId, NodeId, StreamKey};

const GROUP: GroupId = GroupId(5);

struct Memory(Arc<MemoryStateStore>);

impl state_store::Subject for Memory {
    fn store(&self) -> Arc<dyn StateStore> {
        Arc::clone(&self.0) as Arc<dyn StateStore>
    }

    fn crash(&mut self) {
        self.0.crash();
    }
}

struct Rocks {
    dir: tempfile::TempDir,
    db: StateDb,
}

impl Rocks {
    fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Self::open(dir.path());
        // Neighbours on both sides: a scan that leaves its group would find them.
        for neighbour in [GROUP.0 - 1, GROUP.0 + 1] {
            let mut batch = dtm_machine::seams::StateBatch::default();
            [&b""[..], b"k", b"\xff\xff"].iter().for_each(|key| batch.put(*key, b"neighbour"));
            db.group(GroupId(neighbour)).unwrap().write(&batch).unwrap();
        }
        Self { dir, db }
    }

    fn open(dir: &std::path::Path) -> StateDb {
        let owner = Owner { cluster: ClusterId([1; 16]), node: NodeId([2; 16]) };
        let config = StateConfig { write_buffer_bytes: 64 << 10, ..StateConfig::default() };
        StateDb::open(dir, owner, &config).unwrap()
    }
}

impl state_store::Subject for Rocks {
    fn store(&self) -> Arc<dyn StateStore> {
        self.db.group(GROUP).unwrap()
    }

    fn crash(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        self.db.copy_as_crashed(dir.path()).unwrap();
        self.db = Self::open(dir.path());
        self.dir = dir;
    }
}

#[test]
fn state_store_in_memory() {
    state_store::suite(|| Memory(Arc::new(MemoryStateStore::new(GROUP))));
}

#[test]
fn state_store_on_rocksdb() {
    state_store::suite(Rocks::fresh);
}

#[test]
fn system_clock() {
    clock::suite(&dtm_doors::system::SystemClock::start());
}

#[test]
fn operating_systems_entropy() {
    entropy::suite(&dtm_doors::system::OsEntropy);
}

#[test]
fn manual_clock() {
    clock::suite(&ManualClock::at(1));
}

#[test]
fn seeded_entropy() {
    entropy::suite(&SeededEntropy::new(1));
}

/// A group that nobody holds.
const FOREIGN: GroupId = GroupId(77);

fn in_memory() -> Arc<MemoryGroups> {
    let clock = Arc::new(ManualClock::at(sandbox::commands::TIME_US));
    Arc::new(MemoryGroups::new(3, clock).unwrap())
}

fn given(groups: &Arc<MemoryGroups>) -> proposer::Given {
    let (proposer, view) = (Arc::clone(groups) as _, Arc::clone(groups) as _);
    proposer::Given { proposer, view, group: sandbox::GROUP, foreign: FOREIGN }
}

#[tokio::test]
async fn proposer_and_read_view_in_memory() {
    let groups = in_memory();
    let given = given(&groups);
    proposer::suite(&given).await;
    read_view::suite(&given).await;
    groups.stop("the test says so");
    proposer::stopped(&given).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposer_and_read_view_of_a_cluster() {
    let settings = Settings { nodes: 1, ..Settings::default() };
    let sandbox = Sandbox::form(settings, Arc::new(sandbox::True)).await;
    sandbox.until_led_by(sandbox::GROUP, 0).await;
    let node = sandbox.node(0);
    let (proposer, view) = (Arc::clone(node) as _, Arc::clone(node) as _);
    let given = proposer::Given { proposer, view, group: sandbox::GROUP, foreign: FOREIGN };
    proposer::suite(&given).await;
    read_view::suite(&given).await;
    sandbox.stop().await;
    proposer::stopped(&given).await;
}

#[test]
fn record_store_in_memory() {
    let groups = in_memory();
    let store = groups.records(sandbox::GROUP).unwrap();
    let bundle = |index: u64| Bytes::from(vec![index as u8; 100]);
    (1..6).for_each(|index| store.put(index, bundle(index)));
    assert!(store.damage(3) && !store.damage(9));
    let held = [1, 2, 4, 5].map(|index| (index, bundle(index))).to_vec();
    let store: Arc<dyn RecordStore> = store;
    record_store::suite(&record_store::Given {
        store,
        held,
        not_held: vec![0, 6],
        damaged: vec![3],
    });
}

/// The log's segments as they lie on the disk: below the purge mark, after a restart, with one bit
/// of one bundle flipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_store_in_the_log() {
    let settings = Settings { nodes: 1, ..Settings::purging() };
    let mut sandbox = Sandbox::form(settings, Arc::new(sandbox::True)).await;
    let mut load = Load::new("tinh-01", "main");
    load.open(&sandbox, 0).await;
    assert_eq!(load.write(&sandbox, 0, 6).await, 6);
    let view = sandbox.node(0).view(sandbox::GROUP, Freshness::Local).await.unwrap();
    let head = dtm_machine::reads::head(&*view.state).unwrap().applied_index;
    let (held, not_held): (Vec<u64>, Vec<u64>) =
        (0..=head).partition(|index| view.records.bundle(*index).is_ok());
    let read = |index: &u64| (*index, view.records.bundle(*index).unwrap());
    let mut held: Vec<(u64, Bytes)> = held.iter().map(read).collect();
    drop(view);
    sandbox
        .until("the log is purged behind the load", |status| {
            status.iter().flatten().any(|g| g.group == sandbox::GROUP && g.purged_index >= head)
        })
        .await;
    // A purge is on disk with whatever is synced next.
    assert_eq!(load.write(&sandbox, 0, 1).await, 1);
    sandbox.cut_power(&[0]).await;
    let stream = StreamKey::parse("tinh-01", "main").unwrap();
    let damaged = flip(&sandbox, &held, &sandbox::commands::record(&stream, 8));
    held.retain(|(index, _)| *index != damaged);
    sandbox.restart(&[0]).await;
    sandbox.until_led_by(sandbox::GROUP, 0).await;
    let view = sandbox.node(0).view(sandbox::GROUP, Freshness::Local).await.unwrap();
    let store = Arc::clone(&view.records);
    let given = record_store::Given { store, held, not_held, damaged: vec![damaged] };
    tokio::task::spawn_blocking(move || record_store::suite(&given)).await.unwrap();
    sandbox.stop().await;
}

/// Flips a bit of the bundle that holds `needle`; its index.
fn flip(sandbox: &Sandbox, held: &[(u64, Bytes)], needle: &[u8]) -> u64 {
    let position = |bytes: &[u8]| bytes.windows(needle.len()).position(|found| found == needle);
    let disk = sandbox.disk(0);
    for name in disk.list(Path::new("/log")).unwrap() {
        let path = Path::new("/log").join(name);
        let bytes = disk.bytes(&path).unwrap_or_default();
        if let Some(at) = position(&bytes) {
            assert!(disk.flip_bit(&path, at as u64, 2));
            return held.iter().find(|(_, bundle)| position(bundle).is_some()).unwrap().0;
        }
    }
    panic!("the record is on the disk");
}
