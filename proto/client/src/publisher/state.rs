//! What the handle and the driver share, behind one short lock.

use super::config::{Progress, PublisherConfig, Snapshot};
use super::store::Store;
use crate::Error;
use dtm_proto::ingest::Record;
use parking_lot::{Mutex, MutexGuard};
use prost::Message;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Until the server says its own limit (docs/config.md: `limits.record_bytes_max`).
const RECORD_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the driver.
    pub(crate) wake: Notify,
    /// Wakes senders and waiters after any change.
    pub(crate) changed: Notify,
    pub(crate) progress: watch::Sender<Progress>,
    unacked_bytes_max: usize,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: Store,
    /// Next sequence to put on the wire; at most `store.next_sequence()`.
    pub(crate) send_next: u64,
    pub(crate) acked_through: u64,
    pub(crate) site_through: u64,
    /// Another site holds copies: what is acked stays until that has it.
    pub(crate) site_copies: bool,
    pub(crate) record_bytes_max: u64,
    /// The driver sleeps until this many bytes wait; 0 = it is awake.
    pub(crate) wake_bytes: usize,
    pub(crate) lost_confirmed: Option<(u64, u64)>,
    pub(crate) closing: Option<bool>,
    pub(crate) closed: bool,
    pub(crate) ended: Option<Error>,
    pub(crate) last_failure: Option<Error>,
    pub(crate) counters: Snapshot,
}

impl Shared {
    pub(crate) fn new(config: &PublisherConfig, store: Store) -> Self {
        let progress = Progress {
            acked_through: config.acked_through,
            incarnation: config.incarnation,
            token: config.ack_token.clone(),
            ..Progress::default()
        };
        let state = State {
            store,
            send_next: 0,
            acked_through: config.acked_through,
            site_through: 0,
            site_copies: false,
            record_bytes_max: RECORD_BYTES_MAX,
            wake_bytes: 0,
            lost_confirmed: None,
            closing: None,
            closed: false,
            ended: None,
            last_failure: None,
            counters: Snapshot::default(),
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            changed: Notify::new(),
            progress: watch::Sender::new(progress),
            unacked_bytes_max: config.unacked_bytes_max,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes a record if there is room.
    pub(crate) fn try_push(&self, record: &Record) -> Result<Option<u64>, Error> {
        let mut state = self.lock();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        if state.closing.is_some() {
            return Err(Error::Closed);
        }
        let envelope = record.envelope.as_ref().map_or(0, |envelope| envelope.encoded_len());
        let bytes = (record.payload.len() + envelope) as u64;
        if bytes > state.record_bytes_max {
            return Err(Error::TooLarge {
                limit: "record_bytes_max",
                bytes,
                bytes_max: state.record_bytes_max,
            });
        }
        if matches!(state.store, Store::Spool(_)) {
            return Err(Error::Spooled);
        }
        let unacked = state.store.unacked_bytes();
        let full = unacked > 0 && unacked + record.payload.len() > self.unacked_bytes_max;
        if full {
            return Ok(None);
        }
        let Some(sequence) = state.store.push(record) else {
            return Ok(None);
        };
        let wanted = state.wake_bytes;
        if wanted > 0 && state.store.ready_bytes(state.send_next, wanted) >= wanted {
            state.wake_bytes = 0;
            drop(state);
            self.wake.notify_one();
        }
        Ok(Some(sequence))
    }

    /// Waits for room, then takes the record.
    pub(crate) async fn push(&self, record: &Record) -> Result<u64, Error> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(sequence) = self.try_push(record)? {
                return Ok(sequence);
            }
            changed.await;
        }
    }

    /// Waits until `look` finds what it looks for, or the publisher ends.
    pub(crate) async fn wait<T>(
        &self,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.lock();
                if let Some(found) = look(&state) {
                    return Ok(found);
                }
                if let Some(error) = &state.ended {
                    return Err(error.clone());
                }
            }
            changed.await;
        }
    }

    /// Why there is no session yet.
    pub(crate) fn last_failure(&self, waited: Duration) -> Error {
        let state = self.lock();
        state.ended.clone().or_else(|| state.last_failure.clone()).unwrap_or_else(|| {
            Error::OutcomeUnknown { address: "every seed address".into(), waited }
        })
    }

    /// Ends the publisher for good.
    pub(crate) fn end(&self, error: Error) {
        self.lock().ended.get_or_insert(error);
        self.changed.notify_waiters();
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            next_sequence: state.store.next_sequence(),
            acked_through: state.acked_through,
            held_bytes: state.store.bytes() as u64,
            site_copies: state.site_copies,
            site_through: state.site_through,
            waits_for_site_bytes: state.store.waits_for_site(),
            ..state.counters.clone()
        }
    }
}

impl State {
    /// Through which sequence records may go, of those that are acked through `acked`.
    pub(crate) fn releasable(&self, acked: u64) -> u64 {
        if self.site_copies { acked.min(self.site_through) } else { acked }
    }

    /// Everything that was taken is acked.
    pub(crate) fn all_acked(&self) -> bool {
        self.store.next_sequence() <= self.acked_through + 1
    }
}
