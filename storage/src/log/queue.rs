//! The bounded queue between the groups and the writer thread, and the room on disk.
//!
//! One lock guards both, so that an append is admitted only when the segments at hand can hold all
//! that is queued: a full disk is noticed before anything is written, never in the middle.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::block::{ALIGN_BYTES, HEADER_BYTES, VOTE_SPREAD_BYTES};
use super::error::{Error, StopReason};
use super::types::{Callback, LogEntry, LogPosition, ReplicaKey};

/// One thing to write.
pub(super) enum Op {
    /// New entries; the ticket is that of the first, the others follow.
    Append {
        entries: Vec<LogEntry>,
        first_ticket: u64,
        starts_log: bool,
    },
    /// Entries at known places: repair, snapshot.
    Records {
        entries: Vec<LogEntry>,
    },
    Vote(Bytes),
    Committed(Bytes),
    /// Keep entries up to the position; `None` keeps nothing above the purge mark. Here and in
    /// `Reset` the last word is the [`super::state::UNSURE`] flag, or 0.
    Truncate(Option<LogPosition>, u16),
    Purge(LogPosition),
    /// The position, and up to where older records stay visible.
    Reset(LogPosition, Option<u64>, u16),
    Whole,
    Drop,
}

/// One thing to write, for whom, and whom to tell.
pub(super) struct Request {
    pub(super) key: ReplicaKey,
    pub(super) op: Op,
    pub(super) done: Option<Callback>,
    /// Upper bound of what it takes on disk.
    pub(super) bytes: u64,
}

impl Request {
    pub(super) fn new(key: ReplicaKey, op: Op, done: Option<Callback>) -> Self {
        let block = |payload: usize| (HEADER_BYTES + payload + ALIGN_BYTES) as u64;
        let bytes = match &op {
            Op::Append { entries, .. } | Op::Records { entries } => {
                entries.iter().map(|entry| block(entry.payload.len())).sum()
            }
            Op::Vote(vote) => 2 * block(vote.len()) + VOTE_SPREAD_BYTES as u64,
            Op::Committed(committed) => block(committed.len()),
            Op::Reset(..) => block(8),
            Op::Truncate(..) | Op::Purge(_) | Op::Whole | Op::Drop => block(0),
        };
        Self { key, op, done, bytes }
    }

    /// Whether somebody relies on it being on disk.
    pub(super) fn needs_sync(&self) -> bool {
        !matches!(self.op, Op::Committed(_) | Op::Purge(_))
    }

    /// How much room it leaves to others on a disk that fills up.
    fn rank(&self) -> Rank {
        match self.op {
            Op::Append { .. } if self.bytes <= SMALL_APPEND_BYTES_MAX => Rank::Small,
            Op::Append { .. } => Rank::Entry,
            Op::Records { .. } => Rank::New,
            _ => Rank::Mark,
        }
    }
}

/// An append up to this size (a leader's blank entry, a change of members) is taken where larger
/// ones are not, so that a group with a full disk can still elect and confirm its leader.
const SMALL_APPEND_BYTES_MAX: u64 = 1 << 10;

/// Who is turned away first when the disk fills up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Asked for before it is proposed: leaves the slack to the others.
    New,
    /// Proposed already: may use half of the slack.
    Entry,
    /// May use the slack and half of what is kept at the end of the open segment.
    Small,
    /// Votes and marks: may use the slack and the end of the open segment.
    Mark,
}

/// What the writer is to do next.
pub(super) enum Work {
    /// Write these.
    Round(Vec<Request>),
    /// Nothing came for a while.
    Idle,
    /// The log is being closed and the queue is empty.
    Closed,
}

#[derive(Default)]
struct Inner {
    requests: VecDeque<Request>,
    queued_bytes: u64,
    /// Bytes of the round that the writer has in hand.
    inflight_bytes: u64,
    /// Bytes of the current and the spare segments that were promised to nobody.
    room_bytes: i64,
    /// Most room that somebody waits for; the preparer makes segments until it is there.
    demand_bytes: i64,
    /// No further segment can be made: short room means a full disk, not a short wait.
    is_full: bool,
    /// The preparer has something to look at.
    is_poked: bool,
    stopped: Option<StopReason>,
    is_closed: bool,
}

/// The queue.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Something came, or the queue was closed.
    filled: Condvar,
    /// Bytes left the queue, or the log stopped.
    drained: Condvar,
    /// Somebody needs another segment.
    demanded: Condvar,
    drained_async: tokio::sync::Notify,
    queue_bytes_max: u64,
    /// Room that appends leave to votes and marks, and for the unused end of a segment.
    slack_bytes: u64,
}

impl Queue {
    pub(super) fn new(queue_bytes_max: usize, slack_bytes: u64) -> Self {
        Self {
            inner: Mutex::new(Inner::default()),
            filled: Condvar::new(),
            drained: Condvar::new(),
            demanded: Condvar::new(),
            drained_async: tokio::sync::Notify::new(),
            queue_bytes_max: queue_bytes_max as u64,
            slack_bytes,
        }
    }

    /// Waits, off the async path, until the queue is below its bound or the log stops. The writer
    /// empties the queue round by round, so the wait is a few rounds at most.
    pub(super) fn wait_for_room(&self, bytes: u64) {
        let mut inner = self.inner.lock();
        while refusal(&inner, Rank::New, bytes, self.slack_bytes).is_none()
            && !self.has_room(&inner, bytes)
        {
            self.note_demand(&mut inner, bytes);
            self.drained.wait(&mut inner);
        }
    }

    fn has_room(&self, inner: &Inner, bytes: u64) -> bool {
        let fits_queue = inner.queued_bytes + bytes <= self.queue_bytes_max.max(bytes);
        fits_queue && inner.room_bytes >= signed(bytes + self.slack_bytes)
    }

    fn note_demand(&self, inner: &mut Inner, bytes: u64) {
        inner.demand_bytes = inner.demand_bytes.max(signed(bytes + self.slack_bytes));
        inner.is_poked = true;
        self.demanded.notify_all();
    }

    /// Admits a request or says why not. Does not block: the caller holds its group's lock.
    pub(super) fn push(&self, request: Request) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        if let Some(error) = refusal(&inner, request.rank(), request.bytes, self.slack_bytes) {
            if matches!(error, Error::DiskFull { .. }) {
                self.note_demand(&mut inner, request.bytes);
            }
            return Err(error);
        }
        inner.queued_bytes += request.bytes;
        inner.room_bytes -= signed(request.bytes);
        inner.requests.push_back(request);
        if inner.requests.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Whether `bytes` of payload would be taken now.
    pub(super) fn admits(&self, bytes: u64) -> Result<bool, Error> {
        let mut inner = self.inner.lock();
        if let Some(error) = refusal(&inner, Rank::New, bytes, self.slack_bytes) {
            self.note_demand(&mut inner, bytes);
            return Err(error);
        }
        let admits = self.has_room(&inner, bytes);
        if !admits {
            self.note_demand(&mut inner, bytes);
        }
        Ok(admits)
    }

    /// Waits until the queue has room for `bytes`. Cancel-safe.
    pub(super) async fn ready(&self, bytes: u64) -> Result<(), Error> {
        loop {
            let notified = self.drained_async.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.admits(bytes)? {
                return Ok(());
            }
            notified.await;
        }
    }

    /// The next round: everything pending up to `bytes_max`, at least one request.
    pub(super) fn next(&self, bytes_max: u64, idle: Option<Duration>) -> Work {
        let mut inner = self.inner.lock();
        while inner.requests.is_empty() {
            if inner.is_closed {
                return Work::Closed;
            }
            match idle {
                None => self.filled.wait(&mut inner),
                Some(idle) => {
                    let timed_out = self.filled.wait_for(&mut inner, idle).timed_out();
                    if timed_out && inner.requests.is_empty() && !inner.is_closed {
                        return Work::Idle;
                    }
                }
            }
        }
        let mut round = Vec::new();
        let mut bytes = 0;
        while let Some(request) = inner.requests.front() {
            if !round.is_empty() && bytes + request.bytes > bytes_max {
                break;
            }
            bytes += request.bytes;
            round.push(inner.requests.pop_front().expect("just seen"));
        }
        inner.queued_bytes -= bytes;
        inner.inflight_bytes = bytes;
        drop(inner);
        self.drained.notify_all();
        self.drained_async.notify_waiters();
        Work::Round(round)
    }

    /// Sets the room on disk to what the segments at hand still hold, less what is promised.
    /// With `is_round_done` the writer has nothing in hand any more.
    pub(super) fn set_room(&self, available_bytes: i64, is_full: bool, is_round_done: bool) {
        let mut inner = self.inner.lock();
        if is_round_done {
            inner.inflight_bytes = 0;
        }
        let promised = inner.queued_bytes + inner.inflight_bytes;
        inner.room_bytes = available_bytes - signed(promised);
        inner.is_full = is_full;
        if inner.room_bytes >= inner.demand_bytes {
            inner.demand_bytes = 0;
        }
        drop(inner);
        self.drained.notify_all();
        self.drained_async.notify_waiters();
    }

    /// True while somebody waits for more room than there is.
    pub(super) fn is_short(&self) -> bool {
        let inner = self.inner.lock();
        inner.room_bytes < inner.demand_bytes
    }

    /// Waits until the preparer is needed, the log ends, or `time` has passed.
    pub(super) fn wait_for_poke(&self, time: Duration) {
        let mut inner = self.inner.lock();
        if !inner.is_poked && inner.stopped.is_none() && !inner.is_closed {
            self.demanded.wait_for(&mut inner, time);
        }
        inner.is_poked = false;
    }

    /// Makes the preparer look.
    pub(super) fn poke(&self) {
        self.inner.lock().is_poked = true;
        self.demanded.notify_all();
    }

    /// True when nothing more will be written.
    pub(super) fn has_ended(&self) -> bool {
        let inner = self.inner.lock();
        inner.stopped.is_some() || inner.is_closed
    }

    /// Stops the log for good; keeps the first reason. Answers what was queued.
    pub(super) fn stop(&self, reason: StopReason) -> (StopReason, Vec<Request>) {
        let mut inner = self.inner.lock();
        let reason = inner.stopped.get_or_insert(reason).clone();
        inner.queued_bytes = 0;
        let left = inner.requests.drain(..).collect();
        drop(inner);
        self.drained.notify_all();
        self.drained_async.notify_waiters();
        (reason, left)
    }

    pub(super) fn stopped(&self) -> Option<StopReason> {
        self.inner.lock().stopped.clone()
    }

    pub(super) fn close(&self) {
        self.inner.lock().is_closed = true;
        self.filled.notify_all();
        self.demanded.notify_all();
        self.drained.notify_all();
        self.drained_async.notify_waiters();
    }
}

fn refusal(inner: &Inner, rank: Rank, bytes: u64, slack_bytes: u64) -> Option<Error> {
    if let Some(reason) = inner.stopped.clone() {
        return Some(Error::Stopped { reason });
    }
    if inner.is_closed {
        let reason = StopReason { doing: "close", cause: "the log was closed".into() };
        return Some(Error::Stopped { reason });
    }
    let needed = match rank {
        Rank::New => signed(bytes + slack_bytes),
        Rank::Entry => signed(bytes + slack_bytes / 2),
        Rank::Small => signed(bytes) - signed(slack_bytes),
        Rank::Mark => signed(bytes) - 2 * signed(slack_bytes),
    };
    let free_bytes = u64::try_from(inner.room_bytes).unwrap_or(0);
    (inner.is_full && inner.room_bytes < needed)
        .then_some(Error::DiskFull { needed_bytes: bytes, free_bytes })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("far below the range")
}
