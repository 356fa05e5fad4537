//! Entries of a log for a replica that lost some of its own: asked for by index, never pushed.

use std::sync::Arc;
use std::time::Duration;

use dtm_proto::cluster as wire;
use tonic::Status;

use super::link::Link;
use crate::convert;
use crate::log_store::{LogEntry, LogError, LogPosition, READ_BYTES_MAX, ReplicaLog};

/// One answer holds at most this many entries, and about so many bytes.
const ENTRIES_MAX: u64 = 4_096;
const BYTES_MAX: usize = READ_BYTES_MAX;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a peer's log has of what was asked for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) entries: Vec<LogEntry>,
    /// Indexes were looked at through this one.
    pub(crate) through: u64,
    pub(crate) last: Option<wire::LogId>,
    pub(crate) holds_next: bool,
}

/// Asks one replica.
pub(crate) async fn ask(link: &Arc<Link>, request: wire::EntriesRequest) -> Result<Answer, Status> {
    let mut client = link.data();
    let asked = client.entries(link.guard().stamp(request));
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner();
    let wire::EntriesResponse { entries, through, last, holds_next, .. } = answer;
    let entries = entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?;
    Ok(Answer { entries, through, last, holds_next })
}

/// Answers from a log. Blocking: it reads the disk.
pub(crate) fn answer(
    log: &dyn ReplicaLog,
    applied: u64,
    request: &wire::EntriesRequest,
) -> wire::EntriesResponse {
    let marks = log.marks();
    let (last, purged) = (marks.last, marks.purged.map_or(0, |purged| purged.index));
    let held = Held { log, purged, applied };
    let holds_next = request.next.as_ref().is_some_and(|next| held.holds(last, next));
    let mut response = wire::EntriesResponse {
        last: last.map(|last| convert::log_id_to_wire(&convert::log_id_of(last))),
        applied,
        holds_next,
        through: request.from.saturating_sub(1),
        entries: Vec::new(),
    };
    if request.next.is_some() && !holds_next {
        return response;
    }
    let end = if request.committed { applied } else { last.map_or(0, |last| last.index) };
    let to = request.to.min(end).min(request.from.saturating_add(ENTRIES_MAX - 1));
    let mut bytes = 0;
    for index in request.from..=to {
        if let Ok(entry) = held.read(index) {
            bytes += entry.payload.len();
            if bytes > BYTES_MAX && !response.entries.is_empty() {
                return response;
            }
            response.entries.push(entry_to_wire(entry));
        }
        response.through = index;
    }
    // Nothing lies above the end: it was looked at in full.
    if to == end && request.to > end {
        response.through = request.to;
    }
    response
}

/// What one answer reads from.
struct Held<'a> {
    log: &'a dyn ReplicaLog,
    /// The purge mark when the answer began: it may rise meanwhile.
    purged: u64,
    applied: u64,
}

impl Held<'_> {
    /// An entry of the log, or a bundle below its purge mark.
    fn read(&self, index: u64) -> Result<LogEntry, LogError> {
        if index > self.purged
            && let Some(entry) = self.log.read(index..index.saturating_add(1), 1)?.pop()
        {
            return Ok(entry);
        }
        // What was purged is committed; anything above what is applied here may not be.
        if index > self.applied.max(self.purged) {
            return Err(LogError::NotFound(index));
        }
        self.log.read_record(index)
    }

    fn holds(&self, last: Option<LogPosition>, next: &wire::LogId) -> bool {
        let is_last = last.is_some_and(|last| (last.index, last.term) == (next.index, next.term));
        is_last || self.read(next.index).is_ok_and(|entry| entry.term == next.term)
    }
}

pub(super) fn entry_to_wire(entry: LogEntry) -> wire::Entry {
    let log_id = convert::log_id(entry.term, entry.leader, entry.index);
    wire::Entry { log_id: Some(convert::log_id_to_wire(&log_id)), payload: entry.payload }
}

pub(super) fn entry_from_wire(entry: wire::Entry) -> Result<LogEntry, Status> {
    let log_id = entry.log_id.ok_or_else(|| Status::invalid_argument("entry without log id"))?;
    let wire::LogId { term, leader, index } = log_id;
    Ok(LogEntry { index, term, leader, payload: entry.payload })
}
