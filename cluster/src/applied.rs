//! What a replica has applied, for those who wait for it, compare it or purge behind it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use dtm_compare::Comparison;
use dtm_types::bundle;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Every so many entries a head is kept.
const HEAD_STRIDE: u64 = 64;
const HEADS_MAX: usize = 128;

/// The ledger of a group at one applied index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Applied index.
    pub index: u64,
    /// Leaves.
    pub ledger_size: u64,
    /// RFC 6962 root.
    pub ledger_root: [u8; 32],
    /// Group time, microseconds.
    pub group_time_us: i64,
}

/// Shared between a group's state machine and its observers.
#[derive(Debug)]
pub(crate) struct Applied {
    head: watch::Sender<Head>,
    kept: Mutex<VecDeque<Head>>,
    flushed: AtomicU64,
    version: AtomicU8,
    failure: Mutex<Option<String>>,
    alarm: Mutex<Option<String>>,
    /// True once the replica was stopped: an old state machine writes nothing more.
    closed: Mutex<bool>,
    pub(crate) comparison: Comparison,
}

impl Applied {
    pub(crate) fn new() -> Self {
        Self {
            head: watch::channel(Head::default()).0,
            kept: Mutex::new(VecDeque::new()),
            flushed: AtomicU64::new(0),
            version: AtomicU8::new(bundle::VERSION),
            failure: Mutex::new(None),
            alarm: Mutex::new(None),
            closed: Mutex::new(false),
            comparison: Comparison::default(),
        }
    }

    /// True for the indexes at which every replica keeps its head.
    pub(crate) fn is_kept_head(index: u64) -> bool {
        index.is_multiple_of(HEAD_STRIDE)
    }

    pub(crate) fn publish(&self, head: Head) {
        if Self::is_kept_head(head.index) {
            let mut kept = self.kept.lock();
            kept.push_back(head);
            if kept.len() > HEADS_MAX {
                kept.pop_front();
            }
        }
        self.head.send_replace(head);
    }

    pub(crate) fn head(&self) -> Head {
        *self.head.borrow()
    }

    /// Kept heads, oldest first; the last one is the applied index.
    pub(crate) fn heads(&self) -> Vec<Head> {
        let mut heads: Vec<Head> = self.kept.lock().iter().copied().collect();
        heads.push(self.head());
        heads
    }

    /// Index through which rows are durable: nothing above may be purged from the log (ING-1).
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn set_flushed(&self, index: u64) {
        self.flushed.fetch_max(index, Ordering::AcqRel);
    }

    /// The version that the group is at, as applied here.
    pub(crate) fn version(&self) -> u8 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn set_version(&self, version: u8) {
        self.version.store(version, Ordering::Release);
    }

    pub(crate) fn fail(&self, reason: String) {
        self.failure.lock().get_or_insert(reason);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Raises an alarm that stays; the group goes on.
    pub(crate) fn flag(&self, alarm: String) {
        self.alarm.lock().get_or_insert(alarm);
    }

    pub(crate) fn alarm(&self) -> Option<String> {
        self.alarm.lock().clone()
    }

    /// Runs a write of rows unless the replica was stopped: `None` then.
    pub(crate) fn while_open<T>(&self, write: impl FnOnce() -> T) -> Option<T> {
        let closed = self.closed.lock();
        (!*closed).then(write)
    }

    /// After this returns no write runs and none begins.
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.lock()
    }

    /// Waits until the index is applied; false when the time is over. Cancel-safe.
    pub(crate) async fn wait_for(&self, index: u64, within: Duration) -> bool {
        let mut receiver = self.head.subscribe();
        let reached = receiver.wait_for(|head| head.index >= index);
        matches!(tokio::time::timeout(within, reached).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_kept_at_fixed_indexes_and_bounded() {
        let applied = Applied::new();
        for index in 0..=HEAD_STRIDE * (HEADS_MAX as u64 + 9) + 5 {
            applied.publish(Head { index, ..Head::default() });
        }
        let heads = applied.heads();
        assert_eq!(heads.len(), HEADS_MAX + 1);
        assert!(heads[..HEADS_MAX].iter().all(|head| head.index % HEAD_STRIDE == 0));
        assert_eq!(heads.last().map(|head| head.index), Some(applied.head().index));
    }
}
