//! A log made to agree with another one: what is the same stays, what is damaged is filled, what
//! contradicts it is cut, what follows is added. For a damaged log, and for the replicas of a standby
//! before they go over to the next life.

use std::io;
use std::sync::Arc;

use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use futures::future::BoxFuture;
use tonic::Status;

use crate::log_store::{IndexRange, LogEntry, LogPosition, ReplicaLog, wait_flushed};
use crate::network::entries;

/// Answers asked for while one range is mended.
const ASKS_MAX: usize = 100_000;

/// A replica that is asked for its entries.
pub(crate) trait EntrySource: Send + Sync {
    /// Who it is, for what is told.
    fn name(&self) -> String;

    /// Asks for entries; `target` is filled in.
    fn ask(&self, request: wire::EntriesRequest) -> BoxFuture<'_, Result<entries::Answer, Status>>;
}

/// Why a log was not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not yet, or not from there.
    #[error("{0}")]
    Waiting(String),
    /// The log refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A log that takes another one over.
pub(crate) struct Adoption<'a> {
    pub(crate) group: GroupId,
    pub(crate) log: &'a Arc<dyn ReplicaLog>,
}

impl Adoption<'_> {
    fn missing(&self) -> Vec<IndexRange> {
        self.log.marks().recovering.map(|damage| damage.missing).unwrap_or_default()
    }

    /// Our own entry at an index, when it can be read.
    fn own(&self, index: u64) -> Option<LogEntry> {
        self.log.read(index..index + 1, 1).ok()?.pop()
    }

    /// Fills one gap from logs that hold the entry behind it, and so the same below it; what none of
    /// them gives stays a gap.
    ///
    /// # Errors
    /// Of our log.
    pub(crate) async fn fill(
        &self,
        sources: &[&dyn EntrySource],
        gap: IndexRange,
    ) -> Result<(), Error> {
        let behind = self.own(gap.to + 1).map(|entry| (entry.index, entry.term));
        let last = self.log.marks().last.filter(|last| last.index == gap.to);
        let Some((index, term)) = behind.or(last.map(|last| (last.index, last.term))) else {
            return Ok(());
        };
        let next = wire::LogId { term, leader: 0, index };
        let mut from = gap.from;
        for source in sources {
            for _ in 0..ASKS_MAX {
                let (to, next) = (gap.to, Some(next));
                let asked = wire::EntriesRequest { from, to, next, ..Default::default() };
                let Ok(answer) = source.ask(asked).await else { break };
                let is_dense = answer.entries.iter().zip(from..).all(|(e, at)| e.index == at);
                if !answer.holds_next || answer.entries.is_empty() || !is_dense {
                    break;
                }
                let count = answer.entries.len() as u64;
                from += count;
                metrics::counter!("dtm_cluster_entries_repaired_total").increment(count);
                wait_flushed(|done| self.log.store_records(answer.entries, done)).await?;
                if from > gap.to {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Makes our log agree with another one above what is applied: keeps what is the same, fills
    /// what is damaged, cuts what contradicts it, adds what follows. Goes through what that log held
    /// at the first answer; when it is cut below what was taken over this begins anew, later.
    ///
    /// # Errors
    /// [`Error::Waiting`] where that log ends below `applied`, changes meanwhile or is not given.
    pub(crate) async fn run(
        &self,
        source: &dyn EntrySource,
        applied: Option<u64>,
    ) -> Result<(), Error> {
        let waiting = |cause: String| Error::Waiting(format!("{} {cause}", source.name()));
        let mut pending: Vec<LogEntry> = Vec::new();
        let mut taken = Taken { last: None, next: applied.map_or(0, |applied| applied + 1) };
        let mut end = None;
        for _ in 0..ASKS_MAX {
            let (from, to) = (taken.from(), u64::MAX);
            let asked = wire::EntriesRequest { from, to, ..wire::EntriesRequest::default() };
            let answer = source.ask(asked).await;
            let answer =
                answer.map_err(|status| waiting(format!("ended: {}", status.message())))?;
            let end = *end.get_or_insert(answer.last.map_or(0, |last| last.index));
            if applied.is_some_and(|applied| end < applied) {
                return Err(waiting(format!("ends at {end}, below what is applied here")));
            }
            let page = taken.join(answer.entries).map_err(waiting)?;
            if page.is_empty() && taken.next <= end {
                return Err(waiting(format!("gives nothing at {}", taken.next)));
            }
            self.adopt_page(page, &mut pending).await?;
            if taken.next > end {
                return self.finish(pending, taken.next - 1).await;
            }
        }
        Err(waiting("gives too little at a time".to_owned()))
    }

    /// Everything through `end` was taken over, but for what is pending.
    async fn finish(&self, pending: Vec<LogEntry>, end: u64) -> Result<(), Error> {
        self.replace(pending).await?;
        // A gap behind the end of that log: held by nobody else, so never committed.
        if let Some(gap) = self.missing().into_iter().find(|range| range.to > end) {
            self.cut(gap.from.checked_sub(1)).await?;
        }
        Ok(wait_flushed(|done| self.log.declare_whole(done)).await?)
    }

    /// Takes over entries without holes. `pending` are those before them whose places are damaged
    /// here and of which it is not known yet whether our log goes on in the same way behind them.
    async fn adopt_page(
        &self,
        page: Vec<LogEntry>,
        pending: &mut Vec<LogEntry>,
    ) -> Result<(), Error> {
        let last = self.log.marks().last.map_or(0, |last| last.index);
        let mut page = page.into_iter();
        while let Some(entry) = page.next() {
            match self.own(entry.index) {
                Some(own) if LogPosition::of(&own) == LogPosition::of(&entry) => {
                    // The same entry, so the same log below it: the gap is filled in place.
                    let filled = std::mem::take(pending);
                    if !filled.is_empty() {
                        wait_flushed(|done| self.log.store_records(filled, done)).await?;
                    }
                }
                None if entry.index <= last => pending.push(entry),
                // Our log goes on otherwise, or ends here: all of this page follows instead.
                Some(_) | None => {
                    pending.push(entry);
                    pending.extend(page);
                    return self.replace(std::mem::take(pending)).await;
                }
            }
        }
        Ok(())
    }

    /// Our log ends before these entries, which follow instead.
    async fn replace(&self, entries: Vec<LogEntry>) -> Result<(), Error> {
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        if self.log.marks().last.is_some_and(|last| last.index >= first) {
            self.cut(first.checked_sub(1)).await?;
        }
        let last = self.log.marks().last;
        if let Some(last) = last.filter(|last| last.index.checked_add(1) != Some(first)) {
            let hole = format!("our log ends at {}, what follows begins at {first}", last.index);
            return Err(Error::Waiting(hole));
        }
        metrics::counter!("dtm_cluster_entries_repaired_total").increment(entries.len() as u64);
        Ok(wait_flushed(|done| self.log.append(entries, done)).await?)
    }

    async fn cut(&self, keep: Option<u64>) -> Result<(), Error> {
        let marks = self.log.marks();
        let purged = marks.purged.map_or(0, |purged| purged.index);
        if keep.unwrap_or(0) < purged {
            let cause = format!("it contradicts our log at or below {purged}, which is committed");
            return Err(Error::Waiting(cause));
        }
        let last = marks.last;
        tracing::warn!(
            group = self.group.0,
            ?keep,
            ?last,
            "log is cut: the rest is nobody's, or replaced"
        );
        Ok(wait_flushed(|done| self.log.truncate_after(keep, done)).await?)
    }
}

/// How far another log was taken over. Each page begins with the last entry of the one before: where
/// that is still the same all below it is, too, so that no two histories are spliced.
struct Taken {
    last: Option<LogPosition>,
    next: u64,
}

impl Taken {
    /// From where the next page is asked for.
    fn from(&self) -> u64 {
        self.last.map_or(self.next, |last| last.index)
    }

    /// What a page adds.
    fn join(&mut self, page: Vec<LogEntry>) -> Result<Vec<LogEntry>, String> {
        let mut page = page.into_iter();
        if let Some(last) = self.last
            && page.next().is_none_or(|entry| LogPosition::of(&entry) != last)
        {
            return Err(format!("no longer holds index {} as it did", last.index));
        }
        let page: Vec<LogEntry> = page.collect();
        if let Some((_, at)) = page.iter().zip(self.next..).find(|(entry, at)| entry.index != *at) {
            return Err(format!("lacks index {at} too"));
        }
        if let Some(entry) = page.last() {
            self.last = Some(LogPosition::of(entry));
            self.next = entry.index + 1;
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entries(term: u64, from: u64, to: u64) -> Vec<LogEntry> {
        let entry = |index| LogEntry { index, term, leader: 1, payload: Bytes::from_static(b"x") };
        (from..=to).map(entry).collect()
    }

    // holds: RAFT-1
    #[test]
    fn pages_of_two_histories_are_never_joined() {
        let mut taken = Taken { last: None, next: 7 };
        assert_eq!(taken.join(entries(3, 7, 20)).map(|page| page.len()), Ok(14));
        assert_eq!((taken.from(), taken.next), (20, 21));
        // It was deposed and its tail replaced from 15 on.
        assert!(taken.join(entries(4, 20, 40)).is_err());
        assert!(taken.join(Vec::new()).is_err(), "it was cut below");
        assert_eq!(taken.join(entries(3, 20, 20)), Ok(Vec::new()));
        let mut more = entries(3, 20, 22);
        more.extend(entries(5, 23, 30));
        assert_eq!(taken.join(more).map(|page| page.len()), Ok(10));
        assert!(taken.join([entries(5, 30, 31), entries(5, 33, 34)].concat()).is_err(), "a hole");
    }
}
