//! openraft's log storage over [`ReplicaLog`].
// Hot path: every replicated entry passes `append` and `limited_get_log_entries`.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Flushed, LogEntry, LogError, LogPosition, ReplicaLog};
use crate::applied::Applied;
use crate::convert;
use crate::missing::Missing;
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// What one append message or one step of apply takes at most, unless a single entry is larger.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;
const DISK_FULL_PAUSE: Duration = Duration::from_millis(100);

/// The writing side; openraft owns exactly one a replica.
pub(crate) struct LogStore {
    log: Arc<dyn ReplicaLog>,
    applied: Arc<Applied>,
    missing: Arc<Missing>,
}

impl LogStore {
    pub(crate) fn new(
        log: Arc<dyn ReplicaLog>,
        applied: Arc<Applied>,
        missing: Arc<Missing>,
    ) -> Self {
        Self { log, applied, missing }
    }

    /// Restarts the log behind rows that are ahead of it: of a snapshot, or because the log lost its
    /// unsynced tail while the rows were flushed. What was applied before stays readable.
    async fn restart_at(&self, position: LogPosition, last: Option<u64>) -> io::Result<()> {
        let shown = self.missing.restart_log(position.index, last.unwrap_or(0)).await?;
        self.change(|flushed| self.log.reset(position, Some(shown), flushed)).await
    }

    /// Runs one change to its answer. A full disk holds the group up instead of ending it.
    async fn change(
        &self,
        start: impl Fn(Flushed) -> Result<(), LogError>,
    ) -> Result<(), io::Error> {
        loop {
            match run(&start).await {
                Ok(()) => return Ok(()),
                Err(LogError::DiskFull) if !self.applied.is_closed() => wait_for_disk("log").await,
                Err(error) => return Err(to_io(error)),
            }
        }
    }
}

/// One try of something that the full disk refused before is a pause away; how often is counted.
pub(crate) async fn wait_for_disk(what: &'static str) {
    metrics::counter!("dtm_cluster_waits_for_disk_total", "what" => what).increment(1);
    tokio::time::sleep(DISK_FULL_PAUSE).await;
}

/// The reading side.
#[derive(Clone)]
pub(crate) struct LogReader {
    log: Arc<dyn ReplicaLog>,
}

impl LogReader {
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let stored = self.log.read(range, bytes_max).map_err(to_io)?;
        stored.into_iter().map(|entry| convert::entry_from_log(entry).map_err(to_io)).collect()
    }
}

fn to_io(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

fn to_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(to_range(&range), usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_BYTES_MAX)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let range = to_range(&range);
        let state = (self.clone(), range, Vec::new().into_iter());
        futures::stream::unfold(state, |(reader, mut range, mut ready)| async move {
            if let Some(entry) = ready.next() {
                return Some((Ok(entry), (reader, range, ready)));
            }
            if range.is_empty() {
                return None;
            }
            match reader.read(range.clone(), READ_BYTES_MAX) {
                Ok(entries) => {
                    ready = entries.into_iter();
                    let entry = ready.next()?;
                    range.start = entry.log_id.index + 1 + ready.len() as u64;
                    Some((Ok(entry), (reader, range, ready)))
                }
                Err(error) => {
                    range.start = range.end;
                    Some((Err(error), (reader, range, ready)))
                }
            }
        })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.marks().vote;
        vote.map(|bytes| convert::vote_from_bytes(&bytes).map_err(to_io)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let marks = self.log.marks();
        Ok(LogState {
            last_purged_log_id: marks.purged.map(convert::log_id_of),
            last_log_id: marks.last.map(convert::log_id_of),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { log: Arc::clone(&self.log) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = convert::vote_to_bytes(vote);
        self.change(|flushed| self.log.save_vote(bytes.clone(), flushed)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.save_committed(convert::log_id_to_bytes(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let marks = self.log.marks();
        let Some(bytes) = marks.committed else { return Ok(None) };
        let committed = convert::log_id_from_bytes(&bytes).map_err(to_io)?;
        // The mark may have reached the disk before the last entries that it counts. What is left
        // below it is committed all the same.
        let last = marks.last.map(convert::log_id_of);
        Ok(last.map(|last| if last.index < committed.index { last } else { committed }))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<LogEntry> =
            entries.into_iter().map(|e| convert::entry_to_log(&e)).collect();
        let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
        let callback = Arc::new(Mutex::new(Some(callback)));
        loop {
            // A full disk is said here first, but what is proposed already may use more of it.
            match self.log.ready(bytes).await {
                Ok(()) | Err(LogError::DiskFull) => {}
                Err(error) => return Err(to_io(error)),
            }
            let told = Arc::clone(&callback);
            let flushed = Box::new(move |done: Result<(), LogError>| {
                if let Some(callback) = told.lock().take() {
                    callback.io_completed(done.map_err(to_io));
                }
            });
            match self.log.append(entries.clone(), flushed) {
                Ok(()) => return Ok(()),
                Err(LogError::DiskFull) if !self.applied.is_closed() => wait_for_disk("log").await,
                Err(error) => return Err(to_io(error)),
            }
        }
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.map(|log_id| log_id.index);
        self.change(|flushed| self.log.truncate_after(last, flushed)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let position = convert::position(&log_id);
        let flushed = self.applied.flushed();
        if position.index > flushed {
            // ING-1: what is purged must be in rows that are on disk.
            let cause =
                format!("purge to {} ahead of the flushed rows at {flushed}", position.index);
            return Err(io::Error::other(cause));
        }
        let last = self.log.marks().last.map(|last| last.index);
        if last.is_none_or(|last| position.index > last) {
            return self.restart_at(position, last).await;
        }
        while let Err(error) = self.log.purge_to(position) {
            match error {
                LogError::DiskFull if !self.applied.is_closed() => wait_for_disk("log").await,
                error => return Err(to_io(error)),
            }
        }
        Ok(())
    }
}

/// Hands a callback over and waits until it ran.
pub(crate) async fn wait_flushed(
    start: impl FnOnce(Flushed) -> Result<(), LogError>,
) -> Result<(), io::Error> {
    run(start).await.map_err(to_io)
}

async fn run(start: impl FnOnce(Flushed) -> Result<(), LogError>) -> Result<(), LogError> {
    let (sender, receiver) = oneshot::channel();
    start(Box::new(move |done: Result<(), LogError>| {
        sender.send(done).ok();
    }))?;
    let dropped = |_| LogError::Engine("a request was dropped without an answer".to_owned());
    receiver.await.map_err(dropped)?
}
