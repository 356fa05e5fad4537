//! Logs with one bug each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use dtm_chaos::sandbox::Seams;
use dtm_cluster::{Flushed, LogEntry, LogError, LogMarks, LogProvider, MemoryLog, ReplicaLog};
use dtm_testkit::{Wrapped, WrappedLog, WrappedLogs};
use dtm_types::{GroupId, ReplicaId};
use parking_lot::Mutex;

/// Entries that an overlong cut takes with it.
const CUT: u64 = 8;

/// The bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogBug {
    /// A vote is kept in memory and said to be on disk.
    VoteNotSynced,
    /// What lies behind damage is thrown away as if it were a torn tail.
    MiddleTakenForTail,
    /// Opening cuts more of the tail than was torn.
    TailCutPastCommit,
    /// A read of one index gives the entry of another.
    MisdirectedRead,
    /// A node whose disk was replaced goes on under the replica ids it had.
    ReplicaIdReused,
}

/// Puts the bug into every node's log, or one node's.
pub(crate) struct FaultyLogs {
    bug: LogBug,
    only: Option<usize>,
    armed: Arc<AtomicBool>,
    /// Replica ids that each node ever had: what the faulty allocator remembers.
    known: Arc<Mutex<Vec<(usize, GroupId, ReplicaId)>>>,
}

impl FaultyLogs {
    pub(crate) fn on_all(bug: LogBug) -> Arc<Self> {
        Arc::new(Self { bug, only: None, armed: Arc::default(), known: Arc::default() })
    }

    pub(crate) fn on(bug: LogBug, node: usize) -> Arc<Self> {
        Arc::new(Self { bug, only: Some(node), armed: Arc::default(), known: Arc::default() })
    }
}

impl Seams for FaultyLogs {
    fn logs(&self, node: usize, inner: Arc<dyn LogProvider>) -> Arc<dyn LogProvider> {
        if self.only.is_some_and(|only| only != node) {
            return inner;
        }
        let (armed, known) = (Arc::clone(&self.armed), Arc::clone(&self.known));
        Arc::new(Wrapped(Provider { node, bug: self.bug, armed, known, inner }))
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

struct Provider {
    node: usize,
    bug: LogBug,
    armed: Arc<AtomicBool>,
    known: Arc<Mutex<Vec<(usize, GroupId, ReplicaId)>>>,
    inner: Arc<dyn LogProvider>,
}

impl WrappedLogs for Provider {
    fn inner(&self) -> &dyn LogProvider {
        &*self.inner
    }

    fn open(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<dyn ReplicaLog>, LogError> {
        let inner = self.inner.open(group, replica)?;
        self.known.lock().push((self.node, group, replica));
        let marks = inner.marks();
        let inner = match self.bug {
            LogBug::MiddleTakenForTail if marks.recovering.is_some() => readable_prefix(&*inner)?,
            LogBug::TailCutPastCommit if marks.last.is_some_and(|last| last.index > CUT) => {
                let last = marks.last.map_or(0, |last| last.index);
                wait(|flushed| inner.truncate_after(Some(last - CUT), flushed))?;
                inner
            }
            _ => inner,
        };
        let (bug, armed) = (self.bug, Arc::clone(&self.armed));
        Ok(Arc::new(Wrapped(Log { bug, armed, vote: Mutex::new(None), inner })))
    }

    fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        let found = self.inner.replicas();
        if self.bug != LogBug::ReplicaIdReused || !found.is_empty() {
            return found;
        }
        let known = self.known.lock();
        let own = known.iter().filter(|(node, ..)| *node == self.node);
        own.map(|&(_, group, replica)| (group, replica)).collect()
    }
}

fn wait(call: impl FnOnce(Flushed) -> Result<(), LogError>) -> Result<(), LogError> {
    let (sender, receiver) = sync_channel(1);
    call(Box::new(move |done| drop(sender.send(done))))?;
    receiver.recv_timeout(Duration::from_secs(20)).expect("the log answers")
}

/// The entries before the first one that cannot be read, as a log of their own.
fn readable_prefix(damaged: &dyn ReplicaLog) -> Result<Arc<dyn ReplicaLog>, LogError> {
    let marks = damaged.marks();
    let log = MemoryLog::new();
    if let Some(purged) = marks.purged {
        wait(|flushed| log.reset(purged, None, flushed))?;
    }
    if let Some(vote) = marks.vote {
        wait(|flushed| log.save_vote(vote, flushed))?;
    }
    let first = marks.purged.map_or(0, |purged| purged.index + 1);
    for index in first..=marks.last.map_or(0, |last| last.index) {
        match damaged.read(index..index + 1, usize::MAX) {
            Ok(entries) => wait(|flushed| log.append(entries, flushed))?,
            Err(_) => break,
        }
    }
    Ok(Arc::new(log))
}

struct Log {
    bug: LogBug,
    armed: Arc<AtomicBool>,
    vote: Mutex<Option<Bytes>>,
    inner: Arc<dyn ReplicaLog>,
}

impl WrappedLog for Log {
    fn inner(&self) -> &dyn ReplicaLog {
        &*self.inner
    }

    fn marks(&self) -> LogMarks {
        let mut marks = self.inner.marks();
        if let Some(vote) = &*self.vote.lock() {
            marks.vote = Some(vote.clone());
        }
        let last = marks.last.map_or(0, |last| last.index);
        if self.bug == LogBug::TailCutPastCommit && last > CUT {
            marks.committed = None;
        }
        marks
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) -> Result<(), LogError> {
        if self.bug == LogBug::VoteNotSynced && self.armed.load(Ordering::SeqCst) {
            *self.vote.lock() = Some(vote);
            flushed(Ok(()));
            return Ok(());
        }
        self.inner.save_vote(vote, flushed)
    }

    fn read_record(&self, index: u64) -> Result<LogEntry, LogError> {
        let is_misdirected = self.bug == LogBug::MisdirectedRead
            && self.armed.load(Ordering::SeqCst)
            && index.is_multiple_of(7);
        self.inner.read_record(if is_misdirected { index - 1 } else { index })
    }
}
