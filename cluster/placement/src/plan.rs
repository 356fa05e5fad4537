//! What meta says, and the next step from there.
//!
//! ```text
//!  a replica   allocated ──▶ confirmed ──▶ learner ──▶ voter ──▶ leaving ──▶ removed ──▶ retired
//!                                             │          │      another is to     no member:
//!                                             │          │      take its place    its node forgets it
//!                                             └── standby ┘
//!                                                 never votes again
//! ```
//! A replica that leaves votes until one that stays has caught up and votes in its place, so a group
//! never has fewer voters than before. A voter at a site where a layout has none goes on voting until
//! the group has all its voters where they are to be; then it stands by, or leaves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::{StateError, StateRead};
use dtm_types::command::{GroupRow, NodeRow, ReplicaRow};
use dtm_types::{GroupId, NodeId};

use crate::answers::Answers;
use crate::balance::{self, Spread};
use crate::layout::Layout;

/// Members that a group should have: replicas with their nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes.
    pub voters: BTreeMap<u64, NodeId>,
    /// Who learns: to vote when there is need, or to stand by.
    pub learners: BTreeMap<u64, NodeId>,
}

/// What meta says, read at one moment.
pub struct Plan {
    /// Nodes that were not removed.
    pub(crate) nodes: BTreeMap<NodeId, NodeRow>,
    pub(crate) groups: Vec<GroupRow>,
    pub(crate) layout: Layout,
}

impl Plan {
    /// # Errors
    /// The rows cannot be read.
    pub fn read(state: &dyn StateRead) -> Result<Self, StateError> {
        let rows = reads::nodes(state)?.into_iter().filter(|row| !row.removed);
        let nodes = rows.filter_map(|row| Some((NodeId::from_slice(&row.node)?, row))).collect();
        let layout = Layout::of(&reads::layout(state)?);
        Ok(Self { nodes, groups: reads::groups(state)?, layout })
    }

    /// Nodes that were not removed.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRow> {
        &self.nodes
    }

    /// Every group, meta included.
    pub fn groups(&self) -> &[GroupRow] {
        &self.groups
    }

    /// The layout in force.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where a node stands; empty where it is not known.
    pub fn site(&self, node: NodeId) -> &str {
        self.nodes.get(&node).map_or("", |row| &row.site)
    }

    /// Nodes of a site.
    pub(crate) fn nodes_at(&self, site: &str) -> usize {
        self.nodes.values().filter(|row| row.site == site).count()
    }

    /// Replicas of a group that are not removed and whose nodes are there.
    pub(crate) fn live<'a>(
        &'a self,
        group: &'a GroupRow,
    ) -> impl Iterator<Item = (&'a ReplicaRow, NodeId)> {
        let live = group.replicas.iter().filter(|replica| !replica.removed);
        let named = live.filter_map(|row| Some((row, NodeId::from_slice(&row.node)?)));
        named.filter(|(_, node)| self.nodes.contains_key(node))
    }

    /// Replicas of a group that may be its members, with their nodes.
    pub fn replicas(&self, group: &GroupRow) -> BTreeMap<u64, NodeId> {
        let confirmed = self.live(group).filter(|(row, _)| row.confirmed);
        confirmed.map(|(row, node)| (row.replica, node)).collect()
    }

    /// Voters and learners of a group: the oldest replicas vote, each site's share first where the
    /// layout has shares, so that a new one takes nobody's place; the others stand ready. One that
    /// leaves votes only where there are too few others, and stands ready for nothing. One that stands
    /// by never votes.
    pub fn members(&self, group: &GroupRow, voters_max: usize) -> Members {
        let confirmed = || self.live(group).filter(|(row, _)| row.confirmed);
        let by_id = |wanted: fn(&ReplicaRow) -> bool| -> BTreeMap<u64, NodeId> {
            let wanted = confirmed().filter(|(row, _)| wanted(row));
            wanted.map(|(row, node)| (row.replica, node)).collect()
        };
        let stay = by_id(|row| !row.leaving && !row.standby);
        let mut learners = by_id(|row| !row.leaving && row.standby);
        let mut voters = BTreeMap::new();
        let mut shares = self.layout.votes(voters_max);
        for (&replica, &node) in &stay {
            if let Some(left @ 1..) = shares.get_mut(self.site(node)) {
                *left -= 1;
                voters.insert(replica, node);
            }
        }
        for (replica, node) in stay {
            if voters.contains_key(&replica) {
                continue;
            }
            let members = if voters.len() < voters_max { &mut voters } else { &mut learners };
            members.insert(replica, node);
        }
        let missing = voters_max.saturating_sub(voters.len());
        voters.extend(by_id(|row| row.leaving && !row.standby).into_iter().take(missing));
        Members { voters, learners }
    }

    /// Whether a majority of a group's voters say that they hold their replicas: without it the
    /// group cannot change its members, and what looks lost may be all that is left.
    fn is_carried(&self, group: &GroupRow, voters_max: usize, answers: &Answers) -> bool {
        let voters = self.members(group, voters_max).voters;
        let holds = |(replica, node): (&u64, &NodeId)| {
            answers.holds(*node, group.group, *replica) == Some(true)
        };
        2 * voters.iter().filter(|voter| holds(*voter)).count() > voters.len()
    }

    /// The row that a group should have next; `None` when it is as it should be.
    ///
    /// # Panics
    /// Where the row would give a replica id twice.
    pub fn next_row(
        &self,
        group: &GroupRow,
        voters_max: usize,
        answers: &Answers,
    ) -> Option<GroupRow> {
        let is_carried = self.is_carried(group, voters_max, answers);
        let mut row = group.clone();
        for replica in row.replicas.iter_mut().filter(|replica| !replica.removed) {
            let node = NodeId::from_slice(&replica.node).unwrap_or_default();
            match answers.holds(node, group.group, replica.replica) {
                _ if !self.nodes.contains_key(&node) => replica.removed = true,
                Some(true) => replica.confirmed = true,
                // It lost what it held, or gave it up: this id is over.
                Some(false) if replica.confirmed && is_carried => replica.removed = true,
                Some(false) | None => {}
            }
        }
        self.dismiss(&mut row);
        if let Some((node, standby)) = self.vacancy(&row, voters_max, answers) {
            let replica = row.next_replica_id.max(1);
            let known = row.replicas.iter().map(|known| known.replica).max();
            assert!(known < Some(replica), "a replica id is never used twice: {row:?}");
            let node = Bytes::copy_from_slice(&node.0);
            row.replicas.push(ReplicaRow { replica, node, standby, ..ReplicaRow::default() });
            row.next_replica_id = replica + 1;
        }
        (row != *group).then_some(row)
    }

    /// Replicas that stand by where the layout has none leave. Those of meta, of which every node has
    /// one, stand by no longer.
    fn dismiss(&self, row: &mut GroupRow) {
        let is_meta = GroupId(row.group).is_meta();
        for replica in row.replicas.iter_mut().filter(|replica| !replica.removed) {
            let node = NodeId::from_slice(&replica.node).unwrap_or_default();
            let is_wanted = self.has_standby_at(is_meta, self.site(node));
            match is_meta {
                true => replica.standby &= is_wanted,
                false => replica.leaving |= replica.standby && !is_wanted,
            }
        }
    }

    /// Whether the layout has replicas there that stand by. Of meta those of every other site do.
    fn has_standby_at(&self, is_meta: bool, site: &str) -> bool {
        if is_meta {
            self.layout.is_standby() && site != self.layout.primary
        } else {
            self.layout.stands_by_at(site)
        }
    }

    /// Where a group lacks a replica, and whether that one is to stand by. Every node reads meta: who
    /// may do what is decided on the node that is asked.
    fn vacancy(
        &self,
        group: &GroupRow,
        voters_max: usize,
        answers: &Answers,
    ) -> Option<(NodeId, bool)> {
        let (held, kept) = (self.present(group), self.kept(group));
        let spread = || self.spread(answers, voters_max);
        if GroupId(group.group).is_meta() {
            let node = spread().place(&kept, &held)?;
            return Some((node, self.has_standby_at(true, self.site(node))));
        }
        if !self.layout.is_standby() {
            let wanted = voters_max.min(self.nodes.len());
            let is_short = kept.len() < wanted;
            return is_short
                .then(|| spread().place(&kept, &held))
                .flatten()
                .map(|node| (node, false));
        }
        let place_at =
            |site: &str| spread().place_among(&kept, &held, |row: &NodeRow| row.site == site);
        let count_at = |nodes: &BTreeSet<NodeId>, site| {
            nodes.iter().filter(|n| self.site(**n) == site).count()
        };
        let (primary, other) = (self.layout.primary.as_str(), self.layout.other.as_str());
        if count_at(&kept, primary) < voters_max.min(self.nodes_at(primary)) {
            return place_at(primary).map(|node| (node, false));
        }
        let is_short = count_at(&held, other) < voters_max.min(self.nodes_at(other));
        is_short.then(|| place_at(other)).flatten().map(|node| (node, true))
    }

    /// Nodes that have a replica of the group in meta's rows, be it one that leaves.
    fn present(&self, group: &GroupRow) -> BTreeSet<NodeId> {
        self.live(group).map(|(_, node)| node).collect()
    }

    /// Those of them on which it stays, and may vote.
    fn kept(&self, group: &GroupRow) -> BTreeSet<NodeId> {
        let kept = balance::kept(group);
        kept.into_iter().filter(|node| self.nodes.contains_key(node)).collect()
    }

    /// What places are weighed by: nodes that answer and are not drained are able.
    fn spread(&self, answers: &Answers, voters_max: usize) -> Spread<'_> {
        let is_able = |(node, row): &(&NodeId, &NodeRow)| !row.draining && answers.has(**node);
        let able = self.nodes.iter().filter(is_able).map(|(node, _)| *node).collect();
        let mut load = BTreeMap::new();
        for (row, node) in self.groups.iter().flat_map(|group| self.live(group)) {
            *load.entry(node).or_default() += usize::from(!row.leaving);
        }
        Spread { nodes: &self.nodes, able, load, layout: &self.layout, replicas: voters_max }
    }

    /// Whether the members of every group are decided on, created and voted for, as far as rows say.
    fn is_settled(&self, group: &GroupRow, voters_max: usize, answers: &Answers) -> bool {
        self.vacancy(group, voters_max, answers).is_none()
            && self.live(group).all(|(row, _)| row.confirmed && !row.leaving)
    }

    /// The row of the group whose replica should move next: one replica in it leaves. First those on
    /// nodes given up as `dead`, then what the layout has elsewhere and, if wanted, what spreads and
    /// evens out. `None` where nothing is to move, or something is on its way.
    pub fn next_move(
        &self,
        voters_max: usize,
        answers: &Answers,
        dead: &BTreeSet<NodeId>,
        evens_out: bool,
    ) -> Option<GroupRow> {
        let ingest: Vec<GroupRow> =
            self.groups.iter().filter(|group| !GroupId(group.group).is_meta()).cloned().collect();
        if !ingest.iter().all(|group| self.is_settled(group, voters_max, answers)) {
            return None;
        }
        let spread = self.spread(answers, voters_max);
        let of_dead = ingest.iter().find_map(|group| {
            let is_carried = || self.is_carried(group, voters_max, answers);
            let held = self.present(group);
            let has_another = |row: &ReplicaRow| {
                let free = spread.able.iter().filter(|node| !held.contains(node));
                free.copied().any(|node| self.may_have(self.site(node), row.standby))
            };
            let mut live = self.live(group).filter(|(_, node)| dead.contains(node));
            let (_, node) = live.find(|(row, _)| has_another(row) && is_carried())?;
            Some((group.group, node))
        });
        let uneven = || balance::next_move(&ingest, &spread, evens_out);
        let (group, from) = of_dead.or_else(uneven)?;
        let mut row = ingest.into_iter().find(|row| row.group == group)?;
        let is_there = |replica: &&mut ReplicaRow| !replica.removed && replica.node == from.0[..];
        row.replicas.iter_mut().find(is_there)?.leaving = true;
        Some(row)
    }

    /// Whether a site may be given a voter of an ingest group, or a replica that stands by.
    fn may_have(&self, site: &str, standby: bool) -> bool {
        match (self.layout.is_standby(), standby) {
            (true, false) => site == self.layout.primary,
            (_, true) => self.layout.stands_by_at(site),
            (false, false) => true,
        }
    }

    /// The row of a group that has reached its members: what was to leave has left, and what voted
    /// where the layout has no voters stands by or leaves. `None` where there is nothing of that, or
    /// the places are not taken yet.
    pub fn left(&self, group: &GroupRow, voters_max: usize) -> Option<GroupRow> {
        let is_meta = GroupId(group.group).is_meta();
        let stay = self.live(group).filter(|(row, _)| row.confirmed && !row.leaving);
        let stay = stay.filter(|(row, _)| is_meta || !row.standby).count();
        let wanted = if is_meta { self.nodes.len() } else { voters_max.min(self.nodes.len()) };
        let mut row = group.clone();
        let gone = row.replicas.iter_mut().filter(|replica| replica.leaving && !replica.removed);
        // Whose vote was never counted leaves no place to be taken.
        gone.filter(|replica| replica.standby || stay >= wanted)
            .for_each(|replica| replica.removed = true);
        self.relieve(&mut row, voters_max);
        (row != *group).then_some(row)
    }

    /// Replicas that need not vote any more stand by where the layout has such, else they leave. Only
    /// where all voters that a group is to have stay, each where the layout has it.
    fn relieve(&self, row: &mut GroupRow, voters_max: usize) {
        if self.layout.version == 0 {
            return;
        }
        let is_meta = GroupId(row.group).is_meta();
        let voters = self.members(row, voters_max).voters;
        let leaving = leaving(row);
        let sites = voters.values().map(|node| self.site(*node));
        let is_whole = voters.len() >= voters_max
            && voters.keys().all(|replica| !leaving.contains(replica))
            && (!self.layout.is_standby() || self.layout.misplaced(sites, voters_max) == 0);
        if !is_whole {
            return;
        }
        for replica in row.replicas.iter_mut() {
            let is_one = replica.confirmed && !replica.removed && !replica.leaving;
            if !is_one || replica.standby || voters.contains_key(&replica.replica) {
                continue;
            }
            let node = NodeId::from_slice(&replica.node).unwrap_or_default();
            if self.has_standby_at(is_meta, self.site(node)) {
                replica.standby = true;
            } else if !is_meta {
                replica.leaving = true;
            }
        }
    }

    /// Replicas that left their groups and are still on their nodes.
    pub fn retired(&self, answers: &Answers) -> Vec<(u32, u64, NodeId)> {
        let all = self
            .groups
            .iter()
            .flat_map(|group| group.replicas.iter().map(|row| (group.group, row)));
        let left = all.filter(|(_, row)| row.removed && row.leaving);
        let named = left
            .filter_map(|(group, row)| Some((group, row.replica, NodeId::from_slice(&row.node)?)));
        let is_held = |&(group, replica, node): &(u32, u64, NodeId)| {
            answers.holds(node, group, replica) == Some(true)
        };
        named.filter(is_held).collect()
    }
}

/// Replicas of a group that are to leave it.
pub(crate) fn leaving(group: &GroupRow) -> BTreeSet<u64> {
    group.replicas.iter().filter(|row| row.leaving).map(|row| row.replica).collect()
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
