//! The in-memory twin of a cluster, above the seams: groups without Raft, one copy of each.
//!
//! A command is committed when it is applied, which is at once; the machine is the true one. Owns
//! rows and bundles. For tests of what stands above the seams; it keeps nothing on any disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use dtm_types::command::Outcome;
use dtm_types::{GroupId, NodeId, bundle};

use crate::machine::{ApplyError, Committed, Machine};
use crate::seams::{
    Clock, Freshness, GroupView, LeaderHint, MemoryStateStore, ProposeError, Proposer, ReadError,
    ReadView, RecordError, RecordStore, Reply, StateBatch, StateStore,
};

/// The node that stamps every bundle.
const NODE: NodeId = NodeId([1; 16]);

/// Group meta and some ingest groups in memory: [`Proposer`] and [`ReadView`] of one node.
pub struct MemoryGroups {
    groups: BTreeMap<GroupId, Group>,
    clock: Arc<dyn Clock>,
    stopped: RwLock<Option<String>>,
}

struct Group {
    store: Arc<MemoryStateStore>,
    records: Arc<MemoryRecords>,
    machine: Mutex<Machine>,
}

/// Bundles by log index: the in-memory twin of [`RecordStore`].
#[derive(Debug, Default)]
pub struct MemoryRecords(RwLock<BTreeMap<u64, Record>>);

#[derive(Clone, Debug)]
enum Record {
    Whole(Bytes),
    Damaged,
}

impl MemoryRecords {
    /// Stores a bundle.
    pub fn put(&self, index: u64, bundle: Bytes) {
        let mut records = self.0.write().unwrap_or_else(PoisonError::into_inner);
        records.insert(index, Record::Whole(bundle));
    }

    /// Damages what is stored at an index; false where there is nothing.
    pub fn damage(&self, index: u64) -> bool {
        let mut records = self.0.write().unwrap_or_else(PoisonError::into_inner);
        records.get_mut(&index).map(|record| *record = Record::Damaged).is_some()
    }
}

impl RecordStore for MemoryRecords {
    fn bundle(&self, index: u64) -> Result<Bytes, RecordError> {
        let records = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match records.get(&index) {
            Some(Record::Whole(bytes)) => Ok(bytes.clone()),
            Some(Record::Damaged) => {
                Err(RecordError::Damaged { index, cause: "damaged on purpose".to_owned() })
            }
            None => Err(RecordError::NotHeld(index)),
        }
    }
}

impl MemoryGroups {
    /// Empty groups: meta and `ingest_groups` more.
    ///
    /// # Errors
    /// None that an empty store gives.
    pub fn new(ingest_groups: u32, clock: Arc<dyn Clock>) -> Result<Self, ApplyError> {
        let mut groups = BTreeMap::new();
        for id in (0..=ingest_groups).map(GroupId) {
            let store = Arc::new(MemoryStateStore::new(id));
            let machine = Mutex::new(Machine::load(id, &*store)?);
            groups.insert(id, Group { store, records: Arc::default(), machine });
        }
        Ok(Self { groups, clock, stopped: RwLock::new(None) })
    }

    /// Answers every command from now on as a stopped node does.
    pub fn stop(&self, reason: &str) {
        let mut stopped = self.stopped.write().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert_with(|| reason.to_owned());
    }

    /// The bundles of a group.
    pub fn records(&self, group: GroupId) -> Option<Arc<MemoryRecords>> {
        self.groups.get(&group).map(|group| Arc::clone(&group.records))
    }

    fn commit(&self, id: GroupId, command: &[u8]) -> Result<Outcome, ProposeError> {
        if let Some(reason) = &*self.stopped.read().unwrap_or_else(PoisonError::into_inner) {
            return Err(ProposeError::Stopped { reason: reason.clone() });
        }
        let unknown = || "this node holds no replica".to_owned();
        let group = self
            .groups
            .get(&id)
            .ok_or_else(|| ProposeError::Unavailable { group: id, cause: unknown() })?;
        let mut bundle = bundle::Builder::new(self.clock.now_us(), &NODE.0, command.len());
        bundle.push(command);
        let bytes = bundle.finish();
        let mut machine = group.lock();
        let outcome = group.apply(&mut machine, bytes);
        outcome.map_err(|error| ProposeError::Stopped { reason: error.to_string() })
    }
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, machine: &mut Machine, bytes: Bytes) -> Result<Outcome, ApplyError> {
        let index = machine.applied_index() + 1;
        let entry = Committed { index, bundle: Some(bytes.clone()) };
        let mut batch = StateBatch::default();
        let outcomes = machine.apply(&*self.store, &[entry], &mut batch)?;
        self.records.put(index, bytes);
        self.store.write(&batch)?;
        Ok(outcomes.into_iter().flatten().next().unwrap_or_default())
    }
}

impl Proposer for MemoryGroups {
    fn propose(&self, group: GroupId, command: Bytes, reply: Reply) {
        reply(self.commit(group, &command));
    }
}

#[async_trait]
impl ReadView for MemoryGroups {
    async fn view(&self, group: GroupId, freshness: Freshness) -> Result<GroupView, ReadError> {
        let found = self.groups.get(&group).ok_or(ReadError::NotHere(group))?;
        let records: Arc<dyn RecordStore> = Arc::clone(&found.records) as _;
        let current = freshness == Freshness::Current;
        Ok(GroupView { group, state: found.store.freeze(), records, current })
    }

    fn ingest_groups(&self) -> Vec<GroupId> {
        self.groups.keys().copied().filter(|id| !id.is_meta()).collect()
    }

    fn leader(&self, group: GroupId) -> Option<LeaderHint> {
        let hint = || LeaderHint { node: NODE, address: String::new(), is_self: true };
        self.groups.get(&group).map(|_| hint())
    }

    fn instead(&self, _: GroupId) -> Option<String> {
        None
    }
}
