//! The contract suites over the in-memory twins and the real implementations.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use dtm_machine::seams::{ManualClock, MemoryStateStore, SeededEntropy, StateStore};
use dtm_storage::state::{Owner, StateConfig, StateDb};
use dtm_tests::contract::{clock, entropy, state_store};
use dtm_types::{ClusterId, GroupId, NodeId};

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
fn manual_clock() {
    clock::suite(&ManualClock::at(1));
}

#[test]
fn seeded_entropy() {
    entropy::suite(&SeededEntropy::new(1));
}
