//! How many leaders the controller moves in a round, and who refused to lead a moment ago. Pure: all
//! times are given.

use std::collections::BTreeMap;
use std::time::Duration;

use dtm_types::NodeId;
use tokio::time::Instant;

/// Leaders moved in one round: a node that came back gets its groups within seconds, and no more
/// sessions move at once than a node opens without a pause.
const MOVED_MAX: usize = 4;
/// Transfers asked for in one round: each refusal takes up to some seconds, and members wait.
const ASKED_MAX: usize = 8;
/// Who refused a group is not asked for it again so soon.
const REFUSED_FOR: Duration = Duration::from_secs(3);

/// Transfers of leadership, over the rounds of one controller.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    moved_left: usize,
    asked_left: usize,
    /// Until when a node counts as one that refuses a group: at most one entry a voter.
    refused: BTreeMap<(u32, NodeId), Instant>,
}

impl Transfers {
    /// Leaders move in usual rounds only.
    pub(crate) fn begin_round(&mut self, is_usual: bool, now: Instant) {
        (self.moved_left, self.asked_left) = if is_usual { (MOVED_MAX, ASKED_MAX) } else { (0, 0) };
        self.refused.retain(|_, until| *until > now);
    }

    /// Whether one more transfer may be asked for in this round.
    pub(crate) fn may_ask(&self) -> bool {
        self.moved_left > 0 && self.asked_left > 0
    }

    /// Whether the node refused to lead the group a moment ago.
    pub(crate) fn has_refused(&self, group: u32, node: NodeId) -> bool {
        self.refused.contains_key(&(group, node))
    }

    /// What became of a transfer that was asked for. Only those that were accepted use the round up.
    pub(crate) fn answered(&mut self, group: u32, to: NodeId, is_accepted: bool, now: Instant) {
        self.asked_left = self.asked_left.saturating_sub(1);
        if is_accepted {
            self.moved_left = self.moved_left.saturating_sub(1);
        } else {
            self.refused.insert((group, to), now + REFUSED_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of one second each until all of these groups were moved to their nodes, of which some
    /// refuse; who was asked how often.
    fn rounds(wanted: &[(u32, u8)], refuses: impl Fn(u32, u8) -> bool, count: u64) -> Moved {
        let (mut transfers, start) = (Transfers::default(), Instant::now());
        let mut moved = Moved::default();
        for second in 0..count {
            let now = start + Duration::from_secs(second);
            transfers.begin_round(true, now);
            for &(group, byte) in wanted {
                let node = NodeId([byte; 16]);
                let is_skipped =
                    transfers.has_refused(group, node) || moved.at.contains_key(&group);
                if is_skipped || !transfers.may_ask() {
                    continue;
                }
                let is_accepted = !refuses(group, byte);
                transfers.answered(group, node, is_accepted, now);
                if is_accepted {
                    moved.at.insert(group, second);
                } else {
                    *moved.refused.entry(group).or_default() += 1;
                }
            }
        }
        moved
    }

    #[derive(Debug, Default)]
    struct Moved {
        at: BTreeMap<u32, u64>,
        refused: BTreeMap<u32, u32>,
    }

    // holds: LIVE-1
    #[test]
    fn a_node_that_refuses_takes_no_turn_of_the_others() {
        // Groups 1 to 6 are at home on a node that refuses, 7 to 14 on one that does not.
        let wanted: Vec<_> =
            (1..=14).map(|group| (group, if group <= 6 { 2 } else { 3 })).collect();
        let moved = rounds(&wanted, |_, node| node == 2, 30);
        let (first, last) = (moved.at.values().min(), moved.at.values().max());
        // Two in the first round, beside six that refused, then four a round.
        assert_eq!((moved.at.len(), first, last), (8, Some(&0), Some(&2)), "{moved:?}");
        let asked: Vec<_> = moved.refused.values().copied().collect();
        assert_eq!(asked, [10; 6], "each is asked every third second");
    }

    #[test]
    fn a_group_that_a_node_refuses_says_nothing_of_its_other_groups() {
        let moved = rounds(&[(1, 2), (2, 2)], |group, _| group == 1, 5);
        assert_eq!(moved.at, BTreeMap::from([(2, 0)]));
    }

    #[test]
    fn no_more_move_in_a_round_than_may_and_none_in_a_quick_one() {
        let wanted: Vec<_> = (1..=9).map(|group| (group, 2)).collect();
        let moved = rounds(&wanted, |_, _| false, 3);
        let times: Vec<_> = moved.at.into_values().collect();
        assert_eq!(times, [0, 0, 0, 0, 1, 1, 1, 1, 2]);
        let mut transfers = Transfers::default();
        transfers.begin_round(false, Instant::now());
        assert!(!transfers.may_ask());
    }
}
