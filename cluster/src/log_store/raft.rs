//! openraft's log storage over [`ReplicaLog`].
// Hot path: every replicated entry passes `append` and `limited_get_log_entries`.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use super::{Flushed, LogEntry, LogError, ReplicaLog};
use crate::applied::Applied;
use crate::convert;
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// What one append message or one step of apply takes at most, unless a single entry is larger.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;
const DISK_FULL_PAUSE: Duration = Duration::from_millis(100);

/// The writing side; openraft owns exactly one a replica.
pub(crate) struct LogStore {
    log: Arc<dyn ReplicaLog>,
    applied: Arc<Applied>,
}

impl LogStore {
    pub(crate) fn new(log: Arc<dyn ReplicaLog>, applied: Arc<Applied>) -> Self {
        Self { log, applied }
    }

    /// Waits for the log. A full disk holds the group up instead of ending it: it goes on when
    /// there is room (proposals are refused before they come here).
    async fn wait_for_room(&self, bytes: usize) -> io::Result<()> {
        loop {
            match self.log.ready(bytes).await {
                Ok(()) => return Ok(()),
                Err(LogError::DiskFull) => {
                    metrics::counter!("dtm_cluster_append_waits_for_disk_total").increment(1);
                    tokio::time::sleep(DISK_FULL_PAUSE).await;
                }
                Err(error) => return Err(to_io(error)),
            }
        }
    }
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
        wait_flushed(|flushed| self.log.save_vote(bytes, flushed)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.save_committed(convert::log_id_to_bytes(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.log.marks().committed;
        committed.map(|bytes| convert::log_id_from_bytes(&bytes).map_err(to_io)).transpose()
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
        self.wait_for_room(bytes).await?;
        let flushed =
            Box::new(move |done: Result<(), _>| callback.io_completed(done.map_err(to_io)));
        self.log.append(entries, flushed).map_err(to_io)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.map(|log_id| log_id.index);
        wait_flushed(|flushed| self.log.truncate_after(last, flushed)).await
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
        let last = self.log.marks().last.map_or(0, |last| last.index);
        if position.index > last {
            // A snapshot beyond our last entry was installed: the log starts anew above it.
            return wait_flushed(|flushed| self.log.reset(position, flushed)).await;
        }
        self.log.purge_to(position).map_err(to_io)
    }
}

/// Hands a callback over and waits until it ran.
pub(crate) async fn wait_flushed(
    start: impl FnOnce(Flushed) -> Result<(), LogError>,
) -> Result<(), io::Error> {
    let (sender, receiver) = oneshot::channel();
    start(Box::new(move |done: Result<(), LogError>| {
        sender.send(done).ok();
    }))
    .map_err(to_io)?;
    match receiver.await {
        Ok(done) => done.map_err(to_io),
        Err(_) => Err(io::Error::other("the log dropped a request without an answer")),
    }
}
