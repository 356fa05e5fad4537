//! Where replicas and leaders should be, from what meta says and what the nodes say of themselves.
//! Pure: `crate::placement` acts on it, `crate::balance` weighs places.
//!
//! ```text
//!  a replica   allocated ──▶ confirmed ──▶ learner ──▶ voter ──▶ leaving ──▶ removed ──▶ retired
//!                                                               another is to     no member:
//!                                                               take its place    its node forgets it
//! ```
//! A replica that leaves votes until one that stays has caught up and votes in its place, so a group
//! never has fewer voters than before.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::StateRead;
use dtm_types::command::{GroupRow, NodeRow, ReplicaRow};
use dtm_types::{GroupId, NodeId};

use crate::balance::{self, Spread};
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
    /// place; the others stand ready. One that leaves votes only where there are too few others, and
    /// stands ready for nothing.
    pub(crate) fn members(
        &self,
        group: &GroupRow,
        voters_max: usize,
    ) -> (BTreeMap<u64, PeerNode>, BTreeMap<u64, PeerNode>) {
        let leaving = leaving(group);
        let (mut voters, mut learners) = (BTreeMap::new(), BTreeMap::new());
        let (last, first): (Vec<_>, Vec<_>) =
            self.replicas(group).into_iter().partition(|(replica, _)| leaving.contains(replica));
        for (replica, peer) in first {
            let members = if voters.len() < voters_max { &mut voters } else { &mut learners };
            members.insert(replica, peer);
        }
        let missing = voters_max.saturating_sub(voters.len());
        voters.extend(last.into_iter().take(missing));
        (voters, learners)
    }

    /// Nodes of each group's voters that stay, ascending: where its leader may be at home.
    fn homely(&self, group: &GroupRow, voters_max: usize) -> Vec<NodeId> {
        let leaving = leaving(group);
        let (voters, _) = self.members(group, voters_max);
        let stay = voters.into_iter().filter(|(replica, _)| !leaving.contains(replica));
        let nodes: BTreeSet<NodeId> = stay.map(|(_, peer)| peer.node).collect();
        nodes.into_iter().collect()
    }

    /// The node that each group is led on when all are able.
    pub(crate) fn homes(&self, voters_max: usize) -> BTreeMap<u32, NodeId> {
        let homely = |group: &GroupRow| (group.group, self.homely(group, voters_max));
        balance::homes(&self.groups.iter().map(homely).collect())
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
        let (held, kept) = (self.present(&row), self.kept(&row));
        if kept.len() < self.wanted(&row, voters_max)
            && let Some(node) = self.spread(survey).place(&kept, &held)
        {
            let replica = row.next_replica_id.max(1);
            let known = row.replicas.iter().map(|known| known.replica).max();
            assert!(known < Some(replica), "a replica id is never used twice: {row:?}");
            let node = Bytes::copy_from_slice(&node.0);
            row.replicas.push(ReplicaRow { replica, node, ..ReplicaRow::default() });
            row.next_replica_id = replica + 1;
        }
        (row != *group).then_some(row)
    }

    /// Nodes that have a replica of the group in meta's rows, be it one that leaves.
    fn present(&self, group: &GroupRow) -> BTreeSet<NodeId> {
        self.with_nodes(group.replicas.iter()).into_values().map(|peer| peer.node).collect()
    }

    /// Those of them on which it stays.
    fn kept(&self, group: &GroupRow) -> BTreeSet<NodeId> {
        let kept = balance::kept(group);
        kept.into_iter().filter(|node| self.nodes.contains_key(node)).collect()
    }

    /// How many replicas a group should have. Every node reads meta: who may do what is decided on
    /// the node that is asked.
    fn wanted(&self, group: &GroupRow, voters_max: usize) -> usize {
        let is_meta = GroupId(group.group).is_meta();
        if is_meta { self.nodes.len() } else { voters_max.min(self.nodes.len()) }
    }

    /// What places are weighed by: nodes that answer and are not drained are able.
    fn spread(&self, survey: &Survey) -> Spread<'_> {
        let is_able =
            |(node, row): &(&NodeId, &NodeRow)| !row.draining && survey.report(**node).is_some();
        let able = self.nodes.iter().filter(is_able).map(|(node, _)| *node).collect();
        let mut load = BTreeMap::new();
        for node in self.groups.iter().flat_map(|group| self.kept(group)) {
            *load.entry(node).or_default() += 1;
        }
        Spread { nodes: &self.nodes, able, load }
    }

    /// Whether the members of every group are decided on, created and voted for, as far as rows say.
    fn is_settled(&self, group: &GroupRow, voters_max: usize) -> bool {
        let live = || group.replicas.iter().filter(|replica| !replica.removed);
        self.kept(group).len() >= self.wanted(group, voters_max)
            && live().all(|replica| replica.confirmed && !replica.leaving)
    }

    /// The row of the group whose replica should move next: one replica in it leaves. First those on
    /// nodes given up as `dead`, then, if wanted, what spreads and evens out. `None` where nothing is to
    /// move, or something is on its way.
    pub(crate) fn next_move(
        &self,
        voters_max: usize,
        survey: &Survey,
        dead: &BTreeSet<NodeId>,
        evens_out: bool,
    ) -> Option<GroupRow> {
        let ingest: Vec<GroupRow> =
            self.groups.iter().filter(|group| !GroupId(group.group).is_meta()).cloned().collect();
        if !ingest.iter().all(|group| self.is_settled(group, voters_max)) {
            return None;
        }
        let spread = self.spread(survey);
        let is_replaceable = |group: &&GroupRow| {
            let held = self.present(group);
            let another = spread.able.iter().any(|node| !held.contains(node));
            another && self.is_carried(group, voters_max, survey)
        };
        let of_dead = ingest.iter().filter(is_replaceable).find_map(|group| {
            Some((group.group, *self.kept(group).iter().find(|node| dead.contains(node))?))
        });
        let uneven = || evens_out.then(|| balance::next_move(&ingest, &spread)).flatten();
        let (group, from) = of_dead.or_else(uneven)?;
        let mut row = ingest.into_iter().find(|row| row.group == group)?;
        let is_there = |replica: &&mut ReplicaRow| !replica.removed && replica.node == from.0[..];
        row.replicas.iter_mut().find(is_there)?.leaving = true;
        Some(row)
    }

    /// The row of a group that has reached its members: what was to leave has left. `None` where
    /// nothing was, or the place is not taken yet.
    pub(crate) fn left(&self, group: &GroupRow, voters_max: usize) -> Option<GroupRow> {
        let stay: BTreeSet<u64> = self.replicas(group).into_keys().collect();
        let stay = stay.difference(&leaving(group)).count();
        let mut row = group.clone();
        let gone = row.replicas.iter_mut().filter(|replica| replica.leaving && !replica.removed);
        let is_taken = stay >= self.wanted(group, voters_max);
        let count = gone.map(|replica| replica.removed = true).count();
        (is_taken && count > 0).then_some(row)
    }

    /// Replicas that left their groups and are still on their nodes.
    pub(crate) fn retired(&self, survey: &Survey) -> Vec<(u32, u64, NodeId)> {
        let all = self
            .groups
            .iter()
            .flat_map(|group| group.replicas.iter().map(|row| (group.group, row)));
        let left = all.filter(|(_, row)| row.removed && row.leaving);
        let named = left
            .filter_map(|(group, row)| Some((group, row.replica, NodeId::from_slice(&row.node)?)));
        let is_held = |&(group, replica, node): &(u32, u64, NodeId)| {
            survey.holds(node, group, replica) == Some(true)
        };
        named.filter(is_held).collect()
    }

    /// The replica that should lead, where another should than the one that does: the one on the
    /// group's home. A group whose home cannot lead or drains is led by any other, and moves only when
    /// its leader is not able itself.
    pub(crate) fn preferred_leader(
        &self,
        group: &GroupRow,
        leader: NodeId,
        voters_max: usize,
        home: Option<NodeId>,
        cannot_lead: impl Fn(NodeId) -> bool,
    ) -> Option<u64> {
        let (voters, _) = self.members(group, voters_max);
        let leaving = leaving(group);
        let mut all: Vec<(NodeId, u64)> =
            voters.into_iter().map(|(id, peer)| (peer.node, id)).collect();
        all.sort_unstable();
        let stays = |node| self.nodes.get(&node).is_some_and(|row| !row.draining);
        let gives_up = |node| all.iter().any(|(of, id)| *of == node && leaving.contains(id));
        let is_able = |node: NodeId| !cannot_lead(node) && stays(node) && !gives_up(node);
        let home = *all.iter().find(|(node, _)| Some(*node) == home).or(all.first())?;
        let voters = all.len();
        let able: Vec<(NodeId, u64)> =
            all.iter().copied().filter(|&(node, _)| is_able(node)).collect();
        let wanted = if is_able(home.0) {
            Some(home)
        } else if is_able(leader) {
            None
        } else {
            stand_in(group.group, voters, &able)
        };
        wanted.filter(|(node, _)| *node != leader).map(|(_, replica)| replica)
    }
}

/// Replicas of a group that are to leave it.
fn leaving(group: &GroupRow) -> BTreeSet<u64> {
    group.replicas.iter().filter(|row| row.leaving).map(|row| row.replica).collect()
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
