//! Reading a group through Raft: frozen rows, and for current reads the leader's confirmation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dtm_machine::seams::{Freshness, GroupView, LeaderHint, ReadError, ReadView};
use dtm_proto::cluster as wire;
use dtm_types::GroupId;

use crate::group::Group;
use crate::lifecycle::ClusterNode;

const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[async_trait]
impl ReadView for ClusterNode {
    async fn view(&self, group: GroupId, freshness: Freshness) -> Result<GroupView, ReadError> {
        let found = self.registry().group(group).ok_or(ReadError::NotHere(group))?;
        if let Some(cause) = found.applied.failure() {
            return Err(ReadError::Damaged { group, cause });
        }
        let current = freshness == Freshness::Current;
        if current {
            let wait = self.config().read_wait();
            let unavailable = |cause: String| ReadError::Unavailable { group, cause };
            let index = read_index(&found, wait).await.map_err(unavailable)?;
            if !found.applied.wait_for(index, wait).await {
                return Err(unavailable(format!("index {index} is not applied here in time")));
            }
        }
        if !current && !found.wait_for_recovery(self.config().read_wait()).await {
            // No quorum since the start: what is here is served, and not called current.
            tracing::debug!(group = group.0, "read before the group has recovered");
        }
        let records = found.records();
        Ok(GroupView { group, state: found.store.freeze(), records, current })
    }

    fn ingest_groups(&self) -> Vec<GroupId> {
        self.elsewhere().groups().into_iter().filter(|group| !group.is_meta()).collect()
    }

    fn leader(&self, group: GroupId) -> Option<LeaderHint> {
        let node = match self.registry().group(group) {
            Some(found) => found.leader()?.1,
            None => self.elsewhere().leader(group)?,
        };
        if self.registry().links().presence().is_gone(node.node) {
            return None;
        }
        let is_self = node.node == self.config().node.node;
        Some(LeaderHint { node: node.node, address: node.grpc_address, is_self })
    }

    fn instead(&self, group: GroupId) -> Option<String> {
        let links = self.registry().links();
        let mut holders = self.holders(group);
        // The leader stays first among those that are there.
        holders.sort_by_key(|peer| links.presence().is_gone(peer.node));
        holders.into_iter().map(|peer| peer.grpc_address).find(|address| !address.is_empty())
    }
}

/// Asks the leader, here or elsewhere, which index a read must have seen; waits for one.
async fn read_index(group: &Arc<Group>, wait: Duration) -> Result<u64, String> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let cause = match ask_leader(group, wait).await {
            Ok(index) => return Ok(index),
            Err(cause) => cause,
        };
        if tokio::time::Instant::now() + RETRY_PAUSE >= deadline {
            return Err(cause);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn ask_leader(group: &Arc<Group>, wait: Duration) -> Result<u64, String> {
    if group.is_leader() {
        return group.read_index_here(wait).await.map_err(|error| error.to_string());
    }
    let (replica, node) = group.leader().ok_or_else(|| group.leaderless())?;
    let link = group.links.to(node.node, &node.peer_address);
    let target = wire::Target { group: group.id.0, replica: replica.0 };
    let request = link.guard().stamp(wire::ReadIndexRequest { target: Some(target) });
    let mut client = link.control();
    let answer = tokio::time::timeout(wait, client.read_index(request)).await;
    let answer = answer.map_err(|_| "the leader does not answer".to_owned())?;
    answer.map(|answer| answer.into_inner().index).map_err(|status| {
        // The last leader that is known here may be the node that is gone.
        if group.links.presence().is_gone(node.node) {
            group.leaderless()
        } else {
            status.message().to_owned()
        }
    })
}
