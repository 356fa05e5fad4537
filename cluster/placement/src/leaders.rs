//! Which node should lead each group, given who votes.

use std::collections::{BTreeMap, BTreeSet};

use dtm_types::NodeId;
use dtm_types::command::GroupRow;

use crate::balance;
use crate::plan::{Plan, leaving};

/// Whose turn it is to lead when the usual leader cannot: groups of one node spread over the
/// others. `others` is in order of the nodes.
pub fn stand_in<T: Copy>(group: u32, voters: usize, others: &[T]) -> Option<T> {
    let turn = group as usize / voters.max(1);
    others.get(turn % others.len().max(1)).copied()
}

impl Plan {
    /// Nodes of each group's voters that stay, ascending: where its leader may be at home. Where the
    /// layout has a primary, those there, if there are any.
    fn homely(&self, group: &GroupRow, voters_max: usize) -> Vec<NodeId> {
        let leaving = leaving(group);
        let voters = self.members(group, voters_max).voters;
        let stay = voters.into_iter().filter(|(replica, _)| !leaving.contains(replica));
        let nodes: BTreeSet<NodeId> = stay.map(|(_, node)| node).collect();
        let best = nodes.iter().map(|&node| self.rank(node)).min();
        nodes.into_iter().filter(|&node| Some(self.rank(node)) == best).collect()
    }

    /// The node that each group is led on when all are able.
    pub fn homes(&self, voters_max: usize) -> BTreeMap<u32, NodeId> {
        let homely = |group: &GroupRow| (group.group, self.homely(group, voters_max));
        balance::homes(&self.groups().iter().map(homely).collect())
    }

    fn rank(&self, node: NodeId) -> u8 {
        self.layout().rank(self.site(node))
    }

    /// The replica that should lead, where another should than the one that does: the one on the
    /// group's home. A group whose home cannot lead or drains is led by any other, and moves only when
    /// its leader is not able itself, or stands at a site where no group is to be led while another
    /// can.
    pub fn preferred_leader(
        &self,
        group: &GroupRow,
        leader: NodeId,
        voters_max: usize,
        home: Option<NodeId>,
        cannot_lead: impl Fn(NodeId) -> bool,
    ) -> Option<u64> {
        let voters = self.members(group, voters_max).voters;
        let leaving = leaving(group);
        let mut all: Vec<(NodeId, u64)> =
            voters.into_iter().map(|(replica, node)| (node, replica)).collect();
        all.sort_unstable();
        let stays = |node| self.nodes().get(&node).is_some_and(|row| !row.draining);
        let gives_up = |node| all.iter().any(|(of, id)| *of == node && leaving.contains(id));
        let can = |node: NodeId| !cannot_lead(node) && stays(node) && !gives_up(node);
        let ranks = all.iter().filter(|(node, _)| can(*node)).map(|(node, _)| self.rank(*node));
        let best = ranks.min();
        let is_able = |node: NodeId| can(node) && best.is_none_or(|best| self.rank(node) <= best);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_one_node_spread_over_the_others() {
        // Groups 2, 5, 8, 11 are at home on the third node.
        let chosen: Vec<_> = [2, 5, 8, 11].map(|group| stand_in(group, 3, &['a', 'b'])).into();
        assert_eq!(chosen, ['a', 'b', 'a', 'b'].map(Some));
        assert_eq!(stand_in::<char>(1, 3, &[]), None);
        assert_eq!(stand_in(1, 0, &['a']), Some('a'));
    }
}
