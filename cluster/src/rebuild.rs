//! Rows that are damaged, gone or behind the log are rebuilt from another replica's snapshot, before
//! the group starts. What was damaged is never served.
//!
//! The log stays: entries above the snapshot that this replica acknowledged are still in it. Only
//! where it ends below the rows, or contradicts them, it starts anew above ([`follow_rows`], at each
//! start, so that a crash in between is no harm). Bundles that it does not hold are noted and fetched
//! later.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{StateBatch, StateStore};
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use prost::Message;

use crate::applied::Applied;
use crate::config::Deps;
use crate::convert;
use crate::log_store::{LogPosition, ReplicaLog, wait_flushed};
use crate::missing::Missing;
use crate::network::{Links, snapshot};
use crate::ranges::Ranges;
use crate::repair::Error;
use crate::state_machine::{APPLIED_KEY, applied_row, read_applied};
use crate::type_config::PeerNode;

const FETCH_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Rebuilds the rows of a group from the first peer whose snapshot reaches what the log was purged
/// through; from our own log where that was never purged. To be followed by [`follow_rows`], which
/// makes them durable.
pub(crate) async fn run(
    group: GroupId,
    log: &Arc<dyn ReplicaLog>,
    deps: &Deps,
    links: &Arc<Links>,
    peers: &[PeerNode],
) -> Result<(), Error> {
    let Some(purged) = log.marks().purged else {
        tracing::warn!(group = group.0, "rows are rebuilt from the log");
        return Ok(deps.states.clear(group).map_err(io::Error::other)?);
    };
    let mut last = "no other node is known".to_owned();
    for peer in peers {
        match fetch(group, log, deps, links, peer, purged).await {
            Ok(()) => {
                tracing::warn!(group = group.0, node = %peer.node, "rows rebuilt from a snapshot");
                metrics::counter!("dtm_cluster_states_rebuilt_total").increment(1);
                return Ok(());
            }
            Err(error) => last = format!("node {}: {error}", peer.node),
        }
    }
    Err(Error::Waiting(format!("no snapshot to rebuild the rows from: {last}")))
}

async fn fetch(
    group: GroupId,
    log: &Arc<dyn ReplicaLog>,
    deps: &Deps,
    links: &Arc<Links>,
    peer: &PeerNode,
    purged: LogPosition,
) -> Result<(), Error> {
    let link = links.to(peer.node, &peer.peer_address);
    let request = wire::FetchSnapshotRequest { group: group.0, at_least: purged.index };
    let fetching = async {
        let chunks =
            link.copies(group.0).fetch_snapshot(link.guard().stamp(request)).await?.into_inner();
        let stage = deps.states.stage(group);
        let stage = stage.map_err(|error| tonic::Status::internal(error.to_string()))?;
        snapshot::fetched(group, stage, chunks).await
    };
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetching).await;
    let fetched = fetched.map_err(|_| Error::Waiting("took too long".to_owned()))?;
    let (meta, stage) = fetched.map_err(|status| Error::Waiting(status.message().to_owned()))?;
    let last = meta.last_log_id.ok_or_else(|| Error::Waiting("snapshot of nothing".to_owned()))?;
    let held = proved(&**log, purged.index);
    let reader = Arc::clone(log);
    let lacking = tokio::task::spawn_blocking(move || reader.lacking(held)).await;
    let lacking = lacking.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let mut missing: Ranges = lacking.into_iter().collect();
    missing.insert(held + 1, last.index);
    let store = deps.states.open(group).map_err(io::Error::other)?;
    // The old note may be damaged with the rows; what the log lacks says the same.
    let switch = |mut more: StateBatch| {
        more.put(APPLIED_KEY, applied_row(meta.last_log_id, &meta.last_membership));
        stage.switch(more)
    };
    let switched = Missing::unread(group, store).switch(&missing, held, last.index, switch);
    Ok(switched.map_err(io::Error::other)?)
}

/// Starts the log anew behind the rows when it does not hold the entry that they end with. A log
/// that was not whole stays recovering. The rows are on disk when it returns.
pub(crate) async fn follow_rows(
    group: GroupId,
    log: &Arc<dyn ReplicaLog>,
    store: &Arc<dyn StateStore>,
) -> Result<(), Error> {
    let note = Missing::load(group, Arc::clone(store), Arc::new(Applied::new()))?;
    note.flush().await?;
    let (Some(applied), _) = read_applied(&**store)? else { return Ok(()) };
    let position = convert::position(&applied);
    let marks = log.marks();
    // A log that is empty is openraft's to restart, as is a replica that never had one.
    let Some(last) = marks.last else { return Ok(()) };
    // What is applied is committed: a log that ends with its term or a later one, not below it,
    // holds it, whether it can be read or not.
    if last.index >= position.index && last.term >= position.term {
        return Ok(());
    }
    // Without a snapshot's note the log stops short of rows that were applied from it.
    let purged = marks.purged.map_or(0, |purged| purged.index);
    let proved = if last.index < position.index { last.index } else { purged };
    let shown = note.restart_log(position.index, proved).await?;
    tracing::warn!(group = group.0, ?last, ?position, "log does not hold its rows: starts anew");
    Ok(wait_flushed(|done| log.reset(position, Some(shown), done)).await?)
}

/// Through which index our log is certainly what was committed, without the rows.
fn proved(log: &dyn ReplicaLog, purged: u64) -> u64 {
    let committed = log.marks().committed;
    let committed = committed.and_then(|bytes| convert::log_id_from_bytes(&bytes).ok());
    let matching = committed.filter(|committed| {
        let index = committed.index;
        let own = log.read(index..index + 1, 1).ok().and_then(|mut found| found.pop());
        own.is_some_and(|own| own.term == committed.leader_id.term)
    });
    matching.map_or(purged, |committed| committed.index.max(purged))
}

/// Nodes as they are noted beside the rows, for a replica whose rows are gone.
pub(crate) fn encode_peers(peers: &[PeerNode]) -> Vec<u8> {
    let members = peers
        .iter()
        .map(|peer| wire::Member { replica: 0, node: Some(convert::node_to_wire(peer)) });
    wire::Membership { members: members.collect(), ..wire::Membership::default() }.encode_to_vec()
}

/// What [`encode_peers`] wrote; what does not read is nobody.
pub(crate) fn decode_peers(bytes: &[u8]) -> Vec<PeerNode> {
    let members = wire::Membership::decode(Bytes::copy_from_slice(bytes)).unwrap_or_default();
    let nodes = members.members.into_iter().filter_map(|member| member.node);
    nodes.filter_map(|node| convert::node_from_wire(node).ok()).collect()
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::MemoryStateStore;

    use super::*;
    use crate::log_store::{LogEntry, LogError, MemoryLog};

    const GROUP: GroupId = GroupId(1);

    /// Entries 1..=20, from 9 on of term 3.
    async fn log() -> Arc<dyn ReplicaLog> {
        let log: Arc<dyn ReplicaLog> = Arc::new(MemoryLog::new());
        let entry = |index| {
            let term = if index < 9 { 2 } else { 3 };
            LogEntry { index, term, leader: 1, payload: Bytes::from_static(b"x") }
        };
        wait_flushed(|done| log.append((1..=20).map(entry).collect(), done)).await.expect("kept");
        log
    }

    /// Rows that end with an entry, and the note of a snapshot that was installed over index 8.
    fn rows(term: u64, index: u64) -> Arc<dyn StateStore> {
        let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(GROUP));
        let mut missing = Ranges::default();
        missing.insert(9, index);
        let applied = Some(convert::log_id(term, 1, index));
        let write = |mut more: StateBatch| {
            more.put(APPLIED_KEY, applied_row(applied, &Default::default()));
            store.write(&more)
        };
        let note = Missing::unread(GROUP, Arc::clone(&store));
        note.switch(&missing, 8, index, write).expect("written");
        store
    }

    // holds: RAFT-1 ING-1
    #[tokio::test]
    async fn a_log_that_contradicts_the_rows_starts_anew_behind_them() {
        for (term, index, is_kept) in [(3, 15, true), (5, 15, false), (5, 30, false)] {
            let (log, store) = (log().await, rows(term, index));
            follow_rows(GROUP, &log, &store).await.expect("follows");
            let marks = log.marks();
            if is_kept {
                assert_eq!(marks.last.map(|last| last.index), Some(20));
                continue;
            }
            let position = Some(LogPosition { index, term, leader: 1 });
            assert_eq!((marks.last, marks.purged), (position, position));
            assert!(log.read_record(8).is_ok(), "what was applied stays readable");
            assert_eq!(log.read_record(9), Err(LogError::NotFound(9)), "never committed");
        }
    }
}
