//! How far the site that stands by has a group, as the group's leader sees it.
//!
//! ```text
//!  committed   ──────────────●────▶ index
//!  replica 4   ──────────────▲ matched: its log is on disk through here
//!  replica 5   ──────▲              a majority of two is both: through here
//!  replica 6   ───▲ matched, but a bundle below is not there yet: through that one at most
//! ```
//! A match tells of a log. Behind a snapshot it says nothing of the bundles that the snapshot stands
//! for: those come after it. So a replica counts only once it said, in this term, which bundles it
//! lacks, and it is asked again where it may have taken a snapshot since.
//!
//! What is told is never more than is so, and may fall: when another leader begins it knows nothing,
//! and when replicas come or go a majority is another one. Whoever was told more was told the truth
//! and keeps it; what is told next holds for the replicas that there are then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dtm_types::command::GroupRow;

use crate::plan::Plan;

/// A replica that lacks bundles is asked again after so long.
const ASK_LACKING: Duration = Duration::from_secs(1);
/// One that lacks none, too: its disk may have been damaged.
const ASK_WHOLE: Duration = Duration::from_secs(5);

/// The replicas of a group at the site that stands by, as meta says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyHolders {
    /// Confirmed, and not removed.
    pub replicas: BTreeSet<u64>,
    /// How many there are to be: a majority is counted of no fewer.
    pub wanted: usize,
}

impl CopyHolders {
    /// All that stand in one of these.
    pub fn of_all(all: &[Arc<Self>]) -> Self {
        let replicas = all.iter().flat_map(|of| of.replicas.iter().copied()).collect();
        Self { replicas, wanted: 0 }
    }

    /// How many of them are more than half.
    fn majority(&self) -> usize {
        self.replicas.len().max(self.wanted) / 2 + 1
    }
}

impl Plan {
    /// The replicas of a group at the site that stands by; `None` without a standby, and where it
    /// holds nothing of the group yet, or no more.
    pub fn copy_holders(&self, group: &GroupRow, voters_max: usize) -> Option<CopyHolders> {
        let layout = self.layout();
        if !layout.is_standby() {
            return None;
        }
        let there = || self.live(group).filter(|(_, node)| self.site(*node) == layout.other);
        let replicas: BTreeSet<u64> =
            there().filter(|(row, _)| row.confirmed).map(|(row, _)| row.replica).collect();
        let wanted = there().count().max(voters_max.min(self.nodes_at(&layout.other)));
        (!replicas.is_empty()).then_some(CopyHolders { replicas, wanted })
    }
}

/// What the leader of a group knows at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The term that it leads in.
    pub term: u64,
    /// Through which index it knows the group as committed.
    pub committed: u64,
    /// Through which index its own log is purged: who lacks that is sent a snapshot.
    pub purged: u64,
}

/// A question to a replica: which bundles does it lack? The answer counts while the number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyQuestion {
    /// Whom to ask.
    pub replica: u64,
    number: u64,
}

/// What one leader knows of the copies of its group. Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Copies {
    term: u64,
    replicas: BTreeMap<u64, Seen>,
    /// Numbers of questions: rises with each state that an answer may be of.
    last: u64,
}

#[derive(Debug)]
struct Seen {
    matched: u64,
    /// Answers to earlier questions are of another state.
    number: u64,
    /// The first bundle that it lacks, `u64::MAX` for none, and when it was asked.
    lacks: Option<(u64, Duration)>,
}

impl Copies {
    /// Takes over what the leader sees: how far the log of each replica is known to be on its disk.
    pub fn see(
        &mut self,
        sight: &Sight,
        holders: &CopyHolders,
        matched: impl Fn(u64) -> Option<u64>,
    ) {
        if self.term != sight.term {
            self.term = sight.term;
            self.replicas.clear();
        }
        self.replicas.retain(|replica, _| holders.replicas.contains(replica));
        for &replica in &holders.replicas {
            // One that did not answer in this term may still take a snapshot of an earlier leader.
            let Some(matched) = matched(replica) else { continue };
            let last = &mut self.last;
            let copy = self.replicas.entry(replica).or_insert_with(|| {
                *last += 1;
                Seen { matched, number: *last, lacks: None }
            });
            // What followed was not in the log any more: it came as a snapshot.
            if matched > copy.matched && sight.purged > copy.matched {
                *last += 1;
                (copy.number, copy.lacks) = (*last, None);
            }
            copy.matched = matched;
        }
    }

    /// Whom to ask now.
    pub fn to_ask(&self, now: Duration) -> Vec<CopyQuestion> {
        let is_due = |copy: &Seen| match copy.lacks {
            Some((u64::MAX, asked)) => now.saturating_sub(asked) >= ASK_WHOLE,
            Some((_, asked)) => now.saturating_sub(asked) >= ASK_LACKING,
            None => true,
        };
        let due = self.replicas.iter().filter(|(_, copy)| is_due(copy));
        due.map(|(&replica, copy)| CopyQuestion { replica, number: copy.number }).collect()
    }

    /// A replica answered a question that was asked at `asked`: the first bundle at or below what it
    /// applied that it lacks, if there is one.
    pub fn told(&mut self, question: CopyQuestion, first_lacking: Option<u64>, asked: Duration) {
        let copy = self.replicas.get_mut(&question.replica);
        if let Some(copy) = copy.filter(|copy| copy.number == question.number) {
            copy.lacks = Some((first_lacking.unwrap_or(u64::MAX), asked));
        }
    }

    /// Through which index a majority of each of these has everything on disk, of what is committed.
    pub fn through_all(&self, committed: u64, all: &[Arc<CopyHolders>]) -> u64 {
        all.iter().map(|holders| self.through(committed, holders)).min().unwrap_or(0)
    }

    /// Through which index a majority of these has everything on disk, of what is committed.
    pub fn through(&self, committed: u64, holders: &CopyHolders) -> u64 {
        let held = |(replica, copy): (&u64, &Seen)| {
            let (lacks, _) = copy.lacks.filter(|_| holders.replicas.contains(replica))?;
            Some(copy.matched.min(lacks.saturating_sub(1)))
        };
        let mut held: Vec<u64> = self.replicas.iter().filter_map(held).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        held.get(holders.majority() - 1).map_or(0, |index| committed.min(*index))
    }
}

#[cfg(test)]
#[path = "copies_test.rs"]
mod tests;
