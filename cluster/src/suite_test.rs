//! openraft's own storage suite over the stores that run in production, the node's log and RocksDB,
//! and over their twins in memory.

use std::io;
use std::sync::Arc;

use dtm_storage::log::{LogConfig, LogIdentity, NodeLog};
use dtm_storage::state::{Owner, StateConfig};
use dtm_storage::vfs::RealVfs;
use dtm_types::{ClusterId, GroupId, Incarnation, NodeId, ReplicaId};
use futures::{Stream, StreamExt};
use openraft::StorageError;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};

use crate::applied::Applied;
use crate::log_store::{LogProvider, LogStore, MemoryLogs, NodeLogs};
use crate::missing::Missing;
use crate::snapshot::{ROWS_FROM, ROWS_TO, SnapshotBuilder, SnapshotData, StateProvider};
use crate::state_machine::StateMachine;
use crate::states::{DbStates, MemoryStates};
use crate::type_config::{Entry, LogId, Payload, SnapshotMeta, StoredMembership, TypeConfig};

const GROUP: GroupId = GroupId(1);

/// Our state machine, which insists on entries without a hole and on snapshots that came over the
/// network: the suite gives neither.
struct Machine {
    inner: StateMachine,
    states: Arc<dyn StateProvider>,
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.inner.applied_state().await
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let (last, _) = self.inner.applied_state().await?;
            let next = last.map_or(0, |last| last.index + 1);
            let blank = |index| Entry {
                log_id: LogId::new(entry.log_id.leader_id, index),
                payload: Payload::Blank,
            };
            let mut dense: Vec<Result<EntryResponder<TypeConfig>, io::Error>> =
                (next..entry.log_id.index).map(|index| Ok((blank(index), None))).collect();
            dense.push(Ok((entry, responder)));
            self.inner.apply(futures::stream::iter(dense)).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.inner.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let view = snapshot.into_view().expect("the suite hands over what was built");
        let mut stage = self.states.stage(GROUP).map_err(io::Error::other)?;
        let rows = view.state.scan(ROWS_FROM, ROWS_TO, usize::MAX).map_err(io::Error::other)?;
        stage.put(rows).map_err(io::Error::other)?;
        self.inner.install_snapshot(meta, SnapshotData::staged(stage)).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<crate::snapshot::Snapshot>, io::Error> {
        self.inner.get_current_snapshot().await
    }
}

/// Held as long as the stores are used.
type Guard = (Option<tempfile::TempDir>, Arc<dyn LogProvider>);

fn stores(logs: &dyn LogProvider, states: Arc<dyn StateProvider>) -> (LogStore, Machine) {
    let log = logs.open(GROUP, ReplicaId(1)).expect("a log");
    let store = states.open(GROUP).expect("rows");
    let applied = Arc::new(Applied::new());
    let missing = Missing::load(GROUP, Arc::clone(&store), Arc::clone(&applied));
    let missing = missing.expect("reads");
    let (rows, marks) = (Arc::clone(&log), Arc::clone(&applied));
    let inner = StateMachine::load(GROUP, 1, store, rows, marks, Arc::clone(&missing));
    // The suite purges what it never applied.
    applied.set_flushed(u64::MAX);
    let inner = inner.expect("loads");
    (LogStore::new(log, applied, missing), Machine { inner, states })
}

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Machine, Guard> for OnDisk {
    async fn build(&self) -> Result<(Guard, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = LogIdentity { cluster: 7, node: 1 };
        let cfg = LogConfig {
            segment_bytes: 1 << 20,
            disk_reserve_bytes: 0,
            short_slice: false,
            ..LogConfig::default()
        };
        let vfs = Arc::new(RealVfs);
        let opened = NodeLog::open(vfs, &dir.path().join("log"), cfg, identity);
        let logs = NodeLogs::new(Arc::new(opened.expect("opens").0), Incarnation(1));
        let owner = Owner { cluster: ClusterId([7; 16]), node: NodeId([1; 16]) };
        let states = DbStates::open(&dir.path().join("state"), owner, &StateConfig::default());
        let (store, machine) = stores(&logs, Arc::new(states.expect("opens")));
        Ok(((Some(dir), Arc::new(logs)), store, machine))
    }
}

struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, Machine, Guard> for InMemory {
    async fn build(&self) -> Result<(Guard, LogStore, Machine), StorageError<TypeConfig>> {
        let logs = MemoryLogs::default();
        let (store, machine) = stores(&logs, Arc::new(MemoryStates::default()));
        Ok(((None, Arc::new(logs)), store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_over_log_and_rows() {
    Suite::test_all(OnDisk).await.expect("every case passes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_over_the_twins_in_memory() {
    Suite::test_all(InMemory).await.expect("every case passes");
}
