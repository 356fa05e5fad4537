//! A log provider that tells the checker of votes what the log said about them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dtm_cluster::{
    Flushed, IndexRange, LogEntry, LogError, LogMarks, LogPosition, LogProvider, ReplicaLog,
    Scrubbed,
};
use dtm_types::{GroupId, ReplicaId};
use parking_lot::Mutex;

use crate::checker::Promises;

/// What `ready` of a replica's log returns.
type Ready<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), LogError>> + Send + 'a>>;

/// The outermost wrapper: what it sees is what openraft is told.
pub(super) struct WatchedLogs {
    pub(super) node: String,
    pub(super) inner: Arc<dyn LogProvider>,
    pub(super) promises: Arc<Mutex<Promises>>,
}

struct WatchedLog {
    replica: String,
    inner: Arc<dyn ReplicaLog>,
    promises: Arc<Mutex<Promises>>,
}

impl LogProvider for WatchedLogs {
    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError> {
        let inner = self.inner.open(group, replica)?;
        let replica = format!("{}/{group}/{replica}", self.node);
        let marks = inner.marks();
        // A replica that says it is not whole votes for nobody until it is.
        if marks.recovering.is_none() {
            self.promises.lock().found(&replica, marks.vote.as_ref());
        }
        Ok(Arc::new(WatchedLog { replica, inner, promises: Arc::clone(&self.promises) }))
    }

    fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        self.inner.replicas()
    }

    fn drop_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), LogError> {
        self.inner.drop_replica(group, replica)
    }

    fn segments(&self) -> Vec<u64> {
        self.inner.segments()
    }

    fn scrub(&self, segment: u64) -> Result<Scrubbed, LogError> {
        self.inner.scrub(segment)
    }

    fn stopped(&self) -> Option<String> {
        self.inner.stopped()
    }
}

impl ReplicaLog for WatchedLog {
    fn marks(&self) -> LogMarks {
        self.inner.marks()
    }

    fn ready(&self, bytes: usize) -> Ready<'_> {
        self.inner.ready(bytes)
    }

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.inner.append(entries, flushed)
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        self.promises.lock().asked(&self.replica, &vote);
        let (promises, replica, given) =
            (Arc::clone(&self.promises), self.replica.clone(), vote.clone());
        let told: Flushed = Box::new(move |done| {
            if done.is_ok() {
                promises.lock().given(&replica, &given);
            }
            flushed(done);
        });
        self.inner.save_vote(vote, told)
    }

    fn save_committed(&self, committed: Bytes) {
        self.inner.save_committed(committed);
    }

    fn truncate_after(&self, last: Option<u64>, flushed: Flushed) -> Result<(), LogError> {
        self.inner.truncate_after(last, flushed)
    }

    fn purge_to(&self, position: LogPosition) -> Result<(), LogError> {
        self.inner.purge_to(position)
    }

    fn reset(
        &self,
        position: LogPosition,
        visible_through: Option<u64>,
        flushed: Flushed,
    ) -> Result<(), LogError> {
        self.inner.reset(position, visible_through, flushed)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        self.inner.read(range, bytes_max)
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        self.inner.read_record(index)
    }

    fn store_records(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        self.inner.store_records(entries, flushed)
    }

    fn lacking(&self, through: u64) -> Result<Vec<IndexRange>, LogError> {
        self.inner.lacking(through)
    }

    fn declare_whole(&self, flushed: Flushed) -> Result<(), LogError> {
        self.inner.declare_whole(flushed)
    }

    fn release(&self, through: u64) {
        self.inner.release(through);
    }
}
