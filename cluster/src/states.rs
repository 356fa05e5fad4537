//! Where the rows of a node's replicas come from: the node's RocksDB, or memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateError, StateRead, StateStore};
use dtm_storage::state::{Error as DbError, Staging, StateDb};
use dtm_types::GroupId;
use parking_lot::Mutex;

use crate::snapshot::{ROWS_TO, StagedState, StateProvider};

/// Rows in memory; keep it to restart a node on what it held.
#[derive(Default)]
pub struct MemoryStates {
    stores: Mutex<BTreeMap<GroupId, Arc<MemoryStateStore>>>,
}

impl MemoryStates {
    fn store(&self, group: GroupId) -> Arc<MemoryStateStore> {
        let mut stores = self.stores.lock();
        Arc::clone(stores.entry(group).or_insert_with(|| Arc::new(MemoryStateStore::new(group))))
    }

    /// Forgets what was not flushed, as a crash would.
    pub fn crash(&self) {
        self.stores.lock().values().for_each(|store| store.crash());
    }
}

impl StateProvider for MemoryStates {
    fn open(&self, group: GroupId) -> Result<Arc<dyn StateStore>, StateError> {
        Ok(self.store(group))
    }

    fn stage(&self, group: GroupId) -> Result<Box<dyn StagedState>, StateError> {
        Ok(Box::new(MemoryStage { store: self.store(group), rows: StateBatch::default() }))
    }

    fn clear(&self, group: GroupId) -> Result<(), StateError> {
        let store = self.store(group);
        store.write(all_deleted(&*store)?)?;
        store.flush()
    }
}

fn all_deleted(store: &dyn StateRead) -> Result<StateBatch, StateError> {
    let mut batch = StateBatch::default();
    for (key, _) in store.scan(&[], ROWS_TO, usize::MAX)? {
        batch.delete(key);
    }
    Ok(batch)
}

struct MemoryStage {
    store: Arc<MemoryStateStore>,
    rows: StateBatch,
}

impl StagedState for MemoryStage {
    fn put(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StateError> {
        rows.into_iter().for_each(|(key, value)| self.rows.put(key, value));
        Ok(())
    }

    fn switch(self: Box<Self>, more: StateBatch) -> Result<(), StateError> {
        let mut batch = all_deleted(&*self.store)?;
        batch.ops.extend(self.rows.ops);
        batch.ops.extend(more.ops);
        self.store.write(batch)?;
        self.store.flush()
    }
}

/// Rows in the node's RocksDB.
#[derive(Clone)]
pub struct DbStates {
    db: StateDb,
}

impl DbStates {
    /// Serves the groups of one store.
    pub fn new(db: StateDb) -> Self {
        Self { db }
    }
}

fn state_error(group: GroupId) -> impl Fn(DbError) -> StateError {
    move |error| StateError { group, cause: error.to_string() }
}

impl StateProvider for DbStates {
    fn open(&self, group: GroupId) -> Result<Arc<dyn StateStore>, StateError> {
        let store = self.db.group(group).map_err(state_error(group))?;
        Ok(store)
    }

    fn stage(&self, group: GroupId) -> Result<Box<dyn StagedState>, StateError> {
        let staging = self.db.stage(group).map_err(state_error(group))?;
        Ok(Box::new(DbStage { group, staging }))
    }

    fn clear(&self, group: GroupId) -> Result<(), StateError> {
        self.db.drop_group(group).map_err(state_error(group))
    }
}

struct DbStage {
    group: GroupId,
    staging: Staging,
}

impl StagedState for DbStage {
    fn put(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StateError> {
        let mut batch = StateBatch::default();
        rows.into_iter().for_each(|(key, value)| batch.put(key, value));
        self.staging.write(&batch).map_err(state_error(self.group))
    }

    fn switch(self: Box<Self>, more: StateBatch) -> Result<(), StateError> {
        let group = self.group;
        self.staging.commit(&more).map_err(state_error(group))
    }
}
