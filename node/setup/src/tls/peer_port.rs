//! The node's certificates for the peer port.

use std::sync::Arc;

use dtm_cluster::PeerTls;
use dtm_identity::Caller;
use dtm_types::NodeId;
use rustls_pki_types::ServerName;

use super::{Door, Material};

/// Peers are called by their node id, which stands in their certificate.
pub struct Peers {
    material: Arc<Material>,
}

impl Peers {
    /// The peer port with this material, whatever it is replaced by while the node runs.
    pub fn new(material: Arc<Material>) -> Arc<Self> {
        Arc::new(Self { material })
    }
}

impl PeerTls for Peers {
    fn server(&self) -> Arc<rustls::ServerConfig> {
        self.material.server(Door::Peers)
    }

    fn client(&self) -> Arc<rustls::ClientConfig> {
        self.material.client()
    }

    fn server_name(&self, node: NodeId) -> ServerName<'static> {
        ServerName::try_from(crate::pki::peer_name(node)).expect("a node id makes a valid name")
    }

    fn node_of(&self, certificate: &[u8]) -> Option<NodeId> {
        let (cluster, _) = self.material.node();
        match Caller::from_certificate(certificate, cluster) {
            Ok(Caller::Node { node }) => Some(node),
            _ => None,
        }
    }
}
