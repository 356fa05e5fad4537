//! The way to read a group's state without knowing Raft.

use std::sync::Arc;

use async_trait::async_trait;
use dtm_types::{ErrorCode, GroupId, NodeId};

use super::{RecordStore, StateRead};

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What this node has applied.
    Local,
    /// Everything committed before the call (READ-1): confirmed with the leader.
    Current,
}

/// A consistent view of one group at one applied index.
#[derive(Clone)]
pub struct GroupView {
    /// The group.
    pub group: GroupId,
    /// State rows, frozen at one applied index.
    pub state: Arc<dyn StateRead>,
    /// The group's bundles.
    pub records: Arc<dyn RecordStore>,
    /// Whether everything committed before the call is included.
    pub current: bool,
}

/// Who leads a group, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    /// The node.
    pub node: NodeId,
    /// Its gRPC address for clients.
    pub address: String,
    /// True when it is this node.
    pub is_self: bool,
}

/// Reads groups.
#[async_trait]
pub trait ReadView: Send + Sync {
    /// A view of a group. `Current` waits, bounded, until the leader confirmed and this replica
    /// has caught up. Cancel-safe.
    async fn view(&self, group: GroupId, freshness: Freshness) -> Result<GroupView, ReadError>;

    /// Ingest groups of the cluster, ascending.
    fn ingest_groups(&self) -> Vec<GroupId>;

    /// Who leads, without waiting.
    fn leader(&self, group: GroupId) -> Option<LeaderHint>;

    /// gRPC address of another node to try where this one cannot serve a group: its leader where one
    /// is known that is not gone, else a node that holds a replica. Without waiting.
    fn instead(&self, group: GroupId) -> Option<String>;
}

/// Why a group cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node holds no replica of the group.
    #[error("this node holds no replica of group {0}")]
    NotHere(GroupId),
    /// Currency could not be confirmed in time.
    #[error("group {group} cannot confirm a current read: {cause}")]
    Unavailable {
        /// The group.
        group: GroupId,
        /// In words.
        cause: String,
    },
    /// Stored bytes are damaged here.
    #[error("group {group} is damaged on this node: {cause}")]
    Damaged {
        /// The group.
        group: GroupId,
        /// In words.
        cause: String,
    },
}

impl ReadError {
    /// The code a caller sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotHere(_) | Self::Unavailable { .. } => ErrorCode::Unavailable,
            Self::Damaged { .. } => ErrorCode::Damaged,
        }
    }
}
