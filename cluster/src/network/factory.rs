//! openraft asks here for a way to each replica.

use std::sync::Arc;

use dtm_proto::cluster as wire;
use dtm_types::GroupId;
use openraft::RaftNetworkFactory;

use super::client::{Purpose, ReplicaClient};
use super::link::Links;
use crate::type_config::{PeerNode, TypeConfig};

/// One a group.
pub(crate) struct Factory {
    group: GroupId,
    links: Arc<Links>,
}

impl Factory {
    pub(crate) fn new(group: GroupId, links: Arc<Links>) -> Self {
        Self { group, links }
    }

    fn client(&self, replica: u64, node: &PeerNode, purpose: Purpose) -> ReplicaClient {
        let link = self.links.to(node.node, &node.peer_address);
        let target = wire::Target { group: self.group.0, replica };
        ReplicaClient::new(link, target, purpose, self.links.matched().of(target, node.node))
    }
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = ReplicaClient;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> ReplicaClient {
        self.client(target, node, Purpose::Replicate)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> ReplicaClient {
        self.client(target, node, Purpose::Heartbeat)
    }
}
