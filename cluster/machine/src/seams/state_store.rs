//! Where a group's rows live: ordered keys, atomic batches, frozen snapshots.
//!
//! Keys here are relative to a group; the store puts (group, generation) before them.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use dtm_types::GroupId;

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateOp {
    /// Write.
    Put(Vec<u8>, Vec<u8>),
    /// Remove.
    Delete(Vec<u8>),
}

/// Changes that become visible and durable together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateBatch {
    /// In order; a later one wins.
    pub ops: Vec<StateOp>,
}

impl StateBatch {
    /// Adds a write.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(StateOp::Put(key.into(), value.into()));
    }

    /// Adds a removal.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.ops.push(StateOp::Delete(key.into()));
    }
}

/// Reads rows of one group.
pub trait StateRead: Send + Sync {
    /// One row.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError>;

    /// Rows with `from <= key < to`, ascending, at most `limit`.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize)
    -> Result<Vec<(Bytes, Bytes)>, StateError>;

    /// As [`StateRead::scan`], but ends before the row with which keys and values would take more than
    /// `bytes_max`; the first row always comes. Fewer rows than `limit` are not the end of the range.
    fn scan_within(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let mut rows = self.scan(from, to, limit)?;
        let mut bytes = 0;
        let fits = rows.iter().take_while(|(key, value)| {
            bytes += key.len() + value.len();
            bytes <= bytes_max
        });
        let fitting = fits.count();
        rows.truncate(fitting.max(1));
        Ok(rows)
    }

    /// The last row with `from <= key < to`.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError>;

    /// The group these rows belong to.
    fn group(&self) -> GroupId;
}

/// The rows of one group on this node.
pub trait StateStore: StateRead {
    /// Writes atomically. Not durable by itself: after a crash the group is back at its last flush
    /// and replays from the log; a batch is never half there. On an error it is not there at all.
    fn write(&self, batch: &StateBatch) -> Result<(), StateError>;

    /// Makes everything written so far durable (fsync). Blocking.
    fn flush(&self) -> Result<(), StateError>;

    /// A frozen view.
    fn freeze(&self) -> Arc<dyn StateRead>;
}

/// The store failed; the group stops on this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state of group {group}: {cause}")]
pub struct StateError {
    /// The group.
    pub group: GroupId,
    /// What the engine said.
    pub cause: String,
    /// The disk is full: nothing was written, and the same call works once there is room.
    pub is_disk_full: bool,
}

impl StateError {
    /// A failure that no repetition mends.
    pub fn new(group: GroupId, cause: impl Into<String>) -> Self {
        Self { group, cause: cause.into(), is_disk_full: false }
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The in-memory twin.
#[derive(Debug, Default)]
pub struct MemoryStateStore {
    group: GroupId,
    rows: RwLock<Arc<Rows>>,
    flushed: RwLock<Arc<Rows>>,
}

impl MemoryStateStore {
    /// An empty store.
    pub fn new(group: GroupId) -> Self {
        Self { group, ..Self::default() }
    }

    fn frozen(&self) -> Frozen {
        Frozen { group: self.group, rows: Arc::clone(&read(&self.rows)) }
    }

    /// Forgets what was not flushed, as a crash would.
    pub fn crash(&self) {
        *write(&self.rows) = Arc::clone(&read(&self.flushed));
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Frozen {
    group: GroupId,
    rows: Arc<Rows>,
}

impl StateRead for Frozen {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(self.rows.get(key).map(|v| Bytes::copy_from_slice(v)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = self.rows.range(from.to_vec()..to.to_vec()).take(limit);
        Ok(range.map(|(k, v)| (Bytes::copy_from_slice(k), Bytes::copy_from_slice(v))).collect())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        if from >= to {
            return Ok(None);
        }
        let row = self.rows.range(from.to_vec()..to.to_vec()).next_back();
        Ok(row.map(|(k, v)| (Bytes::copy_from_slice(k), Bytes::copy_from_slice(v))))
    }

    fn group(&self) -> GroupId {
        self.group
    }
}

impl StateRead for MemoryStateStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.frozen().get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        self.frozen().scan(from, to, limit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        self.frozen().last(from, to)
    }

    fn group(&self) -> GroupId {
        self.group
    }
}

impl StateStore for MemoryStateStore {
    fn write(&self, batch: &StateBatch) -> Result<(), StateError> {
        let mut guard = write(&self.rows);
        let rows = Arc::make_mut(&mut guard);
        for op in &batch.ops {
            match op {
                StateOp::Put(key, value) => rows.insert(key.clone(), value.clone()),
                StateOp::Delete(key) => rows.remove(key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        *write(&self.flushed) = Arc::clone(&read(&self.rows));
        Ok(())
    }

    fn freeze(&self) -> Arc<dyn StateRead> {
        Arc::new(self.frozen())
    }
}
