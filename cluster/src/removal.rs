//! Whether the groups can do without a node: asked before it is removed.
//!
//! A group leaves a voter behind by one entry that a majority of its present voters and a majority
//! of the remaining ones must hold. Where either does not answer, the group would stop, and with it
//! the way back: hence the question, put to every node.

use dtm_machine::seams::{Freshness, ReadView};
use dtm_placement::Plan;
use dtm_proto::cluster as wire;
use dtm_types::command::GroupRow;
use dtm_types::{GroupId, NodeId};
use futures::future::BoxFuture;

use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::survey::Survey;

/// A group that would lose its majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// The group.
    pub group: GroupId,
    /// Nodes of its voters that do not answer, do not run their replica or lag far, ascending; none where the
    /// group has no leader just now, or no other voter.
    pub silent: Vec<NodeId>,
}

impl ClusterNode {
    /// Voters that a group is to have.
    pub fn voters_max(&self) -> usize {
        self.config().voters_max
    }

    /// Groups that could not go on without this node, by what every node says now; empty = it can be
    /// removed. Takes no longer than a second beyond a read of meta.
    ///
    /// # Errors
    /// Meta cannot be read, which must be current.
    pub fn held_up_without(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<HeldUp>, Error>> {
        Box::pin(async move {
            let meta = self.view(GroupId::META, Freshness::Current).await;
            let unread = |cause: String| Error::Raft { group: GroupId::META, cause };
            let meta = meta.map_err(|error| unread(error.to_string()))?;
            let plan = Plan::read(meta.state.as_ref())?;
            let survey = self.survey(plan.nodes()).await;
            let voters_max = self.config().voters_max;
            let judged = plan.groups().iter().filter_map(|row| match survey.led(row.group) {
                Some(led) => judge(led, node, &survey),
                None => leaderless(&plan, row, voters_max, node, &survey),
            });
            Ok(judged.collect())
        })
    }
}

/// By the voters in force: with the node, if it answers, they must be able to commit the change,
/// without it to go on.
fn judge(led: &wire::LedGroup, without: NodeId, survey: &Survey) -> Option<HeldUp> {
    let named = |voter: &wire::LedVoter| NodeId::from_slice(&voter.node).unwrap_or_default();
    let runs = |voter: &&wire::LedVoter| {
        !voter.lags && survey.runs(named(voter), led.group, voter.replica)
    };
    let sets = led.voters.iter().map(|set| &set.voters);
    if !sets.clone().flatten().any(|voter| named(voter) == without) {
        return None;
    }
    let is_majority = |set: &[&wire::LedVoter]| {
        2 * set.iter().copied().filter(|voter| runs(voter)).count() > set.len()
    };
    let holds = |set: &Vec<wire::LedVoter>| {
        let all: Vec<&wire::LedVoter> = set.iter().collect();
        let rest: Vec<&wire::LedVoter> =
            set.iter().filter(|voter| named(voter) != without).collect();
        is_majority(&all) && is_majority(&rest)
    };
    if sets.clone().all(holds) {
        return None;
    }
    let silent = sets.flatten().filter(|voter| !runs(voter)).map(named);
    Some(HeldUp::new(led.group, silent.filter(|node| *node != without)))
}

/// A group that nobody leads is not to lose a voter: who is silent is known by meta's rows only.
fn leaderless(
    plan: &Plan,
    row: &GroupRow,
    voters_max: usize,
    without: NodeId,
    survey: &Survey,
) -> Option<HeldUp> {
    let voters = plan.members(row, voters_max).voters;
    if !voters.values().any(|node| *node == without) {
        return None;
    }
    let silent = voters
        .iter()
        .filter(|(replica, node)| !survey.runs(**node, row.group, **replica))
        .map(|(_, node)| *node);
    Some(HeldUp::new(row.group, silent.filter(|node| *node != without)))
}

impl HeldUp {
    fn new(group: u32, silent: impl Iterator<Item = NodeId>) -> Self {
        let mut silent: Vec<NodeId> = silent.collect();
        silent.sort_unstable();
        silent.dedup();
        Self { group: GroupId(group), silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 16])
    }

    /// A group whose voter sets name these nodes, each by the replica of the same number.
    fn led(sets: &[&[u8]]) -> wire::LedGroup {
        let voter = |&byte: &u8| wire::LedVoter {
            replica: byte.into(),
            node: vec![byte; 16].into(),
            lags: false,
        };
        let set = |set: &&[u8]| wire::LedVoters { voters: set.iter().map(voter).collect() };
        wire::LedGroup { group: 1, term: 3, voters: sets.iter().map(set).collect() }
    }

    /// What follows when these nodes answer and the `without`th is to go.
    fn held_up(sets: &[&[u8]], answering: &[u8], without: u8) -> Option<Vec<NodeId>> {
        let held: Vec<[(u32, u64); 1]> =
            answering.iter().map(|&byte| [(1, u64::from(byte))]).collect();
        let said: Vec<(NodeId, &[(u32, u64)])> =
            answering.iter().zip(&held).map(|(&byte, held)| (node(byte), &held[..])).collect();
        judge(&led(sets), node(without), &Survey::of_held(&said)).map(|held| held.silent)
    }

    #[test]
    fn the_rest_must_be_a_majority_that_answers() {
        assert_eq!(held_up(&[&[1, 2, 3]], &[1, 2, 3], 3), None);
        assert_eq!(held_up(&[&[1, 2, 3]], &[1, 2], 3), None, "a dead one may go");
        assert_eq!(held_up(&[&[1, 2, 3]], &[1, 3], 3), Some(vec![node(2)]));
        assert_eq!(held_up(&[&[1, 2, 3]], &[1, 3], 2), None, "the dead one first");
        assert_eq!(held_up(&[&[1, 2, 3]], &[1], 3), Some(vec![node(2)]));
        assert_eq!(held_up(&[&[1, 2]], &[1, 2], 2), None, "its own vote helps it out");
        assert_eq!(held_up(&[&[1, 2]], &[1], 2), Some(vec![]));
        assert_eq!(held_up(&[&[1]], &[1], 1), Some(vec![]), "there is no other");
        assert_eq!(held_up(&[&[1, 2, 3, 4, 5]], &[1, 3, 5], 5), Some(vec![node(2), node(4)]));
    }

    #[test]
    fn voters_that_change_are_judged_by_both_sets_and_others_not_at_all() {
        assert_eq!(held_up(&[&[1, 2, 3], &[1, 2, 4]], &[1, 3, 4], 3), Some(vec![node(2)]));
        assert_eq!(held_up(&[&[1, 2, 3], &[1, 2, 4]], &[1, 2, 4], 3), None);
        assert_eq!(held_up(&[&[1, 2, 3]], &[1], 4), None, "it votes nowhere here");
    }

    // holds: LIVE-1
    #[test]
    fn a_voter_that_lags_far_does_not_count() {
        let all = [(node(1), &[(1, 1)][..]), (node(2), &[(1, 2)]), (node(3), &[(1, 3)])];
        let mut group = led(&[&[1, 2, 3]]);
        group.voters[0].voters[0].lags = true;
        let held = judge(&group, node(3), &Survey::of_held(&all));
        assert_eq!(held.map(|held| held.silent), Some(vec![node(1)]));
        assert!(
            judge(&group, node(1), &Survey::of_held(&all)).is_none(),
            "the one that lags may go"
        );
    }

    // A replica that is being mended does not vote.
    #[test]
    fn a_replica_that_does_not_run_does_not_count() {
        let survey = Survey::of_held(&[(node(1), &[(1, 1)]), (node(2), &[]), (node(3), &[(1, 3)])]);
        let held = judge(&led(&[&[1, 2, 3]]), node(3), &survey);
        assert_eq!(held.map(|held| held.silent), Some(vec![node(2)]));
    }
}
