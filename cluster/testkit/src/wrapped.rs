//! Seams with something put around them: a log or rows that differ from those inside in few methods.
//!
//! Each trait names the methods that some wrapper changes; [`Wrapped`] passes all others on.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dtm_cluster::{
    Flushed, IndexRange, LogEntry, LogError, LogMarks, LogPosition, LogProvider, ReplicaLog,
    Scrubbed, StagedState, StateProvider,
};
use dtm_machine::seams::{StateBatch, StateError, StateRead, StateStore};
use dtm_types::{GroupId, ReplicaId};
use futures::future::BoxFuture;

/// What stands in a seam for the one inside.
#[derive(Debug)]
pub struct Wrapped<W>(pub W);

/// Logs of a node that differ from those inside.
pub trait WrappedLogs: Send + Sync + 'static {
    /// The true ones.
    fn inner(&self) -> &dyn LogProvider;

    /// See [`LogProvider::open`].
    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError>;

    /// See [`LogProvider::replicas`].
    fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        self.inner().replicas()
    }
}

impl<W: WrappedLogs> LogProvider for Wrapped<W> {
    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError> {
        self.0.open(group, replica)
    }

    fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        self.0.replicas()
    }

    fn drop_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), LogError> {
        self.0.inner().drop_replica(group, replica)
    }

    fn segments(&self) -> Vec<u64> {
        self.0.inner().segments()
    }

    fn scrub(&self, segment: u64) -> Result<Scrubbed, LogError> {
        self.0.inner().scrub(segment)
    }

    fn stopped(&self) -> Option<String> {
        self.0.inner().stopped()
    }
}

/// A log that differs from the one inside.
pub trait WrappedLog: Send + Sync + 'static {
    /// The true one.
    fn inner(&self) -> &dyn ReplicaLog;

    /// See [`ReplicaLog::marks`].
    fn marks(&self) -> LogMarks {
        self.inner().marks()
    }

    /// See [`ReplicaLog::ready`].
    fn ready(&self, bytes: usize) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner().ready(bytes)
    }

    /// See [`ReplicaLog::append`].
    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.inner().append(entries, flushed)
    }

    /// See [`ReplicaLog::save_vote`].
    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        self.inner().save_vote(vote, flushed)
    }

    /// See [`ReplicaLog::read_record`].
    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        self.inner().read_record(index)
    }

    /// See [`ReplicaLog::store_records`].
    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.inner().store_records(entries, flushed)
    }
}

impl<W: WrappedLog> ReplicaLog for Wrapped<W> {
    fn marks(&self) -> LogMarks {
        self.0.marks()
    }

    fn payload_bytes_max(&self) -> usize {
        self.0.inner().payload_bytes_max()
    }

    fn ready(&self, bytes: usize) -> BoxFuture<'_, Result<(), LogError>> {
        self.0.ready(bytes)
    }

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.0.append(entries, flushed)
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        self.0.save_vote(vote, flushed)
    }

    fn save_committed(&self, committed: Bytes) {
        self.0.inner().save_committed(committed);
    }

    fn truncate_after(&self, last: Option<u64>, flushed: Flushed) -> Result<(), LogError> {
        self.0.inner().truncate_after(last, flushed)
    }

    fn purge_to(&self, position: LogPosition) -> Result<(), LogError> {
        self.0.inner().purge_to(position)
    }

    fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        flushed: Flushed,
    ) -> Result<(), LogError> {
        self.0.inner().reset(position, visible_through, flushed)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        self.0.inner().read(range, bytes_max)
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        self.0.read_record(index)
    }

    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.0.store_records(entries, flushed)
    }

    fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, LogError> {
        self.0.inner().lacking(through)
    }

    fn declare_whole(&self, flushed: Flushed) -> Result<(), LogError> {
        self.0.inner().declare_whole(flushed)
    }

    fn release(&self, through: u64) {
        self.0.inner().release(through);
    }
}

/// Rows of a node that differ from those inside.
pub trait WrappedStates: Send + Sync + 'static {
    /// The true ones.
    fn inner(&self) -> &dyn StateProvider;

    /// See [`StateProvider::open`].
    fn open(&self, group: GroupId) -> Result<Arc<dyn StateStore>, StateError>;

    /// See [`StateProvider::stage`].
    fn stage(&self, group: GroupId) -> Result<Box<dyn StagedState>, StateError> {
        self.inner().stage(group)
    }

    /// See [`StateProvider::fault`].
    fn fault(&self) -> Option<String> {
        self.inner().fault()
    }
}

impl<W: WrappedStates> StateProvider for Wrapped<W> {
    fn open(&self, group: GroupId) -> Result<Arc<dyn StateStore>, StateError> {
        self.0.open(group)
    }

    fn stage(&self, group: GroupId) -> Result<Box<dyn StagedState>, StateError> {
        self.0.stage(group)
    }

    fn clear(&self, group: GroupId) -> Result<(), StateError> {
        self.0.inner().clear(group)
    }

    fn damage(&self, group: GroupId) -> Option<String> {
        self.0.inner().damage(group)
    }

    fn fault(&self) -> Option<String> {
        self.0.fault()
    }

    fn note_peers(&self, note: &[u8]) -> std::io::Result<()> {
        self.0.inner().note_peers(note)
    }

    fn noted_peers(&self) -> Vec<u8> {
        self.0.inner().noted_peers()
    }
}

/// Rows of a group that differ from those inside.
pub trait WrappedState: Send + Sync {
    /// The true ones.
    fn inner(&self) -> &dyn StateStore;

    /// See [`StateStore::write`].
    fn write(&self, batch: &StateBatch) -> Result<(), StateError> {
        self.inner().write(batch)
    }

    /// See [`StateStore::flush`].
    fn flush(&self) -> Result<(), StateError> {
        self.inner().flush()
    }

    /// See [`StateStore::freeze`].
    fn freeze(&self) -> Arc<dyn StateRead> {
        self.inner().freeze()
    }
}

impl<W: WrappedState> StateRead for Wrapped<W> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.0.inner().get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        self.0.inner().scan(from, to, limit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StateError> {
        self.0.inner().last(from, to)
    }

    fn group(&self) -> GroupId {
        self.0.inner().group()
    }
}

impl<W: WrappedState> StateStore for Wrapped<W> {
    fn write(&self, batch: &StateBatch) -> Result<(), StateError> {
        self.0.write(batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.0.flush()
    }

    fn freeze(&self) -> Arc<dyn StateRead> {
        self.0.freeze()
    }
}
