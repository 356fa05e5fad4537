//! The types that openraft is given: what is replicated, who replicates it, how answers come back.

use std::fmt;

use bytes::Bytes;
use dtm_types::NodeId;
use dtm_types::command::{NodeRow, Outcome};
use openraft::RaftTypeConfig;
use openraft::impls::{BoxedErrorSource, InlineBatch, leader_id_adv};
use openraft::raft::responder::Responder;

use crate::runtime::Runtime;

/// openraft, instantiated for this system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = BundleBytes;
    type R = Outcomes;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<BundleBytes, u64, PeerNode>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = CallbackResponder<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, PeerNode>;
pub(crate) type Entry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Payload = openraft::EntryPayload<BundleBytes, u64, PeerNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, PeerNode>;
pub(crate) type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// A bundle as it is stored (`dtm_types::bundle`): replicated verbatim.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct BundleBytes(pub(crate) Bytes);

impl fmt::Debug for BundleBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bundle of {} bytes", self.0.len())
    }
}

impl fmt::Display for BundleBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply decided, one outcome a command of the bundle, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

/// A node as the membership of a group names it. Addresses change by a membership entry only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// The node.
    pub node: NodeId,
    /// Its site.
    pub site: String,
    /// Its zone in the site.
    pub zone: String,
    /// Where other nodes reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub grpc_address: String,
    /// Its HTTPS port, `host:port`.
    pub https_address: String,
}

/// A node's row as a group's membership names it.
pub(crate) fn peer_of(row: &NodeRow) -> Option<PeerNode> {
    Some(PeerNode {
        node: NodeId::from_slice(&row.node)?,
        site: row.site.clone(),
        zone: row.zone.clone(),
        peer_address: row.peer_address.clone(),
        grpc_address: row.grpc_address.clone(),
        https_address: row.https_address.clone(),
    })
}

/// Calls a closure with the result; the closure is dropped uncalled when the group stops.
pub(crate) struct CallbackResponder<T>(Box<dyn FnOnce(T) + Send>);

impl<T> CallbackResponder<T> {
    /// Wraps a closure. It runs on the apply path: it must be cheap.
    pub(crate) fn new(callback: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(callback))
    }
}

impl<T> Responder<TypeConfig, T> for CallbackResponder<T>
where
    T: openraft::OptionalSend + 'static,
{
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
