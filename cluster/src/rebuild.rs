//! Rows that are damaged, gone or behind the log are rebuilt from another replica's snapshot, before
//! the group starts. What was damaged is never served.
//!
//! The log stays: entries above the snapshot that this replica acknowledged are still in it. Only
//! where it ends below the snapshot, or contradicts it, it starts anew above. Bundles that it does
//! not hold are noted and fetched later.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::StateBatch;
use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use prost::Message;

use crate::config::Deps;
use crate::convert;
use crate::log_store::{LogPosition, ReplicaLog, wait_flushed};
use crate::missing::Missing;
use crate::network::{Links, snapshot};
use crate::ranges::Ranges;
use crate::repair::Error;
use crate::state_machine::{APPLIED_KEY, applied_row};
use crate::type_config::PeerNode;

const FETCH_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Rebuilds the rows of a group from the first peer whose snapshot reaches what the log was purged
/// through; from our own log where that was never purged.
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
        let chunks = link.data().fetch_snapshot(link.guard().stamp(request)).await?.into_inner();
        let stage = deps.states.stage(group);
        let stage = stage.map_err(|error| tonic::Status::internal(error.to_string()))?;
        snapshot::fetched(group, stage, chunks).await
    };
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetching).await;
    let fetched = fetched.map_err(|_| Error::Waiting("took too long".to_owned()))?;
    let (meta, stage) = fetched.map_err(|status| Error::Waiting(status.message().to_owned()))?;
    let last = meta.last_log_id.ok_or_else(|| Error::Waiting("snapshot of nothing".to_owned()))?;
    let position = convert::position(&last);
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
    Missing::unread(group, store).add_with(&missing, switch).map_err(io::Error::other)?;
    let mut ours = log.read(last.index..last.index + 1, 1).unwrap_or_default();
    let is_same = ours.pop().is_some_and(|entry| entry.term == position.term)
        || log.marks().purged.is_some_and(|purged| purged == position);
    if !is_same {
        wait_flushed(|done| log.reset(position, Some(held), done)).await?;
    }
    Ok(())
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
