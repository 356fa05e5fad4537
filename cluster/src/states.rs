//! Where the rows of a node's replicas come from: the node's RocksDB, or memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{MemoryStateStore, StateBatch, StateError, StateRead, StateStore};
use dtm_storage::state::{Error as DbError, Owner, Staging, StateConfig, StateDb};
use dtm_storage::vfs::{RealVfs, rename_for_good, replace_file};
use dtm_types::GroupId;
use parking_lot::Mutex;

use crate::snapshot::{ROWS_TO, StagedState, StateProvider};

/// Rows in memory; keep it to restart a node on what it held.
#[derive(Default)]
pub struct MemoryStates {
    stores: Mutex<BTreeMap<GroupId, Arc<MemoryStateStore>>>,
    peers: Mutex<Vec<u8>>,
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
        store.write(&all_deleted(&*store)?)?;
        store.flush()
    }

    fn damage(&self, _group: GroupId) -> Option<String> {
        None
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn note_peers(&self, note: &[u8]) -> io::Result<()> {
        *self.peers.lock() = note.to_vec();
        Ok(())
    }

    fn noted_peers(&self) -> Vec<u8> {
        self.peers.lock().clone()
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
        self.store.write(&batch)
    }
}

/// Rows in the node's RocksDB.
#[derive(Clone)]
pub struct DbStates {
    db: StateDb,
    /// Lies beside the rows, so that it is not lost with them.
    peers: PathBuf,
}

impl DbStates {
    /// Opens the rows of a node, or makes the folder. Rows that are damaged so that the folder
    /// cannot be opened are moved aside (`DIR.damaged`, the next `DIR.damaged-2`): every replica then
    /// rebuilds its rows from its log or from a peer. What was moved aside before stays: it may be
    /// all that tells what became of a disk. Blocking.
    pub fn open(dir: &Path, owner: Owner, config: &StateConfig) -> Result<Self, DbError> {
        let db = match StateDb::open(dir, owner, config) {
            Err(DbError::Damaged { file, cause }) => {
                tracing::error!(?file, cause, "rows are damaged and moved aside");
                metrics::counter!("dtm_state_moved_aside_total").increment(1);
                move_aside(dir)?;
                StateDb::open(dir, owner, config)?
            }
            opened => opened?,
        };
        Ok(Self { db, peers: peers_of(dir) })
    }

    /// The store itself, for its figures.
    pub fn db(&self) -> &StateDb {
        &self.db
    }
}

/// Rows that are kept aside at most: each may be as large as the rows in use. More were never looked
/// at, and would fill the disk.
const ASIDES_MAX: u32 = 8;

fn move_aside(dir: &Path) -> Result<(), DbError> {
    let place = |number| match number {
        1 => dir.with_extension("damaged"),
        number => dir.with_extension(format!("damaged-{number}")),
    };
    let failed = |what: String| DbError::Io { cause: format!("{}: {what}", dir.display()) };
    let free = (1..=ASIDES_MAX).map(place).find(|aside| !aside.exists());
    let aside = free.ok_or_else(|| {
        let what = format!("{ASIDES_MAX} damaged states lie beside it; look at them, then remove");
        failed(what)
    })?;
    let cannot = |error| failed(format!("cannot be moved to {}: {error}", aside.display()));
    rename_for_good(&RealVfs, dir, &aside).map_err(cannot)
}

/// The note of the other nodes, beside the rows.
fn peers_of(dir: &Path) -> PathBuf {
    dir.with_extension("peers")
}

/// The note of the other nodes beside rows that are not open; empty where there is none.
pub(crate) fn noted_peers(dir: &Path) -> Vec<u8> {
    std::fs::read(peers_of(dir)).unwrap_or_default()
}

fn state_error(group: GroupId) -> impl Fn(DbError) -> StateError {
    move |error| {
        let is_disk_full = matches!(error, DbError::DiskFull { .. });
        StateError { group, cause: error.to_string(), is_disk_full }
    }
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

    fn damage(&self, group: GroupId) -> Option<String> {
        let store = self.db.group(group).ok()?;
        store.damage().map(|damage| damage.to_string())
    }

    fn fault(&self) -> Option<String> {
        self.db.fault().map(|fault| fault.to_string())
    }

    fn note_peers(&self, note: &[u8]) -> io::Result<()> {
        replace_file(&RealVfs, &self.peers, note)
    }

    fn noted_peers(&self) -> Vec<u8> {
        std::fs::read(&self.peers).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_aside_stays() {
        let folder = std::env::temp_dir().join(format!("dtm-aside-{}", std::process::id()));
        let dir = folder.join("state");
        let damage = |number: u32| {
            std::fs::create_dir_all(&dir).expect("a folder");
            std::fs::write(dir.join("row"), number.to_string()).expect("written");
            move_aside(&dir)
        };
        for number in 1..=ASIDES_MAX {
            damage(number).expect("moved");
            assert!(!dir.exists());
        }
        let error = damage(9).expect_err("nobody looked at the others");
        assert!(error.to_string().contains("8 damaged states lie beside it"), "{error}");
        assert!(dir.join("row").exists(), "and what is in use stays where it is");
        for (name, held) in [("damaged", "1"), ("damaged-2", "2"), ("damaged-8", "8")] {
            let row = folder.join(format!("state.{name}")).join("row");
            assert_eq!(std::fs::read_to_string(row).expect("kept"), held);
        }
        std::fs::remove_dir_all(&folder).expect("removes");
    }
}
