//! What a node was told last of the site that stands by, for its sessions.
//!
//! ```text
//!  rows of meta ─▶ take    which groups that site holds copies of
//!  leaders ──────▶ learn   how far it has them: of the latest term alone
//!                  through an ack asks; that makes the group wanted, and its leader is asked again
//! ```
//! In a cluster without a standby one flag is read.
//!
//! **Replicas that move.** A promotion counts a group's replicas by the rows of meta that the standby
//! itself holds, and these may be behind the primary's. So a majority is counted of the replicas of now
//! and of those of before, until meta is at the standby through the entry that changed them: whichever
//! of these rows a promotion goes by, a majority of what it counts holds what was told.
//! Meta's own copies are counted by the newest rows alone, else they could wait for themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use dtm_types::GroupId;

use crate::copies::CopyHolders;
use crate::plan::Plan;

/// How far the site that stands by has a group, as a leader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SitePosition {
    /// The group.
    pub group: GroupId,
    /// In which the leader leads.
    pub term: u64,
    /// Through which index of the group's log.
    pub index: u64,
}

/// What is known of each group.
#[derive(Debug, Default)]
pub struct SiteBoard {
    has_standby: AtomicBool,
    /// The site that stands by.
    site: RwLock<Option<String>>,
    /// Of the groups that the standby holds copies of.
    groups: RwLock<BTreeMap<GroupId, Known>>,
}

/// Changes of a group's replicas that are not at the standby yet; beyond it the oldest are forgotten.
const CHANGES_MAX: usize = 16;

#[derive(Debug, Default)]
struct Known {
    /// Who holds copies, with the index of meta from which on it is so; the last is of now.
    holders: Vec<(u64, Arc<CopyHolders>)>,
    /// Of the leader that told last.
    term: Mutex<u64>,
    index: AtomicU64,
    /// Somebody looked since it was asked about.
    is_wanted: AtomicBool,
}

impl SiteBoard {
    /// Takes over layout and replicas, as meta says through this index.
    pub fn take(&self, plan: &Plan, voters_max: usize, index: u64) {
        let held = plan
            .groups()
            .iter()
            .filter_map(|row| Some((GroupId(row.group), plan.copy_holders(row, voters_max)?)));
        let held: BTreeMap<GroupId, CopyHolders> = held.collect();
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|group, _| held.contains_key(group));
        for (group, holders) in held {
            let known = &mut groups.entry(group).or_default().holders;
            if known.last().is_none_or(|(_, last)| **last != holders) {
                // Of meta itself only those of now: who held it before may be gone for good, and until
                // meta is through its own change nothing of before would be settled.
                if group.is_meta() {
                    known.clear();
                }
                known.push((index, Arc::new(holders)));
            }
            let beyond = known.len().saturating_sub(CHANGES_MAX);
            known.drain(..beyond);
        }
        drop(groups);
        let layout = plan.layout();
        *self.site.write().unwrap_or_else(PoisonError::into_inner) =
            layout.is_standby().then(|| layout.other.clone());
        self.has_standby.store(layout.is_standby(), Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<GroupId, Known>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the layout has a standby.
    pub fn has_standby(&self) -> bool {
        self.has_standby.load(Ordering::Acquire)
    }

    /// The site that stands by; `None` where the layout has none.
    pub fn standby_site(&self) -> Option<String> {
        self.site.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Through which index the standby has a group; 0 = not known. `None` where it holds no copy.
    pub fn through(&self, group: GroupId) -> Option<u64> {
        if !self.has_standby() {
            return None;
        }
        let groups = self.read();
        let known = groups.get(&group)?;
        known.is_wanted.store(true, Ordering::Release);
        Some(known.index.load(Ordering::Acquire))
    }

    /// A leader says so; whether it is news. Leaders of earlier terms are not heard.
    pub fn learn(&self, told: SitePosition) -> bool {
        let groups = self.read();
        let Some(known) = groups.get(&told.group) else { return false };
        let mut term = known.term.lock().unwrap_or_else(PoisonError::into_inner);
        if told.term < *term {
            return false;
        }
        let is_other = std::mem::replace(&mut *term, told.term) != told.term;
        known.index.swap(told.index, Ordering::AcqRel) != told.index || is_other
    }

    /// What a leader said last of a group.
    pub fn position(&self, group: GroupId) -> Option<SitePosition> {
        let groups = self.read();
        let known = groups.get(&group)?;
        let term = known.term.lock().unwrap_or_else(PoisonError::into_inner);
        Some(SitePosition { group, term: *term, index: known.index.load(Ordering::Acquire) })
    }

    /// The standby has meta through this index: who held copies before what it says there counts no more.
    /// Whether something is still to come.
    pub fn settle(&self, meta_index: u64) -> bool {
        if self.read().values().all(|known| known.holders.len() <= 1) {
            return false;
        }
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        for known in groups.values_mut() {
            let there = known.holders.iter().rposition(|(index, _)| *index <= meta_index);
            known.holders.drain(..there.unwrap_or(0));
        }
        groups.values().any(|known| known.holders.len() > 1)
    }

    /// The groups that the standby holds copies of, and who holds them: of each a majority counts.
    pub fn holders(&self) -> Vec<(GroupId, Vec<Arc<CopyHolders>>)> {
        let groups = self.read();
        let of = |known: &Known| known.holders.iter().map(|(_, of)| Arc::clone(of)).collect();
        groups.iter().map(|(group, known)| (*group, of(known))).collect()
    }

    /// The groups that somebody wanted to know about since this was asked last.
    pub fn wanted(&self) -> Vec<GroupId> {
        let groups = self.read();
        let wanted = groups.iter().filter(|(_, of)| of.is_wanted.swap(false, Ordering::AcqRel));
        wanted.map(|(group, _)| *group).collect()
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::NodeId;
    use dtm_types::command::{GroupRow, LayoutKind, LayoutRow, NodeRow, ReplicaRow};

    use super::*;
    use crate::layout::Layout;

    const GROUP: GroupId = GroupId(3);

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 16])
    }

    /// Two nodes at `a`, three at `b`; the group has these replicas, confirmed or not, on nodes.
    fn plan(kind: LayoutKind, replicas: &[(u64, u8, bool)]) -> Plan {
        let site = |byte: u8| if byte < 3 { "a" } else { "b" };
        let row = |byte: u8| NodeRow { site: site(byte).to_owned(), ..NodeRow::default() };
        let replicas = replicas.iter().map(|&(replica, byte, confirmed)| ReplicaRow {
            replica,
            node: node(byte).0.to_vec().into(),
            confirmed,
            standby: byte >= 3,
            ..ReplicaRow::default()
        });
        let group =
            GroupRow { group: GROUP.0, replicas: replicas.collect(), ..GroupRow::default() };
        let layout = LayoutRow {
            kind: kind.into(),
            primary: "a".to_owned(),
            other: "b".to_owned(),
            ..LayoutRow::default()
        };
        let nodes = (1..=5).map(|byte| (node(byte), row(byte))).collect();
        Plan { nodes, groups: vec![group], layout: Layout::of(&layout) }
    }

    fn told(term: u64, index: u64) -> SitePosition {
        SitePosition { group: GROUP, term, index }
    }

    // holds: ING-1
    #[test]
    fn only_the_latest_leader_is_heard_and_only_of_groups_that_are_held() {
        let board = SiteBoard::default();
        assert!(!board.learn(told(1, 10)), "no copies yet");
        assert_eq!(board.through(GROUP), None);
        board.take(&plan(LayoutKind::Standby, &[(1, 1, true), (2, 3, true)]), 3, 1);
        assert_eq!((board.has_standby(), board.through(GROUP)), (true, Some(0)));
        assert_eq!(board.standby_site().as_deref(), Some("b"));
        assert!(board.learn(told(4, 10)) && !board.learn(told(4, 10)));
        assert!(!board.learn(told(3, 99)), "of an earlier term");
        assert_eq!(board.through(GROUP), Some(10));
        assert!(board.learn(told(5, 2)), "a new leader begins with less");
        assert_eq!(board.position(GROUP), Some(told(5, 2)));
        board.take(&plan(LayoutKind::Single, &[(1, 1, true), (2, 3, true)]), 3, 1);
        assert_eq!((board.has_standby(), board.through(GROUP)), (false, None));
        assert_eq!(board.standby_site(), None);
        // A standby that comes anew begins anew.
        board.take(&plan(LayoutKind::Standby, &[(2, 3, true)]), 3, 1);
        assert_eq!(board.through(GROUP), Some(0));
    }

    #[test]
    fn what_an_ack_asked_for_is_wanted_once() {
        let board = SiteBoard::default();
        board.take(&plan(LayoutKind::Standby, &[(2, 3, true)]), 3, 1);
        assert!(board.wanted().is_empty());
        board.through(GROUP);
        assert_eq!((board.wanted(), board.wanted()), (vec![GROUP], vec![]));
    }

    // holds: ING-1
    #[test]
    fn a_standby_has_a_group_once_a_copy_is_confirmed_and_counts_those_that_are_to_come() {
        let holders = |replicas: &[(u64, u8, bool)]| {
            let plan = plan(LayoutKind::Standby, replicas);
            plan.copy_holders(&plan.groups()[0], 3)
        };
        assert_eq!(holders(&[(1, 1, true), (2, 2, true)]), None, "none there");
        assert_eq!(holders(&[(1, 1, true), (3, 3, false)]), None, "none confirmed");
        let one = holders(&[(1, 1, true), (3, 3, true), (4, 4, false)]).expect("one is");
        assert_eq!((one.replicas.len(), one.wanted), (1, 3), "three are to be there");
    }

    // Rows of the primary: one replica of three moves. Those of the standby may not say so yet.
    //
    // holds: ING-1
    #[test]
    fn a_majority_of_who_held_it_before_counts_until_the_standby_knows_of_the_move() {
        use crate::copies::{Copies, Sight};

        let board = SiteBoard::default();
        board.take(&plan(LayoutKind::Standby, &[(2, 3, true), (3, 4, true), (4, 5, true)]), 3, 10);
        let index = |board: &SiteBoard, matched: &[(u64, u64)]| {
            let of = |replica| matched.iter().find(|known| known.0 == replica).map(|known| known.1);
            let (_, all) = board.holders().remove(0);
            let (mut copies, sight) =
                (Copies::default(), Sight { term: 1, committed: 99, purged: 0 });
            copies.see(&sight, &CopyHolders::of_all(&all), of);
            for question in copies.to_ask(std::time::Duration::ZERO) {
                copies.told(question, None, std::time::Duration::ZERO);
            }
            copies.through_all(99, &all)
        };
        assert_eq!(index(&board, &[(2, 50), (3, 50), (4, 20)]), 50);
        assert!(!board.settle(5), "nothing is to come");
        // Replica 4 is replaced by 5 on another node, which has more: 2 and 5 are a majority of now.
        let moved = [(2, 3, true), (3, 4, true), (5, 2, true)];
        let mut plan = plan(LayoutKind::Standby, &moved);
        plan.nodes.get_mut(&node(2)).expect("a node").site = "b".to_owned();
        board.take(&plan, 3, 20);
        let matched = [(2, 80), (3, 50), (5, 80)];
        assert!(board.settle(19), "the standby does not know");
        assert_eq!(index(&board, &matched), 50, "replicas 3 and 4 would be a majority there");
        assert!(!board.settle(20));
        assert_eq!(index(&board, &matched), 80);
    }
}
