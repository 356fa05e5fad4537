//! What can go wrong when a node's groups are started, stopped or changed.

use dtm_machine::seams::StateError;
use dtm_types::{GroupId, NodeId, ReplicaId};

use crate::log_store::LogError;

/// Errors of the cluster layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log refused.
    #[error("log of group {group}")]
    Log {
        /// The group.
        group: GroupId,
        /// Why.
        #[source]
        source: LogError,
    },
    /// The state refused.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file beside log and rows.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No majority of the group's voters answers its leader: nothing is confirmed meanwhile.
    #[error("{}", no_majority(.answering, .voters))]
    NoMajority {
        /// The group.
        group: GroupId,
        /// Replicas that answer, the leader's own among them.
        answering: usize,
        /// Replicas that vote.
        voters: usize,
    },
    /// Another replica of the group leads now.
    #[error("the group has another leader now")]
    Moved {
        /// The group.
        group: GroupId,
    },
    /// openraft ended or refused.
    #[error("raft of group {group}: {cause}")]
    Raft {
        /// The group.
        group: GroupId,
        /// In words.
        cause: String,
    },
    /// Raft settings that do not fit together.
    #[error("raft settings: {0}")]
    Settings(String),
    /// Another replica of the group is here already.
    #[error("group {group} has replica {present} here, not {asked}")]
    OtherReplica {
        /// The group.
        group: GroupId,
        /// Here.
        present: ReplicaId,
        /// Asked for.
        asked: ReplicaId,
    },
    /// The damaged replica needs repair before it may vote.
    #[error("replica {replica} of group {group} is recovering: {cause}")]
    Recovering {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
        /// In words.
        cause: String,
    },
    /// A replica of the group is being mended here: none is made meanwhile.
    #[error("a replica of group {group} is being mended here, try again")]
    Mending {
        /// The group.
        group: GroupId,
    },
    /// A later start of this node is known: its disk is an old copy.
    #[error(
        "this disk is an old copy: node {by} knows start {known} of this node, this one would be \
         {own}; put the newest disk back, or remove the node and join it anew under a new id"
    )]
    OldCopy {
        /// Who knows it.
        by: NodeId,
        /// The start it knows.
        known: u64,
        /// This one.
        own: u64,
    },
    /// A log of this node lacks what its replica told a leader that it holds: its disk is an old copy.
    #[error(
        "this disk is an old copy: node {by} knows that this node held index {through} of group {group}, \
         which it lacks; put the newest disk back, or remove the node and join it anew under a new id"
    )]
    WentBack {
        /// Who knows it.
        by: NodeId,
        /// The group.
        group: GroupId,
        /// The last index that it told.
        through: u64,
    },
    /// The cluster goes on without this node.
    #[error(
        "this node was removed from the cluster, says node {by}; it comes back only under a new id: \
         an empty folder and `dtm cluster join`"
    )]
    NodeRemoved {
        /// Who says so.
        by: NodeId,
    },
    /// No such group or node.
    #[error("{0} is not known")]
    Unknown(String),
    /// The replicas found on this node's disk do not all run yet.
    #[error("this node is still starting; it is asked again by itself")]
    Starting,
    /// It did not happen in time; it may still happen.
    #[error("{0} took too long")]
    Timeout(String),
    /// A command was refused.
    #[error("refused: {0}")]
    Refused(String),
    /// A command found no way.
    #[error(transparent)]
    Propose(#[from] dtm_machine::seams::ProposeError),
}

/// Without the group, which whoever shows it names, and without nodes and addresses: sources read it.
pub(crate) fn no_majority(answering: &usize, voters: &usize) -> String {
    format!("no majority, {answering} of {voters} replicas answer")
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Log { source, .. } => matches!(source, LogError::DiskFull),
            Self::Starting | Self::Mending { .. } => true,
            Self::NoMajority { .. } | Self::Moved { .. } => true,
            Self::Timeout(_) | Self::Raft { .. } | Self::Propose(_) => true,
            Self::State(_)
            | Self::File { .. }
            | Self::Settings(_)
            | Self::OtherReplica { .. }
            | Self::Recovering { .. }
            | Self::OldCopy { .. }
            | Self::WentBack { .. }
            | Self::NodeRemoved { .. }
            | Self::Unknown(_)
            | Self::Refused(_) => false,
        }
    }
}
