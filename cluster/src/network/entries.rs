//! Entries of a log for a replica that lost some of its own: asked for by index, never pushed.

use std::sync::Arc;
use std::time::Duration;

use dtm_proto::cluster as wire;
use dtm_types::GroupId;
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
    let group = request.target.as_ref().map_or(GroupId::META.0, |target| target.group);
    let mut client = link.copies(group);
    let asked = client.entries(link.guard().stamp(request));
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner();
    let wire::EntriesResponse { entries, through, last, holds_next, .. } = answer;
    let entries = entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?;
    Ok(Answer { entries, through, last, holds_next })
}

/// Answers from a log. Blocking: it reads the disk.
///
/// What of an answer lies above the purge mark is of the log as it was at one moment. With `next` all
/// of it lies below that entry in one log.
pub(crate) fn answer(
    log: &dyn ReplicaLog,
    applied: u64,
    request: &wire::EntriesRequest,
) -> wire::EntriesResponse {
    let last = log.marks().last;
    let holds_next = || request.next.as_ref().is_some_and(|next| holds(log, next));
    let nothing = wire::EntriesResponse {
        last: last.map(|last| convert::log_id_to_wire(&convert::log_id_of(last))),
        applied,
        holds_next: false,
        through: request.from.saturating_sub(1),
        entries: Vec::new(),
    };
    if request.next.is_some() && !holds_next() {
        return nothing;
    }
    let end = if request.committed { applied } else { last.map_or(0, |last| last.index) };
    let to = request.to.min(end).min(request.from.saturating_add(ENTRIES_MAX - 1));
    let (entries, mut through) = page(log, request.from, to);
    // A log that was cut meanwhile may have gone on otherwise.
    let holds_next = holds_next();
    if request.next.is_some() && !holds_next {
        return nothing;
    }
    // Nothing lies above the end: it was looked at in full.
    if to == end && through >= to && request.to > end {
        through = request.to;
    }
    let entries = entries.into_iter().map(entry_to_wire).collect();
    wire::EntriesResponse { holds_next, through, entries, ..nothing }
}

/// What is held of `from..=to`, as much as one answer takes, and through which index that looked:
/// bundles below the purge mark, which are committed, then the log at one moment.
pub(crate) fn page(log: &dyn ReplicaLog, from: u64, to: u64) -> (Vec<LogEntry>, u64) {
    let purged = log.marks().purged.map_or(0, |purged| purged.index);
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for index in from..=to.min(purged) {
        let Ok(entry) = log.read_record(index) else { continue };
        bytes += entry.payload.len();
        if bytes > BYTES_MAX && !entries.is_empty() {
            return (entries, index - 1);
        }
        entries.push(entry);
    }
    let first = from.max(purged + 1);
    if first > to {
        return (entries, to.max(from.saturating_sub(1)));
    }
    let mut end = to;
    loop {
        match log.read(first..end + 1, BYTES_MAX.saturating_sub(bytes)) {
            Ok(found) => {
                let through = found.last().map_or(end, |last| last.index);
                entries.extend(found);
                return (entries, through);
            }
            // What lies below the damage is given; it ends here.
            Err(LogError::Damaged(at)) if (first + 1..=end).contains(&at) => end = at - 1,
            Err(_) => return (entries, first),
        }
    }
}

/// Where the entry at an index stands, where it is held.
pub(crate) fn position_at(log: &dyn ReplicaLog, index: u64) -> Option<LogPosition> {
    let (found, _) = page(log, index, index);
    found.first().filter(|entry| entry.index == index).map(LogPosition::of)
}

fn holds(log: &dyn ReplicaLog, next: &wire::LogId) -> bool {
    let is_last =
        log.marks().last.is_some_and(|last| (last.index, last.term) == (next.index, next.term));
    let (found, _) = page(log, next.index, next.index);
    is_last || found.first().is_some_and(|entry| entry.term == next.term)
}

pub(crate) fn entry_to_wire(entry: LogEntry) -> wire::Entry {
    let log_id = convert::log_id(entry.term, entry.leader, entry.index);
    wire::Entry { log_id: Some(convert::log_id_to_wire(&log_id)), payload: entry.payload }
}

pub(crate) fn entry_from_wire(entry: wire::Entry) -> Result<LogEntry, Status> {
    let log_id = entry.log_id.ok_or_else(|| Status::invalid_argument("entry without log id"))?;
    let wire::LogId { term, leader, index } = log_id;
    Ok(LogEntry { index, term, leader, payload: entry.payload })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::log_store::MemoryLog;

    fn entries(term: u64, from: u64, to: u64) -> Vec<LogEntry> {
        let entry = |index| LogEntry { index, term, leader: 1, payload: Bytes::from_static(b"x") };
        (from..=to).map(entry).collect()
    }

    fn ask_all(next: Option<wire::LogId>) -> wire::EntriesRequest {
        wire::EntriesRequest { from: 1, to: u64::MAX, next, ..wire::EntriesRequest::default() }
    }

    // holds: RAFT-1
    #[test]
    fn an_answer_is_of_one_log_while_the_tail_is_replaced() {
        let log = MemoryLog::new();
        log.append(entries(1, 1, 50), Box::new(|_| {})).expect("appends");
        let (is_over, mut spliced) = (AtomicBool::new(false), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for term in (2..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    log.truncate_after(Some(50), Box::new(|_| {})).expect("cuts");
                    log.append(entries(term, 51, 400), Box::new(|_| {})).expect("appends");
                }
            });
            for round in 0..3_000u64 {
                let next = wire::LogId { term: 1, leader: 1, index: 50 };
                let answer = answer(&log, 0, &ask_all((round % 2 == 0).then_some(next)));
                let terms = answer.entries.iter().filter_map(|entry| entry.log_id.as_ref());
                let mut tail: Vec<u64> = terms.skip(50).map(|log_id| log_id.term).collect();
                tail.dedup();
                if tail.len() > 1 {
                    spliced.push(tail);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(spliced, Vec::<Vec<u64>>::new(), "terms of several logs in one answer");
    }

    #[test]
    fn an_answer_ends_with_the_log_and_says_how_far_it_looked() {
        let log = MemoryLog::new();
        log.append(entries(1, 1, 50), Box::new(|_| {})).expect("appends");
        let held = wire::LogId { term: 1, leader: 1, index: 50 };
        for (next, is_given) in
            [(None, true), (Some(held), true), (Some(wire::LogId { term: 2, ..held }), false)]
        {
            let found = answer(&log, 0, &ask_all(next));
            assert_eq!(found.holds_next, is_given && next.is_some());
            let through = if is_given { (50, u64::MAX) } else { (0, 0) };
            assert_eq!((found.entries.len() as u64, found.through), through);
        }
        log.purge_to(crate::log_store::LogPosition { index: 20, term: 1, leader: 1 })
            .expect("purged");
        let committed = wire::EntriesRequest { committed: true, ..ask_all(None) };
        assert_eq!(answer(&log, 30, &committed).entries.len(), 30);
        let some = wire::EntriesRequest { from: 15, to: 25, ..ask_all(None) };
        let found = answer(&log, 30, &some);
        assert_eq!((found.entries.len(), found.through), (11, 25));
    }
}
