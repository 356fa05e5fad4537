//! Steps that the controller asks of other nodes, or of this one.

use std::time::Duration;

use dtm_proto::cluster as wire;
use dtm_types::command::NodeRow;
use dtm_types::{GroupId, ReplicaId};

use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::network::answered;
use crate::type_config::{PeerNode, peer_of};

const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// A row that names no node was not written by this software.
fn known_peer(row: &NodeRow) -> Result<PeerNode, Error> {
    peer_of(row).ok_or_else(|| Error::Unknown(format!("node {:02x?}", &row.node[..])))
}

impl ClusterNode {
    pub(crate) async fn create_replica(
        &self,
        group: u32,
        replica: u64,
        row: &NodeRow,
    ) -> Result<(), Error> {
        let peer = known_peer(row)?;
        if peer.node == self.config().node.node {
            let replica = ReplicaId(replica);
            let (group, start) = (GroupId(group), row.boot_counter);
            return self.registry().create_allocated(group, replica, start).await;
        }
        let link = self.registry().links().to(peer.node, &peer.peer_address);
        let target = Some(wire::Target { group, replica });
        let boot_counter = row.boot_counter;
        let request = link.guard().stamp(wire::CreateReplicaRequest { target, boot_counter });
        let mut client = link.control();
        let what = || format!("creating replica {replica} of group {group} on node {}", peer.node);
        answered(STEP_TIMEOUT, what, client.create_replica(request)).await?;
        Ok(())
    }

    /// The node forgets a replica that left its group.
    pub(crate) async fn retire_replica(
        &self,
        group: u32,
        replica: u64,
        row: &NodeRow,
    ) -> Result<(), Error> {
        let peer = known_peer(row)?;
        if peer.node == self.config().node.node {
            return self.registry().retire(GroupId(group), ReplicaId(replica)).await;
        }
        let link = self.registry().links().to(peer.node, &peer.peer_address);
        let target = Some(wire::Target { group, replica });
        let request = link.guard().stamp(wire::RetireReplicaRequest { target });
        let mut client = link.control();
        let what = || format!("retiring replica {replica} of group {group} on node {}", peer.node);
        answered(STEP_TIMEOUT, what, client.retire_replica(request)).await?;
        Ok(())
    }

    /// The leader of a group takes one step; true when nothing is left to do.
    pub(crate) async fn ask_reconcile(
        &self,
        leader: &PeerNode,
        request: wire::ReconcileRequest,
    ) -> Result<bool, Error> {
        if leader.node == self.config().node.node {
            return self.registry().reconcile(request).await;
        }
        let link = self.registry().links().to(leader.node, &leader.peer_address);
        let group = request.group;
        let what = || format!("a membership step of group {group}, asked of node {}", leader.node);
        let request = link.guard().stamp(request);
        let mut client = link.control();
        Ok(answered(STEP_TIMEOUT, what, client.reconcile(request)).await?.settled)
    }
}
