//! A group as of one moment, for a backup: its rows frozen, and its entries one by one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{StateError, StateRead};
use dtm_types::GroupId;

use crate::backfill::Backfill;
use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::log_store::{LogEntry, LogError, LogPosition};
use crate::snapshot::{ROWS_FROM, ROWS_TO};

const ROWS_A_SCAN: usize = 4_096;
const ROWS_BYTES_A_SCAN: usize = 1 << 20;

/// What a replica on this node had applied at one moment. Holds the rows as they were until it is
/// dropped.
pub struct GroupCopy {
    /// The group.
    pub group: GroupId,
    /// Last entry that the rows hold.
    pub last: LogPosition,
    /// Leaves of its ledger there.
    pub ledger_size: u64,
    /// RFC 6962 root of them.
    pub ledger_root: [u8; 32],
    state: Arc<dyn StateRead>,
    backfill: Arc<Backfill>,
}

impl ClusterNode {
    /// Freezes this node's replica of a group, once it has applied `index`.
    ///
    /// # Errors
    /// [`Error::Unknown`] where this node holds none, [`Error::Timeout`] where it does not come so far.
    pub async fn copy_of(
        &self,
        group: GroupId,
        index: u64,
        within: Duration,
    ) -> Result<GroupCopy, Error> {
        let found = self.registry().group(group);
        let found = found.ok_or_else(|| Error::Unknown(format!("group {group}")))?;
        if let Some(cause) = found.applied.failure() {
            return Err(found.failed(cause));
        }
        if !found.applied.wait_for(index, within).await {
            return Err(Error::Timeout(format!("group {group} to apply entry {index}")));
        }
        let taken = found.raft.get_snapshot().await.map_err(|error| found.failed(error))?;
        let taken = taken.ok_or_else(|| found.failed("nothing was applied yet"))?;
        let last = taken.meta.last_log_id.as_ref().map(crate::convert::position);
        let view = taken.snapshot.into_view().ok_or_else(|| found.failed("no view of the rows"))?;
        Ok(GroupCopy {
            group,
            last: last.unwrap_or_default(),
            ledger_size: view.ledger.0,
            ledger_root: view.ledger.1,
            state: view.state,
            backfill: Arc::clone(&found.backfill),
        })
    }
}

impl GroupCopy {
    /// The rows, to be read as they were.
    pub fn state(&self) -> &dyn StateRead {
        &*self.state
    }

    /// Up to 1 MiB of rows from the key on, ascending; none where there is none. Without those that
    /// each replica writes for itself. Blocking.
    ///
    /// # Errors
    /// Of the rows.
    pub fn rows(&self, from: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let from = from.max(ROWS_FROM);
        self.state.scan_within(from, ROWS_TO, ROWS_A_SCAN, ROWS_BYTES_A_SCAN)
    }

    /// An entry from 1 to the last, from the log or its records, else from a peer. Blocking, on a
    /// thread where that is allowed.
    ///
    /// # Errors
    /// [`LogError::NotFound`] and [`LogError::Damaged`] where nobody holds it who answers.
    pub fn entry(&self, index: u64) -> Result<LogEntry, LogError> {
        match self.backfill.held(index) {
            Err(LogError::NotFound(_) | LogError::Damaged(_)) if self.backfill.is_due(index) => {
                self.backfill.one(index).ok_or(LogError::NotFound(index))
            }
            held => held,
        }
    }
}
