//! The rows of one group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateError, StateOp, StateRead, StateStore};
use dtm_types::GroupId;
use parking_lot::{Mutex, RwLock};
use rocksdb::WriteBatch;

use super::engine::Engine;
use super::error::Error;
use super::frozen::Frozen;
use super::read::Place;

/// One group's rows; the real twin of `MemoryStateStore`.
///
/// All calls block; a write touches memory only, a read may touch the disk, a flush waits for it.
pub struct GroupStore {
    pub(super) shared: Arc<Shared>,
}

/// What a store and its frozen views have in common.
pub(super) struct Shared {
    pub(super) engine: Arc<Engine>,
    pub(super) group: GroupId,
    /// Read-locked by everyone who touches rows, so that none sees half of a switch.
    pub(super) generation: RwLock<u32>,
    /// True while a staging lives: there is one at a time.
    pub(super) staging: AtomicBool,
    damage: Mutex<Option<Error>>,
    damaged: AtomicBool,
}

impl GroupStore {
    pub(super) fn new(engine: Arc<Engine>, group: GroupId, generation: u32) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine,
                group,
                generation: RwLock::new(generation),
                staging: AtomicBool::new(false),
                damage: Mutex::new(None),
                damaged: AtomicBool::new(false),
            }),
        }
    }

    /// A row as a crash at this moment would leave it: what a flush, asked for or not, has put on
    /// stable storage. Read the applied row with it to learn up to where the log may be purged.
    pub fn get_durable(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let generation = self.shared.generation.read();
        let place = Place { group: self.shared.group, generation: *generation };
        self.shared.checked(self.shared.engine.get_durable(&place.key(key)))
    }

    /// The damage that closed this group, until it is staged anew.
    pub fn damage(&self) -> Option<Error> {
        self.shared.damage.lock().clone()
    }
}

impl Shared {
    /// Turns the store's error into the seam's. Damage that a read met closes the group.
    pub(super) fn checked<T>(&self, got: Result<T, Error>) -> Result<T, StateError> {
        got.map_err(|error| {
            if matches!(error, Error::Damaged { .. }) {
                self.close(&error);
            }
            let is_disk_full = matches!(error, Error::DiskFull { .. });
            StateError { group: self.group, cause: error.to_string(), is_disk_full }
        })
    }

    fn close(&self, error: &Error) {
        let mut first = self.damage.lock();
        if first.is_none() {
            metrics::counter!("dtm_state_damaged_groups_total").increment(1);
            tracing::error!(group = %self.group, %error, "state of a group is damaged");
            *first = Some(error.clone());
            self.damaged.store(true, Ordering::Release);
        }
    }

    /// Opens the group again: its rows were replaced as a whole.
    pub(super) fn reopen(&self) {
        *self.damage.lock() = None;
        self.damaged.store(false, Ordering::Release);
    }

    fn healthy(&self) -> Result<(), Error> {
        if !self.damaged.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.damage.lock().as_ref().map(Error::to_string).unwrap_or_default();
        Err(Error::Stopped { reason })
    }
}

/// A seam batch as an engine batch of one generation.
pub(super) fn engine_batch(place: Place, batch: &StateBatch) -> WriteBatch {
    let mut out = WriteBatch::default();
    append(&mut out, place, batch);
    out
}

/// Adds a seam batch to an engine batch.
pub(super) fn append(out: &mut WriteBatch, place: Place, batch: &StateBatch) {
    for op in &batch.ops {
        match op {
            StateOp::Put(key, value) => out.put(place.key(key), value),
            StateOp::Delete(key) => out.delete(place.key(key)),
        }
    }
}

impl StateRead for GroupStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let generation = self.shared.generation.read();
        let place = Place { group: self.shared.group, generation: *generation };
        self.shared.checked(self.shared.engine.get(&place.key(key)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        self.scan_within(from, to, limit, usize::MAX)
    }

    fn scan_within(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let generation = self.shared.generation.read();
        let place = Place { group: self.shared.group, generation: *generation };
        let engine = &*self.shared.engine;
        let rows =
            place.scan(engine, |o| engine.db.raw_iterator_opt(o), (from, to), (limit, bytes_max));
        self.shared.checked(rows)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        let generation = self.shared.generation.read();
        let place = Place { group: self.shared.group, generation: *generation };
        let engine = &*self.shared.engine;
        self.shared.checked(place.last(engine, |o| engine.db.raw_iterator_opt(o), (from, to)))
    }

    fn group(&self) -> GroupId {
        self.shared.group
    }
}

impl StateStore for GroupStore {
    fn write(&self, batch: &StateBatch) -> Result<(), StateError> {
        self.shared.checked(self.shared.healthy())?;
        let generation = self.shared.generation.read();
        let place = Place { group: self.shared.group, generation: *generation };
        self.shared.checked(self.shared.engine.write(engine_batch(place, batch)))
    }

    fn flush(&self) -> Result<(), StateError> {
        self.shared.checked(self.shared.engine.flush())
    }

    fn freeze(&self) -> Arc<dyn StateRead> {
        Arc::new(Frozen::new(Arc::clone(&self.shared)))
    }
}
