//! What an operator sees of a node's groups.

use std::sync::Arc;

use dtm_compare::RowsCompared;
use dtm_types::{GroupId, NodeId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;

use crate::applied::Head;
use crate::group::Group;
use crate::lag::ReplicaLag;
use crate::lifecycle::ClusterNode;
use crate::supervise::Down;

/// One replica, as the group's leader sees it (only its own, on a follower).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// False for a learner.
    pub is_voter: bool,
    /// Last index known to be on its disk; `None` where this node does not know.
    pub matched: Option<u64>,
}

/// One group, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The replica on this node.
    pub replica: ReplicaId,
    /// Raft term.
    pub term: u64,
    /// Who leads, where known.
    pub leader: Option<NodeId>,
    /// Last index in this node's log.
    pub last_index: u64,
    /// Ledger at the applied index.
    pub head: Head,
    /// Index through which rows are on disk.
    pub flushed_index: u64,
    /// Index through which the log is purged.
    pub purged_index: u64,
    /// The version that the group is written in, as applied here.
    pub version: u8,
    /// Bundles at or below the applied index that are not held here (yet).
    pub missing_bundles: u64,
    /// Bytes of commands not yet answered.
    pub queued_bytes: usize,
    /// Members.
    pub replicas: Vec<ReplicaStatus>,
    /// On the leader: how far those at other sites are behind.
    pub lags: Vec<ReplicaLag>,
    /// On the leader, where the layout has a standby: copies there that answer and are not late.
    pub standby_sets: Option<usize>,
    /// On the leader: what it found when it compared the rows of the replicas last.
    pub compared: Option<RowsCompared>,
    /// A safety property that was seen broken (RAFT-1).
    pub alarm: Option<String>,
    /// Why the group does not serve here, where it has stopped.
    pub failure: Option<String>,
    /// What keeps the replica from voting and serving while it is mended.
    pub recovering: Option<String>,
}

impl Group {
    fn status(&self, lags: Vec<ReplicaLag>, standby_sets: Option<usize>) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let replication = metrics.replication.as_ref();
        let matched = |replica: u64| {
            if replica == self.replica.0 {
                return metrics.last_log_index;
            }
            let matched = replication.and_then(|all| all.get(&replica).copied().flatten());
            matched.map(|log_id| log_id.index)
        };
        let voters: Vec<u64> = membership.voter_ids().collect();
        let replicas = membership.nodes().map(|(&replica, peer)| ReplicaStatus {
            replica: ReplicaId(replica),
            node: peer.node,
            is_voter: voters.contains(&replica),
            matched: matched(replica),
        });
        let leader = metrics.current_leader.and_then(|leader| membership.get_node(&leader));
        let stopped = metrics.running_state.as_ref().err().map(ToString::to_string);
        GroupStatus {
            group: self.id,
            replica: self.replica,
            term: metrics.current_term,
            leader: leader.map(|peer| peer.node),
            last_index: metrics.last_log_index.unwrap_or(0),
            head: self.applied.head(),
            flushed_index: self.applied.flushed(),
            purged_index: metrics.purged.map_or(0, |purged| purged.index),
            version: self.applied.version(),
            missing_bundles: self.backfill.missing.count(),
            queued_bytes: self.bundler.queued_bytes(),
            replicas: replicas.collect(),
            lags,
            standby_sets,
            compared: self.applied.comparison.told(),
            alarm: self.applied.alarm(),
            failure: self.applied.failure().or(stopped),
            recovering: None,
        }
    }
}

impl Down {
    fn status(self, group: GroupId) -> GroupStatus {
        let marks = self.log.map(|log| log.marks()).unwrap_or_default();
        GroupStatus {
            group,
            replica: self.replica,
            term: 0,
            leader: None,
            last_index: marks.last.map_or(0, |last| last.index),
            head: Head::default(),
            flushed_index: 0,
            purged_index: marks.purged.map_or(0, |purged| purged.index),
            version: 0,
            missing_bundles: 0,
            queued_bytes: 0,
            replicas: Vec::new(),
            lags: Vec::new(),
            standby_sets: None,
            compared: None,
            alarm: None,
            failure: None,
            recovering: Some(self.cause),
        }
    }
}

impl ClusterNode {
    /// Every group with a replica on this node, ascending.
    pub fn status(&self) -> Vec<GroupStatus> {
        let running = self.registry().groups();
        let lags = self.lags();
        let status =
            |group: &Arc<Group>| group.status(lags.of(group.id), lags.standby_sets(group.id));
        let mut all: Vec<GroupStatus> = running.iter().map(status).collect();
        all.extend(self.registry().down().into_iter().map(|(group, down)| down.status(group)));
        all.sort_by_key(|status| status.group);
        all
    }
}
