//! Where a node's parts can be replaced. [`Seams::default`] is the product; the load
//! generator passes others, to measure what a part costs, and a test those with a planted bug. No
//! setting reaches these.

use std::sync::Arc;

use dtm_actors::{Full, KeyVault, Treatment};
use dtm_cluster::PeerTls;
use dtm_types::NodeId;

use crate::tls::{TlsWire, Wire};

/// See the module.
pub struct Seams {
    /// Check and digests of records and batches.
    pub treatment: Arc<dyn Treatment>,
    /// Puts something around the node's keys; as they are by default.
    pub vault: fn(Arc<dyn KeyVault>) -> Arc<dyn KeyVault>,
    /// Protects the clients' connections.
    pub clients: Arc<dyn Wire>,
    /// Puts something around the protection of the node's peer connections; as it is by default.
    pub peers: fn(NodeId, Arc<dyn PeerTls>) -> Arc<dyn PeerTls>,
}

impl Default for Seams {
    fn default() -> Self {
        Self {
            treatment: Arc::new(Full),
            vault: |vault| vault,
            clients: Arc::new(TlsWire),
            peers: |_, peers| peers,
        }
    }
}
