//! What the answers of open reads take of the node's memory. Owner of the state: [`Ahead`].
//!
//! ```text
//!  the client takes ─▶ room in its caller's share, then in the node's ─▶ one page is read
//!                        ▲                                                  │ encoded, counted
//!                        └──── given back piece by piece ◀── sent ◀─────────┘
//! ```
//! A page is read when the client has taken the one before, so a reader that does not read costs a
//! page at most and no work. Where others wait for room that it holds, it ends: it goes on later
//! from the position of the last answer that it has.

mod body;
#[cfg(test)]
mod body_test;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use dtm_identity::Caller;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::body::Body;

pub use self::body::metered;

/// What a page takes in memory, about: what is asked for before it is read.
pub(crate) const PAGE_BYTES: u64 = 256 << 10;
/// A reader that took nothing for so long gives its room to others that wait for it.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// How often who waits for room looks for readers of that kind.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The share of a caller: one part in so many of the node's room.
const SHARES: u64 = 4;

/// The room for answers that are ready and not yet sent.
pub struct Ahead {
    node: Arc<Pool>,
    /// Callers with open reads.
    callers: Mutex<HashMap<String, Weak<Pool>>>,
    next_id: AtomicU64,
}

impl Ahead {
    /// Of `limits.read_ahead_bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        Self::with_patience(bytes_max, STALLED_AFTER)
    }

    fn with_patience(bytes_max: u64, stalled_after: Duration) -> Self {
        let node = Arc::new(Pool::new(bytes_max, stalled_after));
        Self { node, callers: Mutex::default(), next_id: AtomicU64::new(0) }
    }

    /// Enters a read. What it holds is given back when it is dropped.
    pub fn enter(&self, caller: &Caller) -> Arc<Reading> {
        let share = match caller {
            // Reads of many callers that another node passes on.
            Caller::Node { .. } => Arc::clone(&self.node),
            _ => self.share(caller.to_string()),
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let node = Arc::clone(&self.node);
        let reading = Arc::new(Reading { id, node, share, state: Mutex::new(State::new()) });
        for pool in reading.pools() {
            pool.readers.lock().insert(id, Arc::downgrade(&reading));
        }
        reading
    }

    fn share(&self, caller: String) -> Arc<Pool> {
        let mut callers = self.callers.lock();
        callers.retain(|_, pool| pool.strong_count() > 0);
        if let Some(pool) = callers.get(&caller).and_then(Weak::upgrade) {
            return pool;
        }
        let pool = Arc::new(Pool::new(self.node.bytes_max / SHARES, self.node.stalled_after));
        callers.insert(caller, Arc::downgrade(&pool));
        pool
    }
}

/// A count of bytes that readers hold, and who waits for some of it.
struct Pool {
    bytes_max: u64,
    stalled_after: Duration,
    held: Mutex<u64>,
    /// Held by the reader that is next.
    turn: tokio::sync::Mutex<()>,
    freed: Notify,
    readers: Mutex<HashMap<u64, Weak<Reading>>>,
}

impl Pool {
    fn new(bytes_max: u64, stalled_after: Duration) -> Self {
        Self {
            bytes_max,
            stalled_after,
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            freed: Notify::new(),
            readers: Mutex::default(),
        }
    }

    /// Waits for its turn, then for room; what is larger than all room is taken alone.
    async fn take(&self, bytes: u64) -> Taken<'_> {
        let _turn = self.turn.lock().await;
        loop {
            // Before the look: what is given back between wakes it.
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if self.try_take(bytes) {
                return Taken { pool: self, bytes };
            }
            if tokio::time::timeout(LOOK_EVERY, freed).await.is_err() {
                self.end_stalled();
            }
        }
    }

    fn try_take(&self, bytes: u64) -> bool {
        let mut held = self.held.lock();
        let fits = *held == 0 || held.saturating_add(bytes) <= self.bytes_max;
        if fits {
            *held += bytes;
        }
        fits
    }

    fn set(&self, before: u64, now: u64) {
        let mut held = self.held.lock();
        *held = (*held + now).saturating_sub(before);
        drop(held);
        if now < before {
            self.freed.notify_one();
        }
    }

    /// Ends the reader that has taken nothing for longest.
    fn end_stalled(&self) {
        let readers: Vec<_> = self.readers.lock().values().filter_map(Weak::upgrade).collect();
        let stalled =
            readers.iter().filter_map(|reader| Some((reader.stalled(self.stalled_after)?, reader)));
        if let Some((_, reader)) = stalled.min_by_key(|(since, _)| *since)
            && reader.end()
        {
            metrics::counter!("dtm_reads_ended_total", "cause" => "stalled").increment(1);
        }
    }
}

/// Room that was taken and is not entered yet.
struct Taken<'a> {
    pool: &'a Pool,
    bytes: u64,
}

impl Taken<'_> {
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.pool.set(self.bytes, 0);
    }
}

/// One open read, for the work behind it and for the answer's body.
pub struct Reading {
    id: u64,
    node: Arc<Pool>,
    share: Arc<Pool>,
    state: Mutex<State>,
}

struct State {
    held: u64,
    /// What the last page took: what the next one will take, about.
    page: u64,
    /// Encoded and not yet sent.
    rest: Bytes,
    /// When its client took something last.
    touched: Instant,
    /// None: it was ended, or it has not begun to answer.
    work: Weak<Mutex<Option<Body>>>,
    ended: bool,
}

impl State {
    fn new() -> Self {
        let (rest, touched, work) = (Bytes::new(), Instant::now(), Weak::new());
        Self { held: 0, page: PAGE_BYTES, rest, touched, work, ended: false }
    }
}

/// What its body sends next.
enum Next {
    Piece(Bytes),
    /// The work has to be asked.
    Nothing,
    /// Ended: its room was needed.
    Ended,
}

impl Reading {
    /// The pools that it is counted in, each once.
    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let share = (!Arc::ptr_eq(&self.share, &self.node)).then_some(&self.share);
        std::iter::once(&self.node).chain(share)
    }

    /// Waits for room for the next page. Cancel-safe.
    pub async fn room(&self) {
        let bytes = self.state.lock().page;
        let share = self.share.take(bytes).await;
        if !Arc::ptr_eq(&self.share, &self.node) {
            self.node.take(bytes).await.keep();
        }
        share.keep();
        let mut state = self.state.lock();
        state.held += bytes;
        state.touched = Instant::now();
    }

    /// What its answers take in memory now.
    pub fn holds(&self, bytes: u64) {
        self.hold(&mut self.state.lock(), bytes);
    }

    fn hold(&self, state: &mut State, bytes: u64) {
        let before = std::mem::replace(&mut state.held, bytes);
        for pool in self.pools() {
            pool.set(before, bytes);
        }
    }

    /// The work whose answers are sent.
    fn begins(&self, work: &Arc<Mutex<Option<Body>>>) {
        self.state.lock().work = Arc::downgrade(work);
    }

    /// Encoded answers, to be sent piece by piece.
    fn fill(&self, answers: Bytes) {
        let mut state = self.state.lock();
        let bytes = answers.len() as u64;
        state.page = bytes.max(PAGE_BYTES);
        state.rest = answers;
        self.hold(&mut state, bytes);
    }

    /// A copy: a piece on its way to a slow client must not keep the whole page.
    fn next(&self, bytes_max: usize) -> Next {
        let mut state = self.state.lock();
        if state.ended {
            return Next::Ended;
        }
        state.touched = Instant::now();
        if state.rest.is_empty() {
            return Next::Nothing;
        }
        let bytes = state.rest.len().min(bytes_max);
        let piece = Bytes::copy_from_slice(&state.rest.split_to(bytes));
        let left = state.rest.len() as u64;
        self.hold(&mut state, left);
        if left == 0 {
            state.rest = Bytes::new();
        }
        Next::Piece(piece)
    }

    /// Since when its client has taken nothing of what is ready, where that is as long as this.
    fn stalled(&self, after: Duration) -> Option<Instant> {
        let state = self.state.lock();
        let is_stalled = !state.rest.is_empty() && state.touched.elapsed() >= after;
        is_stalled.then_some(state.touched)
    }

    /// Drops its answers and the work behind them; false where it works just now.
    fn end(&self) -> bool {
        let work = self.state.lock().work.upgrade();
        let Some(dropped) = work.as_ref().map(|work| work.try_lock().and_then(|mut w| w.take()))
        else {
            return false;
        };
        if dropped.is_none() {
            return false;
        }
        let mut state = self.state.lock();
        state.ended = true;
        state.rest = Bytes::new();
        self.hold(&mut state, 0);
        true
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.holds(0);
        for pool in self.pools() {
            pool.readers.lock().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(name: &str) -> Caller {
        let role = dtm_identity::Role::Auditor;
        Caller::Operator { name: name.to_owned(), role, certificate_digest: [0; 32] }
    }

    async fn waits(reading: &Reading) -> bool {
        tokio::time::timeout(Duration::from_millis(50), reading.room()).await.is_err()
    }

    #[tokio::test]
    async fn a_caller_takes_no_more_than_its_share_and_all_no_more_than_there_is() {
        let ahead = Ahead::new(8 * PAGE_BYTES);
        let reads = ["a", "a", "a", "b", "c"].map(|name| ahead.enter(&operator(name)));
        let [one, two, three, other, last] = &reads;
        one.room().await;
        two.room().await;
        assert!(waits(three).await, "its caller has its share");
        assert_eq!(*ahead.node.held.lock(), 2 * PAGE_BYTES, "who waited no more holds nothing");
        other.room().await;
        // What is read is larger than was thought: the others wait for it.
        other.holds(6 * PAGE_BYTES);
        assert!(waits(last).await, "the node has no more");
        one.holds(0);
        last.room().await;
        drop(reads);
        assert_eq!(*ahead.node.held.lock(), 0);
        assert!(ahead.node.readers.lock().is_empty());
        drop(ahead.enter(&operator("d")));
        assert_eq!(ahead.callers.lock().len(), 1, "callers without reads are forgotten");
    }

    #[tokio::test]
    async fn a_page_larger_than_all_room_is_taken_alone() {
        let ahead = Ahead::new(PAGE_BYTES);
        let [one, two] = [(); 2].map(|()| ahead.enter(&operator("a")));
        one.room().await;
        one.holds(9 * PAGE_BYTES);
        assert!(waits(&two).await);
        one.holds(0);
        two.room().await;
    }
}
