//! Where replicas and leaders should be, from what meta says and what the nodes say of themselves.
//! Pure: `crate::placement` acts on it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::StateRead;
use dtm_types::command::{GroupRow, NodeRow, ReplicaRow};
use dtm_types::{GroupId, NodeId};

use crate::error::Error;
use crate::survey::Survey;
use crate::takeover::stand_in;
use crate::type_config::PeerNode;

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

/// What meta says, read at one moment.
pub(crate) struct Plan {
    /// Nodes that were not removed.
    nodes: BTreeMap<NodeId, NodeRow>,
    groups: Vec<GroupRow>,
}

impl Plan {
    pub(crate) fn read(state: &dyn StateRead) -> Result<Self, Error> {
        let rows = reads::nodes(state)?.into_iter().filter(|row| !row.removed);
        let nodes = rows.filter_map(|row| Some((NodeId::from_slice(&row.node)?, row))).collect();
        Ok(Self { nodes, groups: reads::groups(state)? })
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<NodeId, NodeRow> {
        &self.nodes
    }

    pub(crate) fn groups(&self) -> &[GroupRow] {
        &self.groups
    }

    /// Replicas of a group that may be its members, with their nodes.
    pub(crate) fn replicas(&self, group: &GroupRow) -> BTreeMap<u64, PeerNode> {
        self.with_nodes(group.replicas.iter().filter(|replica| replica.confirmed))
    }

    fn with_nodes<'a>(
        &self,
        replicas: impl Iterator<Item = &'a ReplicaRow>,
    ) -> BTreeMap<u64, PeerNode> {
        let live = replicas.filter(|replica| !replica.removed);
        live.filter_map(|replica| {
            let row = self.nodes.get(&NodeId::from_slice(&replica.node)?)?;
            Some((replica.replica, peer_of(row)?))
        })
        .collect()
    }

    /// Voters and learners of a group: the oldest replicas vote, so that a new one takes nobody's
    /// place; the others stand ready.
    pub(crate) fn members(
        &self,
        group: &GroupRow,
        voters_max: usize,
    ) -> (BTreeMap<u64, PeerNode>, BTreeMap<u64, PeerNode>) {
        let mut voters = self.replicas(group);
        let learners = match voters.keys().nth(voters_max).copied() {
            Some(first) => voters.split_off(&first),
            None => BTreeMap::new(),
        };
        (voters, learners)
    }

    /// Whether a majority of a group's voters say that they hold their replicas: without it the
    /// group cannot change its members, and what looks lost may be all that is left.
    fn is_carried(&self, group: &GroupRow, voters_max: usize, survey: &Survey) -> bool {
        let (voters, _) = self.members(group, voters_max);
        let holds = |(replica, peer): (&u64, &PeerNode)| {
            survey.holds(peer.node, group.group, *replica) == Some(true)
        };
        2 * voters.iter().filter(|voter| holds(*voter)).count() > voters.len()
    }

    /// The row that a group should have next; `None` when it is as it should be.
    pub(crate) fn next_row(
        &self,
        group: &GroupRow,
        voters_max: usize,
        survey: &Survey,
    ) -> Option<GroupRow> {
        let is_carried = self.is_carried(group, voters_max, survey);
        let mut row = group.clone();
        for replica in row.replicas.iter_mut().filter(|replica| !replica.removed) {
            let node = NodeId::from_slice(&replica.node).unwrap_or_default();
            match survey.holds(node, group.group, replica.replica) {
                _ if !self.nodes.contains_key(&node) => replica.removed = true,
                Some(true) => replica.confirmed = true,
                // It lost what it held, or gave it up: this id is over.
                Some(false) if replica.confirmed && is_carried => replica.removed = true,
                Some(false) | None => {}
            }
        }
        let present: BTreeSet<NodeId> =
            self.with_nodes(row.replicas.iter()).values().map(|peer| peer.node).collect();
        // Every node reads meta: who may do what is decided on the node that is asked.
        let is_meta = GroupId(row.group).is_meta();
        let wanted = if is_meta { self.nodes.len() } else { voters_max.min(self.nodes.len()) };
        if present.len() < wanted {
            let load = self.load();
            let free = self.nodes.keys().filter(|node| !present.contains(node));
            let node = free.min_by_key(|node| (load.get(node).copied().unwrap_or(0), **node))?;
            let replica = row.next_replica_id.max(1);
            let bytes = Bytes::copy_from_slice(&node.0);
            let known = row.replicas.iter().map(|known| known.replica).max();
            assert!(known < Some(replica), "a replica id is never used twice: {row:?}");
            row.replicas.push(ReplicaRow {
                replica,
                node: bytes,
                removed: false,
                confirmed: false,
            });
            row.next_replica_id = replica + 1;
        }
        (row != *group).then_some(row)
    }

    /// Replicas a node.
    fn load(&self) -> BTreeMap<NodeId, usize> {
        let mut load = BTreeMap::new();
        let all = self.groups.iter();
        for peer in all.flat_map(|group| self.with_nodes(group.replicas.iter()).into_values()) {
            *load.entry(peer.node).or_default() += 1;
        }
        load
    }

    /// The replica that should lead, where another should than the one that does: groups go round
    /// over their nodes. A group whose node cannot lead or drains is led by any other, and moves
    /// only when its leader is not able itself.
    pub(crate) fn preferred_leader(
        &self,
        group: &GroupRow,
        leader: NodeId,
        voters_max: usize,
        cannot_lead: impl Fn(NodeId) -> bool,
    ) -> Option<u64> {
        let (voters, _) = self.members(group, voters_max);
        let mut all: Vec<(NodeId, u64)> =
            voters.into_iter().map(|(id, peer)| (peer.node, id)).collect();
        all.sort_unstable();
        let stays = |node| self.nodes.get(&node).is_some_and(|row| !row.draining);
        let is_able = |node: NodeId| !cannot_lead(node) && stays(node);
        let home = *all.get(group.group as usize % all.len().max(1))?;
        let voters = all.len();
        all.retain(|&(node, _)| is_able(node));
        let wanted = if is_able(home.0) {
            Some(home)
        } else if is_able(leader) {
            None
        } else {
            stand_in(group.group, voters, &all)
        };
        wanted.filter(|(node, _)| *node != leader).map(|(_, replica)| replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8, draining: bool) -> NodeRow {
        NodeRow { node: vec![byte; 16].into(), draining, ..NodeRow::default() }
    }

    fn plan(nodes: &[NodeRow], groups: Vec<GroupRow>) -> Plan {
        let nodes =
            nodes.iter().map(|row| (NodeId::from_slice(&row.node).expect("16"), row.clone()));
        Plan { nodes: nodes.collect(), groups }
    }

    fn group(id: u32, nodes: &[u8]) -> GroupRow {
        let replicas = nodes.iter().zip(1..).map(|(&byte, replica)| ReplicaRow {
            replica,
            node: vec![byte; 16].into(),
            removed: false,
            confirmed: true,
        });
        let next_replica_id = nodes.len() as u64 + 1;
        GroupRow { group: id, replicas: replicas.collect(), next_replica_id }
    }

    #[test]
    fn a_group_grows_one_fresh_replica_at_a_time() {
        let nodes = [node(1, false), node(2, false), node(3, false), node(4, false)];
        let (plan, nobody) = (plan(&nodes, vec![group(1, &[1])]), Survey::default());
        let second = plan.next_row(&plan.groups[0], 3, &nobody).expect("too few");
        assert_eq!((second.replicas.len(), second.next_replica_id), (2, 3));
        let third = plan.next_row(&second, 3, &nobody).expect("too few");
        assert_eq!(third.replicas[2].replica, 3);
        assert_eq!(plan.next_row(&third, 3, &nobody), None);
    }

    #[test]
    fn a_removed_node_is_replaced_under_a_new_id() {
        let nodes = [node(1, false), node(2, false), node(4, false)];
        let (plan, nobody) = (plan(&nodes, vec![group(1, &[1, 2, 3])]), Survey::default());
        let row = plan.next_row(&plan.groups[0], 3, &nobody).expect("one is gone");
        assert!(row.replicas[2].removed);
        assert_eq!((row.replicas[3].replica, row.next_replica_id), (4, 5));
        assert_eq!(plan.next_row(&row, 3, &nobody), None);
    }

    // A node says that it holds a replica, then that it does not.
    #[test]
    fn an_id_is_confirmed_once_and_lost_for_good() {
        let nodes = [node(1, false), node(2, false), node(3, false)];
        let mut allocated = group(1, &[1, 2, 3]);
        allocated.replicas[1].confirmed = false;
        let plan = plan(&nodes, vec![allocated]);
        let allocated = &plan.groups[0];
        let id = |byte| NodeId([byte; 16]);
        let said = |held: &[(u32, u64)]| {
            Survey::of(&[(id(1), &[(1, 1)]), (id(2), held), (id(3), &[(1, 3)])])
        };
        assert_eq!(plan.next_row(allocated, 3, &said(&[])), None, "to be created");
        assert_eq!(plan.replicas(allocated).len(), 2, "no member before it is confirmed");
        let confirmed = plan.next_row(allocated, 3, &said(&[(1, 2)])).expect("held");
        assert!(confirmed.replicas[1].confirmed);
        assert_eq!(plan.next_row(&confirmed, 3, &said(&[(1, 2)])), None);
        let lost = plan.next_row(&confirmed, 3, &said(&[(1, 1), (2, 2)])).expect("lost");
        assert!(lost.replicas[1].removed);
        let fresh = &lost.replicas[3];
        assert_eq!((fresh.replica, fresh.confirmed, lost.next_replica_id), (4, false, 5));
        assert_eq!(fresh.node, lost.replicas[1].node, "the same node, under another id");
    }

    // holds: ING-1
    #[test]
    fn nothing_is_given_up_while_no_majority_holds_the_group() {
        let nodes = [node(1, false), node(2, false), node(3, false)];
        let plan = plan(&nodes, vec![group(1, &[1, 2, 3])]);
        let id = |byte| NodeId([byte; 16]);
        let two_lost = Survey::of(&[(id(1), &[(1, 1)]), (id(2), &[]), (id(3), &[])]);
        assert_eq!(plan.next_row(&plan.groups[0], 3, &two_lost), None);
        let one_silent = Survey::of(&[(id(1), &[(1, 1)]), (id(2), &[])]);
        assert_eq!(plan.next_row(&plan.groups[0], 3, &one_silent), None);
    }

    #[test]
    fn meta_is_on_every_node_and_the_oldest_replicas_vote() {
        let nodes: Vec<NodeRow> = (1..=5).map(|byte| node(byte, false)).collect();
        let mut rest = plan(&nodes, Vec::new());
        let mut row = group(0, &[1, 2, 3]);
        while let Some(mut next) = rest.next_row(&row, 3, &Survey::default()) {
            next.replicas.iter_mut().for_each(|replica| replica.confirmed = true);
            row = next;
        }
        assert_eq!(row.replicas.len(), 5);
        let ids = |members: &BTreeMap<u64, PeerNode>| members.keys().copied().collect::<Vec<_>>();
        let (voters, learners) = rest.members(&row, 3);
        assert_eq!((ids(&voters), ids(&learners)), (vec![1, 2, 3], vec![4, 5]));
        let moved = rest.preferred_leader(&row, NodeId([5; 16]), 3, |_| false);
        assert!(moved.is_some_and(|leader| leader <= 3), "a learner does not lead: {moved:?}");
        rest.nodes.remove(&NodeId([2; 16]));
        let (voters, learners) = rest.members(&row, 3);
        assert_eq!((ids(&voters), ids(&learners)), (vec![1, 3, 4], vec![5]));
    }

    #[test]
    fn leaders_go_round_and_leave_draining_nodes_alone() {
        let groups: Vec<GroupRow> = (0..6).map(|id| group(id, &[1, 2, 3])).collect();
        let all = plan(&[node(1, false), node(2, false), node(3, false)], groups.clone());
        let id = |byte| NodeId([byte; 16]);
        let chosen = |plan: &Plan, leader, gone: u8| -> Vec<_> {
            let chosen = |g| plan.preferred_leader(g, id(leader), 3, |node| node == id(gone));
            groups.iter().map(chosen).collect()
        };
        assert_eq!(chosen(&all, 1, 0), [None, Some(2), Some(3), None, Some(2), Some(3)]);
        // Whoever took over from a dead node keeps what it has.
        assert_eq!(chosen(&all, 1, 3), [None, Some(2), None, None, Some(2), None]);
        let one_drains = plan(&[node(1, false), node(2, true), node(3, false)], groups.clone());
        let left = chosen(&one_drains, 2, 0);
        assert_eq!(left, [Some(1), Some(1), Some(3), Some(1), Some(3), Some(3)]);
    }
}
