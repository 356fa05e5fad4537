//! Changing who belongs to a group: a node's replica is created empty, learns, then votes.

use std::sync::Arc;

use dtm_proto::cluster as wire;
use dtm_types::{GroupId, ReplicaId};

use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::type_config::PeerNode;

impl ClusterNode {
    /// Adds a replica on a node and makes it a voter. Must be called on the group's leader; the id
    /// must never have been used in this group. May be called again after a failure.
    pub async fn add_voter(
        &self,
        group: GroupId,
        replica: ReplicaId,
        node: PeerNode,
    ) -> Result<(), Error> {
        let found = self.registry().group(group);
        let found = found.ok_or_else(|| Error::Unknown(format!("group {group}")))?;
        let link = self.registry().links().to(node.node, &node.peer_address);
        let target = wire::Target { group: group.0, replica: replica.0 };
        let request = wire::CreateReplicaRequest { target: Some(target) };
        let created = link.control().create_replica(link.guard().stamp(request)).await;
        created.map_err(|status| found.failed(status))?;
        let group = Arc::clone(&found);
        group.raft.add_learner(replica.0, node, true).await.map_err(|e| found.failed(e))?;
        let voters = openraft::ChangeMembers::AddVoterIds([replica.0].into());
        group.raft.change_membership(voters, true).await.map_err(|e| found.failed(e))?;
        Ok(())
    }
}
