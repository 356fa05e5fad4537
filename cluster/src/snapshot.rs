//! Snapshots as manifests: a frozen view of the rows and the group's bundles, streamed when asked
//! for; nothing is copied to build one.
//!
//! ```text
//!  sender                                   receiver
//!  manifest (log id, membership, ledger) -> checks vote, opens a stage
//!  rows, by range from the frozen view   -> stage, digest
//!  end (count, digest)                   -> compares; one write switches the rows and notes which
//!                                           bundles are missing; the log starts anew above
//!  bundles that the receiver lacks       -> record store, fsync, off the note
//!  end (count, what the sender lacks)    -> the answer
//! ```
//!
//! Bundles come after the log was started anew, because what a log held above the applied index may
//! never have been committed and is hidden by that. Cut off before its last part the transfer has
//! failed; what came stays, the note names the rest, and `crate::backfill` fetches it from any peer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateError, StateRead, StateStore};
use dtm_types::GroupId;
use openraft::RaftSnapshotBuilder;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::applied::Applied;
use crate::convert;
use crate::log_store::{LogEntry, LogPosition, ReplicaLog, wait_flushed, wait_for_disk};
use crate::runtime::off_thread;
use crate::type_config::{LeaderId, LogId, PeerNode, TypeConfig, Vote};

pub(crate) type Snapshot = openraft::Snapshot<LeaderId, u64, PeerNode, SnapshotData>;

/// First key that is not this crate's own; the machine's rows begin above.
pub(crate) const ROWS_FROM: &[u8] = &[0x01];
/// Above every key.
pub(crate) const ROWS_TO: &[u8] = &[0xff; 64];

/// Rows of a group that arrive beside the ones in force.
pub trait StagedState: Send + Sync {
    /// Adds rows in ascending order. Blocking.
    fn put(&mut self, rows: Vec<(Bytes, Bytes)>) -> Result<(), StateError>;

    /// Makes the staged rows, and some more, the group's rows in one atomic write; durable with the
    /// next flush of them. On an error the group has its old rows. Blocking. Without this call the
    /// stage is discarded when it is dropped.
    fn switch(self: Box<Self>, more: StateBatch) -> Result<(), StateError>;
}

/// Opens the rows of a node's replicas.
pub trait StateProvider: Send + Sync + 'static {
    /// The rows of a group, made when there are none.
    fn open(&self, group: GroupId) -> Result<Arc<dyn StateStore>, StateError>;

    /// An empty stage beside the rows in force.
    fn stage(&self, group: GroupId) -> Result<Box<dyn StagedState>, StateError>;

    /// Removes every row of the group. Blocking.
    fn clear(&self, group: GroupId) -> Result<(), StateError>;

    /// What damage a read of the group's rows met since they were last replaced as a whole.
    fn damage(&self, group: GroupId) -> Option<String>;

    /// Why no row of this node can be written any more, if that is so: only a new start helps.
    fn fault(&self) -> Option<String>;

    /// Keeps a small note outside the rows: who the other nodes are, for when the rows are lost.
    /// Blocking.
    fn note_peers(&self, note: &[u8]) -> std::io::Result<()>;

    /// The note; empty when there is none.
    fn noted_peers(&self) -> Vec<u8>;
}

/// A snapshot on its way out, or one that has arrived.
///
/// The lock is never contended; openraft wants the type to be `Sync`.
pub(crate) struct SnapshotData(Mutex<Inner>);

enum Inner {
    View(SnapshotView),
    Staged(Box<dyn StagedState>),
}

/// What a sender reads from.
#[derive(Clone)]
pub(crate) struct SnapshotView {
    pub(crate) state: Arc<dyn StateRead>,
    pub(crate) log: Arc<dyn ReplicaLog>,
    pub(crate) ledger: (u64, [u8; 32]),
}

impl SnapshotData {
    pub(crate) fn view(
        state: Arc<dyn StateRead>,
        log: Arc<dyn ReplicaLog>,
        ledger: (u64, [u8; 32]),
    ) -> Self {
        Self(Mutex::new(Inner::View(SnapshotView { state, log, ledger })))
    }

    pub(crate) fn staged(stage: Box<dyn StagedState>) -> Self {
        Self(Mutex::new(Inner::Staged(stage)))
    }

    pub(crate) fn into_view(self) -> Option<SnapshotView> {
        match self.0.into_inner() {
            Inner::View(view) => Some(view),
            Inner::Staged(_) => None,
        }
    }

    pub(crate) fn into_staged(self) -> Result<Box<dyn StagedState>, NotStaged> {
        match self.0.into_inner() {
            Inner::Staged(stage) => Ok(stage),
            Inner::View(_) => Err(NotStaged),
        }
    }
}

/// A view cannot be installed: only what arrived over the network can.
#[derive(Debug, thiserror::Error)]
#[error("snapshot was not received")]
pub(crate) struct NotStaged;

/// Takes the frozen view and flushes the rows, so that the log may be purged behind it.
pub(crate) struct SnapshotBuilder {
    snapshot: Option<Snapshot>,
    store: Arc<dyn StateStore>,
    applied: Arc<Applied>,
}

impl SnapshotBuilder {
    pub(crate) fn new(
        snapshot: Option<Snapshot>,
        store: Arc<dyn StateStore>,
        applied: Arc<Applied>,
    ) -> Self {
        Self { snapshot, store, applied }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let snapshot =
            self.snapshot.take().ok_or_else(|| io::Error::other("a builder builds once"))?;
        loop {
            let store = Arc::clone(&self.store);
            let flushed = off_thread(move || store.flush()).await;
            match flushed? {
                Ok(()) => break,
                Err(error) if error.is_disk_full && !self.applied.is_closed() => {
                    wait_for_disk("flush").await;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        self.applied.set_flushed(snapshot.meta.last_log_id.map_or(0, |last| last.index));
        Ok(snapshot)
    }
}

/// Whether a replica needs no rows of a snapshot, because its log holds the snapshot's last entry, on
/// disk when this returns: then all before it is there too, and only the commit has yet to come. The
/// leader did not know, or the log went on while the snapshot was on its way. openraft must not get
/// it: where the log ends above the snapshot it takes its own progress for going back and panics.
pub(crate) async fn is_needless(
    log: &dyn ReplicaLog,
    in_force: &Vote,
    of_sender: &Vote,
    last: Option<&LogId>,
) -> bool {
    let Some(last) = last.filter(|_| in_force == of_sender) else { return false };
    let position = convert::position(last);
    let found = log.read(position.index..position.index + 1, 1).unwrap_or_default();
    // One term may have had several leaders: the leader is of the entry's name.
    let is_it = |entry: &LogEntry| LogPosition::of(entry) == position;
    found.first().is_some_and(is_it)
        && wait_flushed(|done| log.append(Vec::new(), done)).await.is_ok()
}

/// Digest over rows in order, the same on both sides.
#[derive(Default)]
pub(crate) struct RowsDigest {
    hash: Sha256,
    pub(crate) rows: u64,
}

impl RowsDigest {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            let bytes = u32::try_from(part.len()).expect("rows are far below 4 GiB");
            self.hash.update(bytes.to_le_bytes());
            self.hash.update(part);
        }
        self.rows += 1;
    }

    pub(crate) fn finish(self) -> (u64, [u8; 32]) {
        (self.rows, self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_store::MemoryLog;

    #[tokio::test]
    async fn a_snapshot_is_needless_where_the_log_holds_its_last_entry_itself() {
        let log = MemoryLog::new();
        let entry = |index| LogEntry { index, term: 5, leader: 1, payload: Bytes::new() };
        log.append((1..=10).map(entry).collect(), Box::new(drop)).expect("memory");
        let vote = Vote::new_committed(5, 3);
        let needless = async |leader, index, in_force: &Vote| {
            let last = convert::log_id(5, leader, index);
            is_needless(&log, in_force, &vote, Some(&last)).await
        };
        assert!(needless(1, 10, &vote).await && needless(1, 3, &vote).await);
        assert!(!needless(3, 10, &vote).await, "of another leader of the same term");
        assert!(!needless(1, 11, &vote).await, "the log ends before it");
        assert!(!needless(1, 10, &Vote::new_committed(4, 1)).await, "not of this leader yet");
    }
}

#[cfg(test)]
#[path = "golden_test.rs"]
mod golden;
