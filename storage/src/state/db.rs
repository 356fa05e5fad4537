//! The store of a node: opened once, hands out one store a group.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dtm_types::{ClusterId, GroupId, NodeId};
use parking_lot::Mutex;
use rocksdb::{WriteBatch, properties};

use super::config::StateConfig;
use super::engine::Engine;
use super::error::Error;
use super::group::GroupStore;
use super::keys;
use super::staging::Staging;

/// Leftovers looked at when a folder is opened: far more than groups can have.
const PREFIXES_MAX: usize = 1 << 20;

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// The state store of a node. Cloning shares it; the folder is released with the last clone, store,
/// frozen view and staging.
#[derive(Clone)]
pub struct StateDb {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    groups: Mutex<HashMap<GroupId, Arc<GroupStore>>>,
}

/// Sizes for an operator. Estimates of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFigures {
    /// Rows in memory, flushed or not, bytes.
    pub memory_bytes: u64,
    /// Live files, bytes.
    pub disk_bytes: u64,
    /// What background merging still has to rewrite, bytes.
    pub merge_debt_bytes: u64,
    /// Frozen views that are alive.
    pub frozen_views: u64,
    /// Background work that failed since the folder was opened, whether or not it was mended.
    pub background_errors: u64,
}

impl StateDb {
    /// Opens the folder, or makes it for `owner`; removes what a staging that never ended left.
    ///
    /// Checks whose folder it is before anything is written. Blocking.
    pub fn open(dir: &Path, owner: Owner, config: &StateConfig) -> Result<Self, Error> {
        let engine = Arc::new(Engine::open(dir, config)?);
        check_owner(&engine, owner)?;
        remove_leftovers(&engine)?;
        Ok(Self { inner: Arc::new(Inner { engine, groups: Mutex::default() }) })
    }

    /// The store of a group; the same one each time. A group that was never written is empty.
    pub fn group(&self, group: GroupId) -> Result<Arc<GroupStore>, Error> {
        if group == keys::OWN {
            return Err(Error::GroupReserved(group));
        }
        let mut groups = self.inner.groups.lock();
        if let Some(store) = groups.get(&group) {
            return Ok(Arc::clone(store));
        }
        let engine = &self.inner.engine;
        let generation = current_generation(engine, group)?;
        let store = Arc::new(GroupStore::new(Arc::clone(engine), group, generation));
        groups.insert(group, Arc::clone(&store));
        Ok(store)
    }

    /// Begins to replace a group's rows as a whole (a snapshot being received).
    pub fn stage(&self, group: GroupId) -> Result<Staging, Error> {
        Staging::begin(Arc::clone(&self.group(group)?.shared))
    }

    /// Removes all rows of a group, durably. Stores and stagings to come find it empty.
    pub fn drop_group(&self, group: GroupId) -> Result<(), Error> {
        let shared = Arc::clone(&self.group(group)?.shared);
        if shared.staging.load(Ordering::Acquire) {
            return Err(Error::StagingInProgress(group));
        }
        {
            let mut generation = shared.generation.write();
            let next = generation.checked_add(1).expect("a group is not dropped 4 billion times");
            let mut batch = WriteBatch::default();
            batch.put(keys::generation(group), next.to_be_bytes());
            batch.delete_range(keys::row(group, 0, &[]), keys::behind(group, u32::MAX));
            self.inner.engine.write(batch)?;
            *generation = next;
        }
        shared.reopen();
        self.inner.engine.flush()
    }

    /// Number of the last write. Compare with [`StateDb::flushed_sequence`].
    pub fn sequence(&self) -> u64 {
        self.inner.engine.db.latest_sequence_number()
    }

    /// Writes up to this number are known to be durable. It moves with flushes that were asked for;
    /// the engine may have flushed more (see [`GroupStore::get_durable`]).
    pub fn flushed_sequence(&self) -> u64 {
        self.inner.engine.flushed_sequence()
    }

    /// Makes everything written so far, in all groups, durable. Blocking; calls that wait for each
    /// other share one flush.
    pub fn flush(&self) -> Result<(), Error> {
        self.inner.engine.flush()
    }

    /// The first failure, when the store is closed for writing.
    pub fn fault(&self) -> Option<Error> {
        self.inner.engine.fault().cloned()
    }

    /// Sizes, read from the engine's counters; also set as gauges.
    pub fn figures(&self) -> StateFigures {
        let read = |name: &rocksdb::properties::PropName| {
            self.inner.engine.db.property_int_value(name).ok().flatten().unwrap_or(0)
        };
        let figures = StateFigures {
            memory_bytes: read(properties::CUR_SIZE_ALL_MEM_TABLES),
            disk_bytes: read(properties::LIVE_SST_FILES_SIZE),
            merge_debt_bytes: read(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            frozen_views: read(properties::NUM_SNAPSHOTS),
            background_errors: read(properties::BACKGROUND_ERRORS),
        };
        metrics::gauge!("dtm_state_memory_bytes").set(figures.memory_bytes as f64);
        metrics::gauge!("dtm_state_disk_bytes").set(figures.disk_bytes as f64);
        metrics::gauge!("dtm_state_merge_debt_bytes").set(figures.merge_debt_bytes as f64);
        metrics::gauge!("dtm_state_frozen_views").set(figures.frozen_views as f64);
        metrics::gauge!("dtm_state_background_errors").set(figures.background_errors as f64);
        figures
    }

    /// Copies what a crash at this moment would leave into another folder: for drills and tests.
    pub fn copy_as_crashed(&self, to: &Path) -> Result<(), Error> {
        let db = &self.inner.engine.db;
        db.disable_file_deletions().map_err(|e| Error::engine(&e))?;
        let copied = copy_files(&self.inner.engine.dir, to);
        db.enable_file_deletions().map_err(|e| Error::engine(&e))?;
        copied.map_err(|e| Error::Io { cause: format!("copy to {}: {e}", to.display()) })
    }
}

fn check_owner(engine: &Engine, owner: Owner) -> Result<(), Error> {
    let dir = || engine.dir.display().to_string();
    let Some(row) = engine.get(&keys::owner())? else {
        let mut any = engine.db.raw_iterator();
        any.seek_to_first();
        any.status().map_err(|e| Error::engine(&e))?;
        if any.valid() {
            return Err(Error::row("owner"));
        }
        let mut batch = WriteBatch::default();
        batch.put(keys::owner(), keys::encode_owner(&owner));
        engine.write(batch)?;
        return engine.flush();
    };
    let (found, known) = (keys::decode_owner(&row)?, keys::FORMAT);
    let (_, Some(found)) = found else {
        return Err(Error::Format { dir: dir(), found: found.0, known });
    };
    if found.cluster != owner.cluster {
        let (found, expected) = (found.cluster, owner.cluster);
        return Err(Error::OtherCluster { dir: dir(), found, expected });
    }
    if found.node != owner.node {
        return Err(Error::OtherNode { dir: dir(), found: found.node, expected: owner.node });
    }
    Ok(())
}

fn current_generation(engine: &Engine, group: GroupId) -> Result<u32, Error> {
    let row = engine.get(&keys::generation(group))?;
    row.map_or(Ok(0), |row| keys::decode_generation(&row))
}

/// Goes from one (group, generation) to the next and removes those that are not current.
fn remove_leftovers(engine: &Engine) -> Result<(), Error> {
    let mut batch = WriteBatch::default();
    let mut cursor = engine.db.raw_iterator();
    cursor.seek_to_first();
    for _ in 0..PREFIXES_MAX {
        let Some(key) = cursor.key() else { break };
        let (group, generation) = keys::split(key).ok_or_else(|| Error::row("prefix"))?;
        if group == keys::OWN {
            break;
        }
        let (from, to) = (keys::row(group, generation, &[]), keys::behind(group, generation));
        if generation != current_generation(engine, group)? {
            batch.delete_range(&from, &to);
        }
        cursor.seek(to);
    }
    cursor.status().map_err(|e| Error::engine(&e))?;
    drop(cursor);
    if batch.is_empty() {
        return Ok(());
    }
    tracing::info!(dir = %engine.dir.display(), ranges = batch.len(), "removed unfinished staging");
    engine.write(batch)?;
    engine.flush()
}

/// `CURRENT` and the manifest first, then the files: all that the manifest names exist by then, and
/// stay while deletions are off.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for tables in [false, true] {
        for entry in std::fs::read_dir(from)? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            if text.ends_with(".sst") == tables && text != "LOCK" {
                copy_file(&from.join(&name), &to.join(&name), tables)?;
            }
        }
    }
    Ok(())
}

/// Turning deletions off does not stop one that was under way: a table that goes between the listing
/// and the copy is one that no manifest names any more. Were it another, the copy would not open.
fn copy_file(from: &Path, to: &Path, is_table: bool) -> std::io::Result<()> {
    match std::fs::copy(from, to) {
        Err(error) if is_table && error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        copied => copied.map(|_| ()),
    }
}
