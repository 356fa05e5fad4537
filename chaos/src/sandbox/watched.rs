//! A log provider that tells the checker of votes what the log said about them.

use std::sync::Arc;

use bytes::Bytes;
use dtm_cluster::{Flushed, LogError, LogProvider, ReplicaLog};
use dtm_testkit::{Wrapped, WrappedLog, WrappedLogs};
use dtm_types::{GroupId, ReplicaId};
use parking_lot::Mutex;

use crate::checker::Promises;

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

impl WrappedLogs for WatchedLogs {
    fn inner(&self) -> &dyn LogProvider {
        &*self.inner
    }

    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError> {
        let inner = self.inner.open(group, replica)?;
        let replica = format!("{}/{group}/{replica}", self.node);
        let marks = inner.marks();
        // A replica that says it is not whole votes for nobody until it is.
        if marks.recovering.is_none() {
            self.promises.lock().found(&replica, marks.vote.as_ref());
        }
        Ok(Arc::new(Wrapped(WatchedLog { replica, inner, promises: Arc::clone(&self.promises) })))
    }
}

impl WrappedLog for WatchedLog {
    fn inner(&self) -> &dyn ReplicaLog {
        &*self.inner
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
}
