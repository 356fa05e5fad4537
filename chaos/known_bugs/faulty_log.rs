//! Logs with one bug each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use dtm_chaos::sandbox::Seams;
use dtm_cluster::{Flushed, LogEntry, LogError, LogMarks, LogProvider, MemoryLog, ReplicaLog};
use dtm_testkit::{Wrapped, WrappedLog, WrappedLogs};
use dtm_types::command::AppendBatch;
use dtm_types::command::command::Op;
use dtm_types::{GroupId, ReplicaId, bundle};
use parking_lot::Mutex;
use prost::Message;

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
    /// A batch that is read back holds another record than was stored, and every checksum fits.
    OtherRecord,
    /// A log that was opened again does not say that what is appended is on disk.
    MuteAfterRestart,
}

/// Puts the bug into every node's log, or one node's.
pub(crate) struct FaultyLogs {
    bug: LogBug,
    only: Option<usize>,
    armed: Arc<AtomicBool>,
    /// Replica ids that each node ever had: what the faulty allocator remembers.
    known: Arc<Mutex<Vec<(usize, GroupId, ReplicaId)>>>,
    untold: Arc<Untold>,
}

/// What a mute log did not say; nothing once it speaks again.
#[derive(Default)]
struct Untold(Mutex<Option<Vec<Answer>>>);

type Answer = Box<dyn FnOnce() + Send>;

impl Untold {
    /// Kept while the log is mute, else said.
    fn tell(&self, answer: Answer) {
        if let Some(untold) = &mut *self.0.lock() {
            return untold.push(answer);
        }
        answer();
    }
}

impl FaultyLogs {
    pub(crate) fn on_all(bug: LogBug) -> Arc<Self> {
        Self::made(bug, None)
    }

    pub(crate) fn on(bug: LogBug, node: usize) -> Arc<Self> {
        Self::made(bug, Some(node))
    }

    fn made(bug: LogBug, only: Option<usize>) -> Arc<Self> {
        let untold = Arc::new(Untold(Mutex::new(Some(Vec::new()))));
        Arc::new(Self { bug, only, armed: Arc::default(), known: Arc::default(), untold })
    }

    /// A mute log speaks again: a node cannot be stopped while it waits for its log. How many answers
    /// it had kept to itself.
    pub(crate) fn unmute(&self) -> usize {
        let untold = self.untold.0.lock().take().unwrap_or_default();
        let count = untold.len();
        untold.into_iter().for_each(|answer| answer());
        count
    }
}

impl Seams for FaultyLogs {
    fn logs(&self, node: usize, inner: Arc<dyn LogProvider>) -> Arc<dyn LogProvider> {
        if self.only.is_some_and(|only| only != node) {
            return inner;
        }
        let (armed, known) = (Arc::clone(&self.armed), Arc::clone(&self.known));
        let untold = Arc::clone(&self.untold);
        Arc::new(Wrapped(Provider { node, bug: self.bug, armed, known, untold, inner }))
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
    untold: Arc<Untold>,
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
        let is_mute = bug == LogBug::MuteAfterRestart && armed.load(Ordering::SeqCst);
        let mute = is_mute.then(|| Arc::clone(&self.untold));
        Ok(Arc::new(Wrapped(Log { bug, armed, mute, vote: Mutex::new(None), inner })))
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
    mute: Option<Arc<Untold>>,
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

    fn append(&self, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        // What is asked without entries is asked at the start: a node that does not start is seen.
        let mute = self.mute.as_ref().filter(|_| !entries.is_empty());
        let Some(untold) = mute.cloned() else {
            return self.inner.append(entries, flushed);
        };
        let answer = move |done| untold.tell(Box::new(move || flushed(done)));
        self.inner.append(entries, Box::new(answer))
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
        let mut entry = self.inner.read_record(if is_misdirected { index - 1 } else { index })?;
        if self.bug == LogBug::OtherRecord && self.armed.load(Ordering::SeqCst) {
            entry.payload = other_record(&entry.payload).unwrap_or(entry.payload);
        }
        Ok(entry)
    }
}

/// The same bundle with another first record in its batches, under a checksum of its own.
fn other_record(payload: &Bytes) -> Option<Bytes> {
    let bundle = bundle::decode(payload).ok()?;
    let mut builder = bundle::Builder::new(bundle.time_us, bundle.node[..].try_into().ok()?, 0);
    for mut command in bundle.commands {
        if let Some(Op::AppendBatch(AppendBatch { body: Some(body), .. })) = &mut command.op {
            let mut hashes = body.record_hashes.to_vec();
            hashes[0] ^= 1;
            body.record_hashes = hashes.into();
        }
        builder.push(&command.encode_to_vec());
    }
    Some(builder.finish())
}
