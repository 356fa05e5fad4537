//! The in-memory twin of a replica's log: simulation and tests. It can lose what was not flushed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dtm_types::{GroupId, ReplicaId};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::{
    Flushed, IndexRange, LogEntry, LogError, LogMarks, LogPosition, LogProvider, ReplicaLog,
    Scrubbed,
};

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<u64, LogEntry>,
    marks: LogMarks,
    stopped: Option<String>,
}

/// A log in memory. Keep the `Arc` to restart a replica on what it held.
#[derive(Debug, Default)]
pub struct MemoryLog {
    inner: Mutex<Inner>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another log that holds the same.
    pub fn copy(&self) -> Self {
        let inner = self.inner.lock();
        let (entries, marks) = (inner.entries.clone(), inner.marks.clone());
        Self { inner: Mutex::new(Inner { entries, marks, stopped: None }) }
    }

    /// Fails everything from now on, as the fail-stop latch does.
    pub fn stop(&self, reason: &str) {
        self.inner.lock().stopped.get_or_insert_with(|| reason.to_owned());
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> Result<T, LogError> {
        let mut inner = self.inner.lock();
        match &inner.stopped {
            Some(reason) => Err(LogError::Stopped(reason.clone())),
            None => Ok(change(&mut inner)),
        }
    }
}

impl ReplicaLog for MemoryLog {
    fn marks(&self) -> LogMarks {
        self.inner.lock().marks.clone()
    }

    fn payload_bytes_max(&self) -> usize {
        usize::MAX
    }

    fn ready(&self, _bytes: usize) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async { self.with(|_| ()) })
    }

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.with(|inner| {
            for entry in entries {
                if let Some(last) = inner.marks.last {
                    assert_eq!(entry.index, last.index + 1, "no holes in a log");
                }
                inner.marks.last = Some(LogPosition::of(&entry));
                inner.entries.insert(entry.index, entry);
            }
        })?;
        flushed(Ok(()));
        Ok(())
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        self.with(|inner| inner.marks.vote = Some(vote))?;
        flushed(Ok(()));
        Ok(())
    }

    fn save_committed(&self, committed: Bytes) {
        self.with(|inner| inner.marks.committed = Some(committed)).ok();
    }

    fn truncate_after(&self, last: Option<u64>, flushed: Flushed) -> Result<(), LogError> {
        self.with(|inner| {
            let above_purged = inner.marks.purged.map_or(0, |p| p.index + 1);
            let from = last.map_or(0, |index| index + 1).max(above_purged);
            inner.entries.split_off(&from);
            let kept = inner.entries.range(above_purged..).next_back();
            inner.marks.last = kept.map(|(_, entry)| LogPosition::of(entry)).or(inner.marks.purged);
        })?;
        flushed(Ok(()));
        Ok(())
    }

    fn purge_to(&self, position: LogPosition) -> Result<(), LogError> {
        self.with(|inner| inner.marks.purged = Some(position))
    }

    fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        flushed: Flushed,
    ) -> Result<(), LogError> {
        self.with(|inner| {
            inner.entries.split_off(&visible_through.map_or(0, |index| index + 1));
            inner.marks.purged = Some(position);
            inner.marks.last = Some(position);
        })?;
        flushed(Ok(()));
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        self.with(|inner| {
            let from = inner.marks.purged.map_or(0, |p| p.index + 1).max(range.start);
            let mut bytes = 0;
            let mut found = Vec::new();
            for (_, entry) in inner.entries.range(from..range.end.max(from)) {
                if !found.is_empty() && bytes + entry.payload.len() > bytes_max {
                    break;
                }
                bytes += entry.payload.len();
                found.push(entry.clone());
            }
            found
        })
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        self.with(|inner| inner.entries.get(&index).cloned())?.ok_or(LogError::NotFound(index))
    }

    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.with(|inner| {
            inner.entries.extend(entries.into_iter().map(|entry| (entry.index, entry)));
        })?;
        flushed(Ok(()));
        Ok(())
    }

    fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, LogError> {
        self.with(|inner| {
            let absent = (1..=through).filter(|index| !inner.entries.contains_key(index));
            absent.map(|index| IndexRange { from: index, to: index }).collect()
        })
    }

    fn declare_whole(&self, flushed: Flushed) -> Result<(), LogError> {
        self.with(|_| ())?;
        flushed(Ok(()));
        Ok(())
    }

    fn release(&self, _through: u64) {}
}

/// The logs of a node in memory; keep it to restart the node on what it held.
#[derive(Debug, Default)]
pub struct MemoryLogs {
    logs: Mutex<BTreeMap<(GroupId, ReplicaId), Arc<MemoryLog>>>,
}

impl LogProvider for MemoryLogs {
    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError> {
        let mut logs = self.logs.lock();
        let log: Arc<MemoryLog> = Arc::clone(logs.entry((group, replica)).or_default());
        Ok(log)
    }

    fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        self.logs.lock().keys().copied().collect()
    }

    fn drop_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), LogError> {
        self.logs.lock().remove(&(group, replica));
        Ok(())
    }

    fn segments(&self) -> Vec<u64> {
        Vec::new()
    }

    fn scrub(&self, _segment: u64) -> Result<Scrubbed, LogError> {
        Ok(Scrubbed::default())
    }

    fn stopped(&self) -> Option<String> {
        self.logs.lock().values().find_map(|log| log.inner.lock().stopped.clone())
    }
}
