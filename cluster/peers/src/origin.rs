//! Which life of which cluster a call speaks for, and which start of a node that meta has. The
//! highest incarnation seen is remembered: whoever has seen n refuses n - 1. So is the highest start
//! of each node: an old copy of its disk is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dtm_proto::cluster::Origin;
use dtm_types::{ClusterId, GroupId, Incarnation, NodeId};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::roster::{Listing, Roster, Unheard};
use super::tls::PeerCertificate;

const HEADER: &str = "dtm-origin-bin";

/// A peer whose call was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    node: NodeId,
    listing: Listing,
}

impl Peer {
    /// A node that meta does not list yet is heard only in meta, where its row comes from; one that
    /// was removed, only in groups that still name it, as `names` says.
    pub fn may(&self, group: u32, names: impl FnOnce(NodeId) -> bool) -> Result<(), Status> {
        match self.listing {
            Listing::Listed => Ok(()),
            Listing::Unlisted if GroupId(group).is_meta() => Ok(()),
            Listing::Unlisted => {
                let cause = "meta does not list this node here yet";
                Err(refuse("unlisted", Status::unavailable(cause)))
            }
            Listing::Leaving if names(self.node) => Ok(()),
            Listing::Leaving => Err(removed()),
        }
    }

    /// Who speaks.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// For calls that are about no group.
    pub fn listed(&self) -> Result<(), Status> {
        self.may(u32::MAX, |_| false)
    }
}

fn removed() -> Status {
    refuse("removed", Status::permission_denied("node-removed"))
}

fn refuse(cause: &'static str, status: Status) -> Status {
    metrics::counter!("dtm_cluster_peer_refused_total", "cause" => cause).increment(1);
    status
}

/// Stamps what leaves and checks what comes in.
#[derive(Debug)]
pub struct OriginGuard {
    cluster: ClusterId,
    node: NodeId,
    boot_counter: u64,
    /// The life that this node lives in.
    own: Incarnation,
    /// The highest one that any peer showed.
    seen: AtomicU64,
    roster: Roster,
}

impl OriginGuard {
    /// Of one start of this node; `boot_counter` numbers it.
    pub fn new(cluster: ClusterId, node: NodeId, own: Incarnation, boot_counter: u64) -> Arc<Self> {
        let (seen, roster) = (AtomicU64::new(own.0), Roster::default());
        Arc::new(Self { cluster, node, boot_counter, own, seen, roster })
    }

    /// The life that this node lives in.
    pub fn own(&self) -> Incarnation {
        self.own
    }

    /// Who is heard.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A call that says whose it is.
    pub fn stamp<T>(&self, message: T) -> Request<T> {
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

    /// The peer that speaks, when cluster, incarnation and certificate agree, meta did not remove it
    /// (or a group here still names it) and no later start of it is known.
    pub fn check<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let (certificate, origin) = self.identify(request)?;
        let line = certificate.line();
        match self.roster.hear(line, origin.boot_counter) {
            Ok(listing) => Ok(Peer { node: line.node(), listing }),
            Err(Unheard::Removed) => Err(removed()),
            Err(Unheard::OldCopy) => {
                Err(refuse("old-copy", Status::failed_precondition("old-copy")))
            }
        }
    }

    /// Like [`OriginGuard::check`] for a node that asks what is known of it: nothing is remembered.
    pub fn check_hello<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        Ok(self.identify(request)?.0.line().node())
    }

    /// Like [`OriginGuard::check_hello`], also for a node that lives in another life of the cluster.
    pub fn check_of_any_life<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        Ok(self.identify_in_any(request)?.0.line().node())
    }

    fn identify<'r, T>(
        &self,
        request: &'r Request<T>,
    ) -> Result<(&'r PeerCertificate, Origin), Status> {
        let (certificate, origin) = self.identify_in_any(request)?;
        let seen =
            self.seen.fetch_max(origin.incarnation, Ordering::AcqRel).max(origin.incarnation);
        if origin.incarnation < seen || self.own.0 < seen {
            return Err(refuse("incarnation", Status::failed_precondition("wrong-incarnation")));
        }
        Ok((certificate, origin))
    }

    fn identify_in_any<'r, T>(
        &self,
        request: &'r Request<T>,
    ) -> Result<(&'r PeerCertificate, Origin), Status> {
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
        let certificate = request.extensions().get::<PeerCertificate>();
        let Some(certificate) = certificate.filter(|peer| Some(peer.line().node()) == claimed)
        else {
            let status = Status::permission_denied("the certificate names another node");
            return Err(refuse("certificate", status));
        };
        Ok((certificate, origin))
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn guard(cluster: u8, node: u8, incarnation: u64) -> Arc<OriginGuard> {
        OriginGuard::new(ClusterId([cluster; 16]), NodeId([node; 16]), Incarnation(incarnation), 1)
    }

    fn said_by(peer: &OriginGuard, certified: u8) -> Request<()> {
        let mut request = peer.stamp(());
        let line = Roster::default().accept(NodeId([certified; 16]), CancellationToken::new());
        request.extensions_mut().insert(PeerCertificate::new(line));
        request
    }

    #[test]
    fn only_the_same_life_of_the_same_cluster_is_heard() {
        let own = guard(1, 1, 5);
        assert!(own.check(&said_by(&guard(1, 2, 5), 2)).is_ok());
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
