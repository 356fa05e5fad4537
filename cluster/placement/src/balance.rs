//! Which replica should move next, and which node should lead each group. `crate::plan` asks.
//!
//! ```text
//!  moves    one at a time in the whole cluster, and only where every group is as it should be:
//!           to where the layout has it, out of a site or zone that holds several replicas of the
//!           group into one that has fewer, else from the fullest node to the emptiest while they differ by two
//!  homes    groups go round over their voters; where some node is home to two more than another
//!           could be, groups shift along a chain of nodes that hold them
//! ```

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dtm_types::NodeId;
use dtm_types::command::{GroupRow, NodeRow, ReplicaRow};

use crate::layout::Layout;

/// How many replicas of a group are where the layout has none, how many share a site, and how many a
/// zone, beyond the first in each: less is better, in this order.
pub(crate) type Crowd = (usize, usize, usize);

/// What a placement is judged by.
pub(crate) struct Spread<'a> {
    /// Nodes that were not removed.
    pub(crate) nodes: &'a BTreeMap<NodeId, NodeRow>,
    /// Nodes that may be given replicas: they answer, and no operator drains them.
    pub(crate) able: BTreeSet<NodeId>,
    /// Replicas of ingest groups a node.
    pub(crate) load: BTreeMap<NodeId, usize>,
    /// Where voters are to be, over sites.
    pub(crate) layout: &'a Layout,
    /// Voters of a group.
    pub(crate) replicas: usize,
}

impl Spread<'_> {
    /// How a group on these nodes crowds.
    fn crowd(&self, nodes: &BTreeSet<NodeId>) -> Crowd {
        let rows = || nodes.iter().filter_map(|node| self.nodes.get(node));
        let sites: BTreeSet<_> = rows().map(|row| &row.site).collect();
        let zones: BTreeSet<_> = rows().map(|row| (&row.site, &row.zone)).collect();
        let count = rows().count();
        let all = rows().map(|row| row.site.as_str());
        let misplaced = self.layout.misplaced(all, self.replicas);
        (misplaced, count - sites.len(), count - zones.len())
    }

    fn load(&self, node: NodeId) -> usize {
        self.load.get(&node).copied().unwrap_or(0)
    }

    /// Where the next replica of a group on `kept` goes, among nodes that hold none of it: able ones
    /// first, then where it crowds least, then the emptiest.
    pub(crate) fn place(&self, kept: &BTreeSet<NodeId>, held: &BTreeSet<NodeId>) -> Option<NodeId> {
        self.place_among(kept, held, |_| true)
    }

    /// The same, among nodes as wanted.
    pub(crate) fn place_among(
        &self,
        kept: &BTreeSet<NodeId>,
        held: &BTreeSet<NodeId>,
        is_wanted: impl Fn(&NodeRow) -> bool,
    ) -> Option<NodeId> {
        let wanted = self.nodes.iter().filter(|(_, row)| is_wanted(row)).map(|(node, _)| *node);
        let free = wanted.filter(|node| !held.contains(node));
        free.min_by_key(|&node| {
            (!self.able.contains(&node), self.crowd(&with(kept, node)), self.load(node), node)
        })
    }

    /// The node whose replica of a group on `kept` should leave it, and what that is worth; `None`
    /// where none of the able nodes would be a better place.
    fn surplus(&self, kept: &BTreeSet<NodeId>) -> Option<(Worth, NodeId)> {
        let now = self.crowd(kept);
        let leaving = kept.iter().copied().filter(|node| self.able.contains(node));
        let moves = leaving.flat_map(|from| {
            let rest: BTreeSet<NodeId> =
                kept.iter().copied().filter(|node| *node != from).collect();
            let to = self.able.iter().copied().filter(|node| !kept.contains(node));
            to.filter_map(move |to| {
                let then = self.crowd(&with(&rest, to));
                let (full, empty) = (self.load(from), self.load(to));
                let is_better = then < now || (then == now && full >= empty + 2);
                let fewer = |now: usize, then: usize| now as i64 - then as i64;
                let spread = (fewer(now.0, then.0), fewer(now.1, then.1), fewer(now.2, then.2));
                is_better.then_some((Worth { spread, load: full as i64 - empty as i64 }, from))
            })
        });
        moves.max_by_key(|(worth, from)| (*worth, std::cmp::Reverse(*from)))
    }
}

/// What a move is worth: how many fewer replicas are misplaced, crowd a site and a zone, then how far
/// the loads of the two nodes are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    spread: (i64, i64, i64),
    load: i64,
}

fn with(nodes: &BTreeSet<NodeId>, more: NodeId) -> BTreeSet<NodeId> {
    nodes.iter().copied().chain([more]).collect()
}

/// Nodes on which a group may vote from now on: of its replicas that neither left nor leave nor stand
/// by.
pub(crate) fn kept(group: &GroupRow) -> BTreeSet<NodeId> {
    let stays = |row: &&ReplicaRow| !row.removed && !row.leaving && !row.standby;
    let live = group.replicas.iter().filter(stays);
    live.filter_map(|replica| NodeId::from_slice(&replica.node)).collect()
}

/// The next move: a group, and the node that is to give its replica up. Of equal ones that of the
/// lowest group; only what the layout has elsewhere where nothing is to be evened out.
pub(crate) fn next_move(
    groups: &[GroupRow],
    spread: &Spread<'_>,
    evens_out: bool,
) -> Option<(u32, NodeId)> {
    let worths = groups.iter().filter_map(|group| {
        let (worth, from) = spread.surplus(&kept(group))?;
        let is_due = evens_out || worth.spread.0 > 0;
        is_due.then_some((worth, std::cmp::Reverse(group.group), from))
    });
    let (_, group, from) = worths.max()?;
    Some((group.0, from))
}

/// The node that should lead each group, given the nodes of its voters, ascending: no node has two
/// more than another that could take one of them, be it by way of others.
pub(crate) fn homes(voters: &BTreeMap<u32, Vec<NodeId>>) -> BTreeMap<u32, NodeId> {
    let first = |(&group, nodes): (&u32, &Vec<NodeId>)| {
        Some((group, *nodes.get(group as usize % nodes.len().max(1))?))
    };
    let mut homes: BTreeMap<u32, NodeId> = voters.iter().filter_map(first).collect();
    // Each shift makes the sum of the squares smaller.
    while let Some(chain) = shift(voters, &homes) {
        homes.extend(chain);
    }
    homes
}

/// Groups with their new homes, which take one group from a full node and give one to a node that has
/// at least two fewer; every node between gets one and gives one.
fn shift(
    voters: &BTreeMap<u32, Vec<NodeId>>,
    homes: &BTreeMap<u32, NodeId>,
) -> Option<Vec<(u32, NodeId)>> {
    let mut load: BTreeMap<NodeId, usize> =
        voters.values().flatten().map(|node| (*node, 0)).collect();
    homes.values().for_each(|node| *load.entry(*node).or_default() += 1);
    let mut full: Vec<NodeId> = load.keys().copied().collect();
    full.sort_by_key(|node| std::cmp::Reverse(load[node]));
    full.into_iter().find_map(|from| chain(voters, homes, from, |to| load[&to] + 2 <= load[&from]))
}

/// The shortest chain of shifts from one node to any that is wanted.
fn chain(
    voters: &BTreeMap<u32, Vec<NodeId>>,
    homes: &BTreeMap<u32, NodeId>,
    from: NodeId,
    is_wanted: impl Fn(NodeId) -> bool,
) -> Option<Vec<(u32, NodeId)>> {
    // How each node was reached: by which group, from which node.
    let mut reached: BTreeMap<NodeId, Option<(u32, NodeId)>> = BTreeMap::from([(from, None)]);
    let mut next = VecDeque::from([from]);
    while let Some(node) = next.pop_front() {
        if is_wanted(node) {
            let mut shifts = Vec::new();
            let mut at = node;
            while let Some((group, before)) = reached[&at] {
                shifts.push((group, at));
                at = before;
            }
            return Some(shifts);
        }
        for (&group, _) in homes.iter().filter(|(_, home)| **home == node) {
            for &to in &voters[&group] {
                if let Entry::Vacant(unseen) = reached.entry(to) {
                    unseen.insert(Some((group, node)));
                    next.push_back(to);
                }
            }
        }
    }
    None
}

#[cfg(test)]
#[path = "balance_test.rs"]
mod tests;
