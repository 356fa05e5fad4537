//! Hot path: numbers records, keeps what is not acked, sends it until it is.
//!
//! ```text
//!  send ─► State.store ─► driver task ─► Session ─► cluster
//!            ▲   (lock held for microseconds, never across an await)      │
//!            └──────────── release ◄──────────── ack ◄────────────────────┘
//! ```
//!
//! The handle owns the driver task: dropping the last handle ends it. `send` wakes the driver only
//! when it sleeps, and an ack wakes senders only when they wait: no wake-up a record.

mod config;
mod driver;
mod memory;
mod resume;
mod route;
mod state;
mod store;
mod stream;

pub use config::{Event, Progress, PublisherConfig, Snapshot};

use crate::{Endpoint, Error, Spool, frame};
use driver::Driver;
use dtm_proto::ingest::Record;
use state::Shared;
use std::borrow::Borrow;
use std::sync::Arc;
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Sends the records of one stream, in order, each once, whatever happens to connections.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// The driver; aborted with the last handle.
    _driver: JoinSet<()>,
}

impl Publisher {
    /// Opens a stream and learns from the cluster where it stands: the next record gets
    /// [`Publisher::next_sequence`].
    ///
    /// # Errors
    /// What the cluster said for good, or the last failure when `open_timeout` has passed.
    pub async fn open(endpoint: Endpoint, config: PublisherConfig) -> Result<Self, Error> {
        let open_timeout = config.open_timeout;
        let publisher = Self::start(endpoint, config, Store::Unknown);
        match open_timeout {
            None => publisher.opened().await?,
            Some(limit) => match tokio::time::timeout(limit, publisher.opened()).await {
                Ok(result) => result?,
                Err(_) => return Err(publisher.shared.last_failure(limit)),
            },
        }
        Ok(publisher)
    }

    /// Sends what a spool holds and will hold, and releases it there. Returns at once: the
    /// cluster may be away. Records go in through [`Spool::append`], then [`Publisher::spooled`].
    #[must_use]
    pub fn over_spool(endpoint: Endpoint, mut config: PublisherConfig, spool: &Spool) -> Self {
        let queue = spool.queue();
        let acked = queue.acked();
        config.acked_through = acked.acked_through;
        config.incarnation = acked.incarnation;
        config.ack_token = acked.token;
        Self::start(endpoint, config, Store::Spool(queue))
    }

    /// Says that the spool holds more than before.
    pub fn spooled(&self) {
        self.shared.wake.notify_one();
    }

    fn start(endpoint: Endpoint, config: PublisherConfig, store: Store) -> Self {
        let shared = Arc::new(Shared::new(&config, store));
        let mut tasks = JoinSet::new();
        tasks.spawn(Driver::new(endpoint, config, shared.clone()).run());
        Self { shared, _driver: tasks }
    }

    async fn opened(&self) -> Result<(), Error> {
        self.shared.wait(|state| (state.store.next_sequence() > 0).then_some(())).await
    }

    /// Takes a record and says its sequence. Waits while as many bytes are unacked as allowed:
    /// that is the back-pressure of the cluster. The record is in memory then, not yet kept by
    /// anybody: see [`Publisher::acked`]. Cancel-safe: a record is taken or not.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for this record alone; any other error is final for the publisher.
    pub async fn send(&self, record: impl Borrow<Record>) -> Result<u64, Error> {
        let record = record.borrow();
        match self.shared.try_push(record)? {
            Some(sequence) => Ok(sequence),
            None => self.shared.push(record).await,
        }
    }

    /// As [`Publisher::send`], but `None` instead of a wait.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub fn try_send(&self, record: impl Borrow<Record>) -> Result<Option<u64>, Error> {
        self.shared.try_push(record.borrow())
    }

    /// Bytes that a record takes of the window.
    #[must_use]
    pub fn record_bytes(record: &Record) -> usize {
        frame::record_bytes(record)
    }

    /// Sequence of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.shared.lock().store.next_sequence()
    }

    /// How far the stream is; changes with each ack.
    #[must_use]
    pub fn acked(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Waits until everything taken so far is acked. Cancel-safe.
    ///
    /// # Errors
    /// The error that ended the publisher; what is not acked then may be committed or not.
    pub async fn flush(&self) -> Result<Progress, Error> {
        let through = self.next_sequence() - 1;
        self.wait_acked(through).await
    }

    /// The error that ended the publisher, if one did.
    #[must_use]
    pub fn ended(&self) -> Option<Error> {
        self.shared.lock().ended.clone()
    }

    /// Waits until the publisher ends by an error. Cancel-safe.
    pub async fn failure(&self) -> Error {
        match self.shared.wait(|_| None::<()>).await {
            Err(error) => error,
            Ok(()) => unreachable!("it looks for nothing"),
        }
    }

    /// Waits until `sequence` is acked. Cancel-safe.
    ///
    /// # Errors
    /// As [`Publisher::flush`].
    pub async fn wait_acked(&self, sequence: u64) -> Result<Progress, Error> {
        self.shared.wait(|state| (state.acked_through >= sequence).then_some(())).await?;
        Ok(self.shared.progress.borrow().clone())
    }

    /// Agrees that the sequences of [`Event::LossDetected`] are lost; sending goes on after them.
    pub fn confirm_lost(&self, from: u64, to: u64) {
        self.shared.lock().lost_confirmed = Some((from, to));
        self.shared.wake.notify_one();
    }

    /// Waits until everything is acked, then closes; `finished` says that nothing will ever
    /// follow on this stream.
    ///
    /// # Errors
    /// As [`Publisher::flush`].
    pub async fn close(self, finished: bool) -> Result<Progress, Error> {
        self.shared.lock().closing = Some(finished);
        self.shared.wake.notify_one();
        match self.shared.wait(|state| state.closed.then_some(())).await {
            Ok(()) => Ok(self.shared.progress.borrow().clone()),
            Err(error) => Err(error),
        }
    }
}
