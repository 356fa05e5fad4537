//! What a replica answers to the leader that compares rows.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_compare::{Kept, KeyRange, Page, RangeDigest, RowHash};
use dtm_machine::seams::{StateError, StateRead};
use dtm_proto::cluster as wire;
use dtm_types::NodeId;
use tonic::Status;
use wire::compare_rows_request::Ask;
use wire::compare_rows_response::Answer;

use super::RANGE_BYTES;
use crate::group::Group;
use crate::registry::Registry;
use crate::state_machine::read_applied;

/// How long a replica has to get to the index.
pub(super) const FREEZE_WITHIN: Duration = Duration::from_secs(5);
/// Rows of one page.
const PAGE_ROWS: usize = 1_024;
/// A replica reads so many times what the leader has in a range, and no more.
const READ_TIMES: u64 = 2;

/// Freezes the rows of a replica at an applied index, once it is there.
pub(super) async fn freeze(group: &Group, index: u64) -> Kept {
    let comparison = &group.applied.comparison;
    if comparison.at(index).is_some() {
        return Kept::Kept;
    }
    comparison.want(index);
    let rows = group.store.freeze();
    let applied = read_applied(&*rows).ok().and_then(|(applied, _)| applied);
    match applied.map_or(0, |applied| applied.index).cmp(&index) {
        Ordering::Equal => comparison.keep(index, rows),
        Ordering::Less => {
            drop(rows);
            group.applied.wait_for(index, FREEZE_WITHIN).await;
        }
        Ordering::Greater => {}
    }
    // Apply may have come by in the meantime, whatever was seen above.
    match comparison.at(index) {
        Some(_) => Kept::Kept,
        None if group.applied.head().index < index => Kept::Behind,
        None => Kept::Passed,
    }
}

/// Of rows as they were at an index. Blocking work goes beside the runtime.
pub(super) async fn digest(rows: Arc<dyn StateRead>, range: KeyRange) -> Option<RangeDigest> {
    let bytes_max = READ_TIMES * RANGE_BYTES as u64;
    read(move || dtm_compare::digest(&*rows, &range, bytes_max)).await
}

/// As [`digest`], their first page.
pub(super) async fn list(rows: Arc<dyn StateRead>, range: KeyRange) -> Option<Page> {
    read(move || dtm_compare::list(&*rows, &range, PAGE_ROWS)).await
}

async fn read<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(found)) => Some(found),
        Ok(Err(error)) => {
            tracing::warn!(%error, "rows could not be read to compare them");
            None
        }
        Err(error) => {
            tracing::error!(%error, "reading rows to compare them panicked");
            None
        }
    }
}

/// Answers a leader that is a peer.
pub(crate) async fn answer(
    registry: &Arc<Registry>,
    group: Arc<Group>,
    caller: NodeId,
    request: wire::CompareRowsRequest,
) -> Result<wire::CompareRowsResponse, Status> {
    let index = request.index;
    let gone = || Status::failed_precondition(format!("no rows of index {index} are kept"));
    let frozen = || group.applied.comparison.at(index).ok_or_else(gone);
    let unread = || Status::internal("rows could not be read");
    let answer = match request.ask.ok_or_else(|| Status::invalid_argument("no question"))? {
        Ask::Freeze(_) => {
            let state = kept_to_wire(freeze(&group, index).await).into();
            Answer::Frozen(wire::FrozenRows { state })
        }
        Ask::Digest(range) => {
            let found = digest(frozen()?, range_from_wire(range)).await.ok_or_else(unread)?;
            let hash = Bytes::copy_from_slice(&found.hash);
            Answer::Digest(wire::RangeDigest { rows: found.rows, hash })
        }
        Ask::List(range) => {
            let page = list(frozen()?, range_from_wire(range)).await.ok_or_else(unread)?;
            Answer::List(page_to_wire(page))
        }
        Ask::Rebuild(order) => {
            if group.leader().is_none_or(|(_, leader)| leader.node != caller) {
                return Err(Status::failed_precondition("only the leader of the group may say so"));
            }
            let sources = order.sources.iter().filter_map(|node| NodeId::from_slice(node));
            let (sources, registry) = (sources.collect(), Arc::clone(registry));
            // Goes on when the caller is gone: half-way the replica would be down for nothing.
            let begun = tokio::spawn(async move {
                registry.rebuild_rows(&group, sources, order.cause).await;
            });
            begun.await.map_err(|error| Status::internal(error.to_string()))?;
            Answer::Rebuild(wire::RebuildRowsResponse {})
        }
    };
    Ok(wire::CompareRowsResponse { answer: Some(answer) })
}

impl Registry {
    /// Takes a replica down whose rows are not those of the others; they are rebuilt from one of
    /// these nodes, or from its own log where that was never purged.
    pub(crate) async fn rebuild_rows(
        &self,
        group: &Arc<Group>,
        sources: BTreeSet<NodeId>,
        cause: String,
    ) {
        // Before it is down: whoever mends it finds that its rows are not to be believed.
        self.distrust(group.id, sources);
        self.take_down(group, cause).await;
    }
}

fn kept_to_wire(kept: Kept) -> wire::FrozenRowsState {
    match kept {
        Kept::Kept => wire::FrozenRowsState::Kept,
        Kept::Passed => wire::FrozenRowsState::Passed,
        Kept::Behind => wire::FrozenRowsState::Behind,
    }
}

pub(super) fn kept_from_wire(state: wire::FrozenRowsState) -> Option<Kept> {
    match state {
        wire::FrozenRowsState::Kept => Some(Kept::Kept),
        wire::FrozenRowsState::Passed => Some(Kept::Passed),
        wire::FrozenRowsState::Behind => Some(Kept::Behind),
        wire::FrozenRowsState::Unspecified => None,
    }
}

pub(super) fn range_to_wire(range: KeyRange) -> wire::KeyRange {
    wire::KeyRange { from: range.from, to: range.to }
}

fn range_from_wire(range: wire::KeyRange) -> KeyRange {
    // What a replica writes for itself is nobody else's.
    let from = range.from.max(Bytes::from_static(dtm_compare::ROWS_FROM));
    KeyRange { from, to: range.to }
}

fn page_to_wire(page: Page) -> wire::RowHashes {
    let to_wire = |row: RowHash| {
        let hash = Bytes::copy_from_slice(&row.hash);
        wire::RowHash { key: row.key, hash }
    };
    wire::RowHashes { rows: page.rows.into_iter().map(to_wire).collect(), whole: page.is_whole }
}

/// `None` where it is none.
pub(super) fn page_from_wire(page: wire::RowHashes) -> Option<Page> {
    let from_wire =
        |row: wire::RowHash| Some(RowHash { hash: row.hash[..].try_into().ok()?, key: row.key });
    let rows: Vec<RowHash> = page.rows.into_iter().map(from_wire).collect::<Option<_>>()?;
    // A page that is not all of the range goes on from its last row.
    let is_one = (page.whole || !rows.is_empty()) && rows.is_sorted_by(|a, b| a.key < b.key);
    is_one.then_some(Page { rows, is_whole: page.whole })
}

pub(super) fn digest_from_wire(digest: &wire::RangeDigest) -> Option<RangeDigest> {
    Some(RangeDigest { rows: digest.rows, hash: digest.hash[..].try_into().ok()? })
}
