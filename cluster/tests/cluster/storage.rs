//! Storage of a test node: memory or files, with faults that strike once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_cluster::{
    DbStates, Flushed, LogEntry, LogError, LogProvider, MemoryLogs, MemoryStates, NodeLogs,
    ReplicaLog, StagedState, StateProvider,
};
use dtm_machine::seams::{StateBatch, StateError, StateRead, StateStore};
use dtm_storage::log::{Error as LogOpenError, LogConfig, LogIdentity, NodeLog};
use dtm_storage::state::{Error as DbError, Owner, StateConfig};
use dtm_storage::vfs::RealVfs;
use dtm_testkit::{Wrapped, WrappedLog, WrappedLogs, WrappedState, WrappedStates};
use dtm_types::{ClusterId, GroupId, Incarnation, NodeId, ReplicaId};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::harness::PATIENCE;

pub(crate) enum Storage {
    Memory(Arc<MemoryLogs>, Arc<MemoryStates>),
    Disk(tempfile::TempDir),
}

/// As the log names it.
const CLUSTER: u128 = 7;

type Opened = (Arc<dyn LogProvider>, Arc<dyn StateProvider>);

impl Storage {
    pub(crate) fn memory() -> Self {
        Self::Memory(Arc::default(), Arc::default())
    }

    pub(crate) fn disk() -> Self {
        Self::Disk(tempfile::tempdir().expect("a folder"))
    }

    /// Opens what an earlier run left; waits until that run has let go of it.
    pub(crate) async fn open(&self, node: NodeId) -> Opened {
        match self {
            Self::Memory(logs, states) => (Arc::clone(logs) as _, Arc::clone(states) as _),
            Self::Disk(_) => {
                let (log, states) = self.open_files(node).await;
                (Arc::new(NodeLogs::new(log, Incarnation(1))), Arc::new(states))
            }
        }
    }

    /// The same of files, whatever life they are of.
    pub(crate) async fn open_files(&self, node: NodeId) -> (Arc<NodeLog>, DbStates) {
        let dir = self.dir();
        let identity = LogIdentity { cluster: CLUSTER, node: u128::from_be_bytes(node.0) };
        let owner = Owner { cluster: ClusterId([7; 16]), node };
        let deadline = Instant::now() + PATIENCE;
        let cfg = LogConfig {
            segment_bytes: 1 << 20,
            disk_reserve_bytes: 0,
            short_slice: false,
            ..LogConfig::default()
        };
        loop {
            let vfs = Arc::new(RealVfs);
            let log = NodeLog::open(vfs, &dir.join("log"), cfg.clone(), identity);
            let busy = match log {
                Ok((log, _)) => {
                    match DbStates::open(&dir.join("state"), owner, &StateConfig::default()) {
                        Ok(states) => return (Arc::new(log), states),
                        Err(DbError::InUse { cause, .. }) => cause,
                        Err(error) => panic!("state does not open: {error}"),
                    }
                }
                Err(LogOpenError::Locked { path }) => path.display().to_string(),
                Err(error) => panic!("log does not open: {error}"),
            };
            assert!(Instant::now() < deadline, "{busy} stays in use");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The log in memory of a node.
    pub(crate) fn logs(&self) -> &Arc<MemoryLogs> {
        match self {
            Self::Memory(logs, _) => logs,
            Self::Disk(_) => panic!("the log is on disk"),
        }
    }

    /// An empty log takes the place of this one; the rows stay.
    pub(crate) fn lose_log(&mut self) {
        match self {
            Self::Memory(logs, _) => *logs = Arc::default(),
            Self::Disk(_) => panic!("the log is on disk"),
        }
    }

    pub(crate) fn crash(&self) {
        if let Self::Memory(_, states) = self {
            states.crash();
        }
    }

    /// Folder of the node.
    pub(crate) fn dir(&self) -> PathBuf {
        match self {
            Self::Memory(..) => panic!("nothing on disk"),
            Self::Disk(dir) => dir.path().to_owned(),
        }
    }
}

/// Counters that strike once each: 0 and below is never, n is at the n-th call.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) read_record: AtomicI64,
    pub(crate) store_records: AtomicI64,
    pub(crate) scan: AtomicI64,
    pub(crate) stage_put: AtomicI64,
    /// After the rows were switched, before anybody knows.
    pub(crate) switched: AtomicI64,
    /// So many flushes behind the next switch of rows find the disk full.
    pub(crate) full_after_switch: AtomicI64,
    /// So many flushes find the disk full.
    pub(crate) flushes_full: AtomicI64,
    /// How long each scan of the first group's rows for a snapshot takes, milliseconds.
    pub(crate) scan_stall_ms: AtomicI64,
    /// 1: no row can be written any more, as after an IO error.
    pub(crate) rows_fault: AtomicI64,
    /// Indexes that this node's record store has lost, as `from * 2^32 + to`; 0 = none.
    pub(crate) lost: AtomicI64,
    /// 1: the log has no room for what a leader would propose.
    pub(crate) log_without_room: AtomicI64,
    unflushed: Mutex<Unflushed>,
}

/// What was appended and is not said to be on disk.
#[derive(Default)]
struct Unflushed {
    group: Option<GroupId>,
    waiting: Vec<(Flushed, Result<(), LogError>)>,
}

fn strikes(fault: &AtomicI64) -> bool {
    fault.fetch_sub(1, Ordering::SeqCst) == 1
}

impl Faults {
    pub(crate) fn lose(&self, from: i64, to: i64) {
        self.lost.store(from << 32 | to, Ordering::SeqCst);
    }

    /// Appends to the log of this group are not said to be on disk any more: its replica here answers
    /// its leader nothing. Other groups go on.
    pub(crate) fn hold_flushes(&self, group: GroupId) {
        self.unflushed.lock().group = Some(group);
    }

    /// Says what was held.
    pub(crate) fn release_flushes(&self) {
        let mut unflushed = self.unflushed.lock();
        unflushed.group = None;
        unflushed.waiting.drain(..).for_each(|(flushed, result)| flushed(result));
    }

    fn flushed(&self, group: GroupId, flushed: Flushed, result: Result<(), LogError>) {
        let mut unflushed = self.unflushed.lock();
        if unflushed.group == Some(group) {
            unflushed.waiting.push((flushed, result));
        } else {
            drop(unflushed);
            flushed(result);
        }
    }

    fn has_lost(&self, index: u64) -> bool {
        let lost = self.lost.load(Ordering::SeqCst);
        let (from, to) = (lost >> 32, lost & 0xffff_ffff);
        lost > 0 && (from..=to).contains(&i64::try_from(index).expect("small"))
    }
}

pub(crate) struct FaultyLogs {
    pub(crate) inner: Arc<dyn LogProvider>,
    pub(crate) faults: Arc<Faults>,
}

impl WrappedLogs for FaultyLogs {
    fn inner(&self) -> &dyn LogProvider {
        &*self.inner
    }

    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError> {
        let inner = self.inner.open(group, replica)?;
        if group.is_meta() {
            return Ok(inner);
        }
        Ok(Arc::new(Wrapped(FaultyLog { group, inner, faults: Arc::clone(&self.faults) })))
    }
}

struct FaultyLog {
    group: GroupId,
    inner: Arc<dyn ReplicaLog>,
    faults: Arc<Faults>,
}

impl WrappedLog for FaultyLog {
    fn inner(&self) -> &dyn ReplicaLog {
        &*self.inner
    }

    fn ready(&self, bytes: usize) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            while self.faults.log_without_room.load(Ordering::SeqCst) == 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.inner.ready(bytes).await
        })
    }

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        let (group, faults) = (self.group, Arc::clone(&self.faults));
        self.inner.append(entries, Box::new(move |result| faults.flushed(group, flushed, result)))
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        if strikes(&self.faults.read_record) {
            return Err(LogError::Engine("planted".into()));
        }
        if self.faults.has_lost(index) {
            return Err(LogError::NotFound(index));
        }
        self.inner.read_record(index)
    }

    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        if strikes(&self.faults.store_records) {
            return Err(LogError::Engine("planted".into()));
        }
        self.inner.store_records(entries, flushed)
    }
}

pub(crate) struct FaultyStates {
    pub(crate) inner: Arc<dyn StateProvider>,
    pub(crate) faults: Arc<Faults>,
}

impl WrappedStates for FaultyStates {
    fn inner(&self) -> &dyn StateProvider {
        &*self.inner
    }

    fn open(&self, group: GroupId) -> Result<Arc<dyn StateStore>, StateError> {
        let inner = self.inner.open(group)?;
        Ok(Arc::new(Wrapped(FaultyStore { inner, faults: Arc::clone(&self.faults) })))
    }

    fn stage(&self, group: GroupId) -> Result<Box<dyn StagedState>, StateError> {
        let inner = self.inner.stage(group)?;
        let (store, faults) = (self.inner.open(group)?, Arc::clone(&self.faults));
        Ok(Box::new(FaultyStage { group, inner, store, faults }))
    }

    fn fault(&self) -> Option<String> {
        let is_faulty = self.faults.rows_fault.load(Ordering::SeqCst) == 1;
        is_faulty.then(|| "planted".to_owned()).or_else(|| self.inner.fault())
    }
}

struct FaultyStage {
    group: GroupId,
    inner: Box<dyn StagedState>,
    store: Arc<dyn StateStore>,
    faults: Arc<Faults>,
}

impl StagedState for FaultyStage {
    fn put(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StateError> {
        if strikes(&self.faults.stage_put) {
            return Err(StateError::new(self.group, "planted"));
        }
        self.inner.put(rows)
    }

    fn switch(self: Box<Self>, more: StateBatch) -> Result<(), StateError> {
        self.inner.switch(more)?;
        let full = self.faults.full_after_switch.swap(0, Ordering::SeqCst);
        self.faults.flushes_full.fetch_max(full, Ordering::SeqCst);
        if strikes(&self.faults.switched) {
            self.store.flush()?;
            return Err(StateError::new(self.group, "planted"));
        }
        Ok(())
    }
}

struct FaultyStore {
    inner: Arc<dyn StateStore>,
    faults: Arc<Faults>,
}

type Rows = Vec<(Bytes, Bytes)>;

impl WrappedState for FaultyStore {
    fn inner(&self) -> &dyn StateStore {
        &*self.inner
    }

    fn flush(&self) -> Result<(), StateError> {
        if !self.inner.group().is_meta()
            && self.faults.flushes_full.fetch_sub(1, Ordering::SeqCst) > 0
        {
            let (group, cause) = (self.inner.group(), "planted".to_owned());
            return Err(StateError { group, cause, is_disk_full: true });
        }
        self.inner.flush()
    }

    fn freeze(&self) -> Arc<dyn StateRead> {
        let (inner, faults) = (self.inner.freeze(), Arc::clone(&self.faults));
        Arc::new(FaultyView { group: self.inner.group(), inner, faults })
    }
}

struct FaultyView {
    group: GroupId,
    inner: Arc<dyn StateRead>,
    faults: Arc<Faults>,
}

impl StateRead for FaultyView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.inner.get(key)
    }

    /// Only a snapshot reads rows by the hundred.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Rows, StateError> {
        let stall = self.faults.scan_stall_ms.load(Ordering::SeqCst);
        if limit == 512 && self.group == GroupId(1) && stall > 0 {
            std::thread::sleep(Duration::from_millis(stall.unsigned_abs()));
        }
        if limit == 512 && !self.group.is_meta() && strikes(&self.faults.scan) {
            return Err(StateError::new(self.group, "planted"));
        }
        self.inner.scan(from, to, limit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        self.inner.last(from, to)
    }

    fn group(&self) -> GroupId {
        self.group
    }
}
