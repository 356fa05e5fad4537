//! Between openraft's types and their stored and sent forms. Nothing else translates.
//!
//! A log payload says by its first byte what it is, so that a bundle lies in the log verbatim and is
//! read back as a slice:
//!
//! ```text
//! 0x01 ..= 0x7f   a bundle; the byte is the bundle's own version
//! 0xf0            blank (nothing follows)
//! 0xf1            membership; dtm.cluster.v1.Membership follows
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use dtm_proto::cluster as wire;
use dtm_types::NodeId;
use openraft::vote::RaftLeaderId;
use prost::Message;

use crate::log_store::{LogEntry, LogPosition};
use crate::type_config::{
    BundleBytes, Entry, LeaderId, LogId, Membership, Payload, PeerNode, StoredMembership, Vote,
};

const BUNDLE_LAST: u8 = 0x7f;
const BLANK: u8 = 0xf0;
const MEMBERSHIP: u8 = 0xf1;

/// What was stored or sent does not read as what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A payload of a kind that this software does not know: the group stops on this node.
    #[error("log payload of unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// A payload without a first byte.
    #[error("empty log payload")]
    Empty,
    /// The protobuf inside does not decode.
    #[error("{what} does not decode: {cause}")]
    Malformed {
        /// Which message.
        what: &'static str,
        /// In words.
        cause: String,
    },
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, cause: impl std::fmt::Display) -> Self {
        Self::Malformed { what, cause: cause.to_string() }
    }
}

pub(crate) fn payload_to_bytes(payload: &Payload) -> Bytes {
    match payload {
        Payload::Blank => Bytes::from_static(&[BLANK]),
        Payload::Normal(bundle) => bundle.0.clone(),
        Payload::Membership(membership) => {
            let message = membership_to_wire(membership);
            let mut out = BytesMut::with_capacity(1 + message.encoded_len());
            out.put_u8(MEMBERSHIP);
            message.encode_raw(&mut out);
            out.freeze()
        }
    }
}

/// Bytes of the bundle inside, 0 where there is none.
pub(crate) fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Normal(bundle) => bundle.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    }
}

pub(crate) fn payload_from_bytes(bytes: Bytes) -> Result<Payload, Error> {
    match bytes.first() {
        None => Err(Error::Empty),
        Some(1..=BUNDLE_LAST) => Ok(Payload::Normal(BundleBytes(bytes))),
        Some(&BLANK) => Ok(Payload::Blank),
        Some(&MEMBERSHIP) => {
            let message = wire::Membership::decode(&bytes[1..])
                .map_err(|e| Error::malformed("membership", e))?;
            Ok(Payload::Membership(membership_from_wire(message)?))
        }
        Some(&kind) => Err(Error::UnknownKind(kind)),
    }
}

/// True when the payload is a bundle (the record store serves nothing else).
pub(crate) fn is_bundle(payload: &[u8]) -> bool {
    matches!(payload.first(), Some(1..=BUNDLE_LAST))
}

pub(crate) fn entry_to_log(entry: &Entry) -> LogEntry {
    LogEntry {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        leader: entry.log_id.leader_id.node_id,
        payload: payload_to_bytes(&entry.payload),
    }
}

pub(crate) fn entry_from_log(entry: LogEntry) -> Result<Entry, Error> {
    let log_id = log_id(entry.term, entry.leader, entry.index);
    Ok(Entry { log_id, payload: payload_from_bytes(entry.payload)? })
}

pub(crate) fn log_id(term: u64, leader: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, leader), index)
}

pub(crate) fn position(log_id: &LogId) -> LogPosition {
    let LeaderId { term, node_id } = log_id.leader_id;
    LogPosition { index: log_id.index, term, leader: node_id }
}

pub(crate) fn log_id_of(position: LogPosition) -> LogId {
    log_id(position.term, position.leader, position.index)
}

pub(crate) fn log_id_to_wire(log_id: &LogId) -> wire::LogId {
    let LeaderId { term, node_id } = log_id.leader_id;
    wire::LogId { term, leader: node_id, index: log_id.index }
}

pub(crate) fn log_id_from_wire(message: wire::LogId) -> LogId {
    log_id(message.term, message.leader, message.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    let LeaderId { term, node_id } = vote.leader_id;
    wire::Vote { term, replica: node_id, committed: vote.committed }
}

pub(crate) fn vote_from_wire(message: Option<wire::Vote>) -> Result<Vote, Error> {
    let message = message.ok_or(Error::Missing("vote"))?;
    let leader_id = LeaderId::new(message.term, message.replica);
    Ok(Vote { leader_id, committed: message.committed })
}

pub(crate) fn vote_to_bytes(vote: &Vote) -> Bytes {
    vote_to_wire(vote).encode_to_vec().into()
}

pub(crate) fn vote_from_bytes(bytes: &[u8]) -> Result<Vote, Error> {
    let message = wire::Vote::decode(bytes).map_err(|e| Error::malformed("vote", e))?;
    vote_from_wire(Some(message))
}

pub(crate) fn log_id_to_bytes(log_id: &LogId) -> Bytes {
    log_id_to_wire(log_id).encode_to_vec().into()
}

pub(crate) fn log_id_from_bytes(bytes: &[u8]) -> Result<LogId, Error> {
    let message = wire::LogId::decode(bytes).map_err(|e| Error::malformed("log id", e))?;
    Ok(log_id_from_wire(message))
}

pub(crate) fn membership_to_wire(membership: &Membership) -> wire::Membership {
    let configs = membership.get_joint_config().iter();
    let members = membership.nodes();
    wire::Membership {
        configs: configs
            .map(|set| wire::VoterSet { replicas: set.iter().copied().collect() })
            .collect(),
        members: members
            .map(|(&replica, node)| wire::Member { replica, node: Some(node_to_wire(node)) })
            .collect(),
    }
}

pub(crate) fn membership_from_wire(message: wire::Membership) -> Result<Membership, Error> {
    let configs: Vec<BTreeSet<u64>> =
        message.configs.into_iter().map(|set| set.replicas.into_iter().collect()).collect();
    let mut nodes = std::collections::BTreeMap::new();
    for member in message.members {
        let node = member.node.ok_or(Error::Missing("node of a member"))?;
        nodes.insert(member.replica, node_from_wire(node)?);
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|e| Error::malformed("membership", e))
}

pub(crate) fn stored_membership_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_wire(
    message: Option<wire::StoredMembership>,
) -> Result<StoredMembership, Error> {
    let Some(message) = message else {
        return Ok(StoredMembership::default());
    };
    let membership = membership_from_wire(message.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(message.log_id.map(log_id_from_wire), membership))
}

pub(crate) fn node_to_wire(node: &PeerNode) -> wire::PeerNode {
    wire::PeerNode {
        node: Bytes::copy_from_slice(&node.node.0),
        site: node.site.clone(),
        zone: node.zone.clone(),
        peer_address: node.peer_address.clone(),
        grpc_address: node.grpc_address.clone(),
        https_address: node.https_address.clone(),
    }
}

pub(crate) fn node_from_wire(message: wire::PeerNode) -> Result<PeerNode, Error> {
    let node = NodeId::from_slice(&message.node).ok_or(Error::Missing("node id of 16 bytes"))?;
    Ok(PeerNode {
        node,
        site: message.site,
        zone: message.zone,
        peer_address: message.peer_address,
        grpc_address: message.grpc_address,
        https_address: message.https_address,
    })
}

pub(crate) fn entry_to_wire(entry: &Entry) -> wire::Entry {
    wire::Entry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: payload_to_bytes(&entry.payload),
    }
}

pub(crate) fn entry_from_wire(message: wire::Entry) -> Result<Entry, Error> {
    let log_id = message.log_id.ok_or(Error::Missing("log id of an entry"))?;
    Ok(Entry { log_id: log_id_from_wire(log_id), payload: payload_from_bytes(message.payload)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> PeerNode {
        PeerNode { node: NodeId([byte; 16]), peer_address: "h:1".into(), ..PeerNode::default() }
    }

    #[test]
    fn payloads_survive_the_log() {
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let nodes = [(1, node(1)), (2, node(2)), (3, node(3)), (4, node(4))];
        let nodes = std::collections::BTreeMap::from(nodes);
        let membership = Membership::new(configs, nodes).expect("joint sets of members");
        let bundle = Bytes::from_static(&[1, 2, 3]);
        let payloads = [
            Payload::Blank,
            Payload::Normal(BundleBytes(bundle.clone())),
            Payload::Membership(membership),
        ];
        for payload in payloads {
            let entry = Entry { log_id: log_id(3, 2, 9), payload };
            let stored = entry_to_log(&entry);
            assert_eq!(entry_from_log(stored).expect("reads back"), entry);
        }
        let stored = payload_to_bytes(&Payload::Normal(BundleBytes(bundle.clone())));
        assert_eq!(stored.as_ptr(), bundle.as_ptr(), "a bundle is not copied");
    }

    #[test]
    fn unknown_kinds_are_refused() {
        assert_eq!(payload_from_bytes(Bytes::new()), Err(Error::Empty));
        assert_eq!(payload_from_bytes(Bytes::from_static(&[0])), Err(Error::UnknownKind(0)));
        assert_eq!(payload_from_bytes(Bytes::from_static(&[0xff])), Err(Error::UnknownKind(0xff)));
    }
}
