//! Which life of which cluster a call speaks for. The highest incarnation seen is remembered: whoever
//! has seen n refuses n - 1.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dtm_proto::cluster::Origin;
use dtm_types::{ClusterId, Incarnation, NodeId};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::tls::PeerCertificate;

const HEADER: &str = "dtm-origin-bin";

/// Stamps what leaves and checks what comes in.
#[derive(Debug)]
pub(crate) struct OriginGuard {
    cluster: ClusterId,
    node: NodeId,
    boot_counter: u64,
    /// The life that this node lives in.
    own: Incarnation,
    /// The highest one that any peer showed.
    seen: AtomicU64,
}

impl OriginGuard {
    pub(crate) fn new(
        cluster: ClusterId,
        node: NodeId,
        own: Incarnation,
        boot_counter: u64,
    ) -> Arc<Self> {
        Arc::new(Self { cluster, node, boot_counter, own, seen: AtomicU64::new(own.0) })
    }

    pub(crate) fn stamp<T>(&self, message: T) -> Request<T> {
        let origin = Origin {
            cluster_id: Bytes::copy_from_slice(&self.cluster.0),
            incarnation: self.own.0,
            node: Bytes::copy_from_slice(&self.node.0),
            boot_counter: self.boot_counter,
        };
        let mut request = Request::new(message);
        let value = MetadataValue::from_bytes(&origin.encode_to_vec());
        request.metadata_mut().insert_bin(HEADER, value);
        request
    }

    /// The node that speaks, when cluster, incarnation and certificate agree.
    pub(crate) fn check<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let refuse = |cause: &'static str, status: Status| {
            metrics::counter!("dtm_cluster_peer_refused_total", "cause" => cause).increment(1);
            status
        };
        let header = request.metadata().get_bin(HEADER);
        let bytes = header.and_then(|value| value.to_bytes().ok());
        let origin = bytes.and_then(|bytes| Origin::decode(bytes).ok());
        let Some(origin) = origin else {
            return Err(refuse("origin", Status::unauthenticated("no origin")));
        };
        if origin.cluster_id != self.cluster.0[..] {
            return Err(refuse("cluster", Status::failed_precondition("wrong-cluster")));
        }
        let claimed = NodeId::from_slice(&origin.node);
        let certified = request.extensions().get::<PeerCertificate>().map(|peer| peer.node);
        if claimed.is_none() || claimed != certified {
            let status = Status::permission_denied("the certificate names another node");
            return Err(refuse("certificate", status));
        }
        let seen =
            self.seen.fetch_max(origin.incarnation, Ordering::AcqRel).max(origin.incarnation);
        if origin.incarnation < seen || self.own.0 < seen {
            return Err(refuse("incarnation", Status::failed_precondition("wrong-incarnation")));
        }
        claimed.ok_or_else(|| Status::permission_denied("no node"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(cluster: u8, node: u8, incarnation: u64) -> Arc<OriginGuard> {
        OriginGuard::new(ClusterId([cluster; 16]), NodeId([node; 16]), Incarnation(incarnation), 1)
    }

    fn said_by(peer: &OriginGuard, certified: u8) -> Request<()> {
        let mut request = peer.stamp(());
        request.extensions_mut().insert(PeerCertificate { node: NodeId([certified; 16]) });
        request
    }

    #[test]
    fn only_the_same_life_of_the_same_cluster_is_heard() {
        let own = guard(1, 1, 5);
        assert_eq!(own.check(&said_by(&guard(1, 2, 5), 2)).ok(), Some(NodeId([2; 16])));
        assert!(own.check(&said_by(&guard(1, 2, 5), 3)).is_err(), "another node's certificate");
        assert!(own.check(&said_by(&guard(9, 2, 5), 2)).is_err(), "another cluster");
        assert!(own.check(&said_by(&guard(1, 2, 4), 2)).is_err(), "an earlier life");
        assert!(
            own.check(&said_by(&guard(1, 2, 6), 2)).is_err(),
            "a later life: we are the old one"
        );
        assert!(own.check(&said_by(&guard(1, 2, 5), 2)).is_err(), "seen 6 refuses 5");
    }
}
