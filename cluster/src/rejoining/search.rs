//! Where two histories of one group part: the same entry at an index is the same history below it.

use std::collections::BTreeMap;

use crate::log_store::LogPosition;

/// Indexes that are asked about at one time.
pub(super) const PROBES_MAX: u64 = 48;

/// Between an entry that both have and one that they have not in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Search {
    /// In both; 0 stands for the beginning, which is.
    same: u64,
    /// Not in both.
    other: u64,
}

impl Search {
    /// Over a log that ends at `last`.
    pub(super) fn new(last: u64) -> Self {
        Self { same: 0, other: last + 1 }
    }

    /// What to compare next, ascending; nothing where it is found. The highest is
    /// always among them: most often all of a log went over.
    pub(super) fn probes(&self) -> Vec<u64> {
        let between = self.other - self.same - 1;
        let count = between.min(PROBES_MAX);
        (1..=count)
            .map(|at| self.same + u128::from(between).wrapping_mul(at.into()) as u64 / count)
            .collect()
    }

    /// Takes what both sides have at the probes: what one of them does not tell is not in common.
    pub(super) fn narrow(
        &mut self,
        probes: &[u64],
        own: &BTreeMap<u64, LogPosition>,
        theirs: &BTreeMap<u64, LogPosition>,
    ) {
        let is_same =
            |index: &u64| own.get(index).is_some_and(|own| theirs.get(index) == Some(own));
        if let Some(same) = probes.iter().rev().find(|index| is_same(index)) {
            self.same = *same;
        }
        if let Some(other) = probes.iter().find(|index| **index > self.same) {
            self.other = *other;
        }
    }

    /// The last entry that both have; 0 = none.
    pub(super) fn found(&self) -> u64 {
        self.same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(parts_after: u64, last: u64, term: u64) -> BTreeMap<u64, LogPosition> {
        let of = |index| if index <= parts_after { 1 } else { term };
        (1..=last).map(|index| (index, LogPosition { index, term: of(index), leader: 1 })).collect()
    }

    fn search(own: &BTreeMap<u64, LogPosition>, theirs: &BTreeMap<u64, LogPosition>) -> (u64, u32) {
        let mut search = Search::new(own.keys().last().copied().unwrap_or(0));
        for round in 0..100 {
            let probes = search.probes();
            assert!(probes.len() as u64 <= PROBES_MAX && probes.is_sorted());
            if probes.is_empty() {
                return (search.found(), round);
            }
            search.narrow(&probes, own, theirs);
        }
        panic!("it does not end");
    }

    // holds: RAFT-1
    #[test]
    fn it_finds_where_they_part_in_few_rounds() {
        for (last, parts_after, theirs_last) in [
            (0, 0, 10),
            (1, 0, 1),
            (1, 1, 1),
            (1_000, 1_000, 2_000),
            (1_000, 700, 2_000),
            (1_000, 700, 700),
            (1_000, 999, 999),
            (50_000, 1, 50_000),
            (50_000, 49_999, 60_000),
        ] {
            let own = history(parts_after, last, 2);
            let (found, rounds) = search(&own, &history(parts_after, theirs_last, 3));
            assert_eq!(found, parts_after.min(last), "{last} {parts_after} {theirs_last}");
            assert!(rounds <= 4, "{rounds} rounds");
        }
    }

    #[test]
    fn what_is_not_told_is_not_in_common() {
        let own = history(100, 100, 2);
        let mut theirs = own.clone();
        // A hole: what lies above it is the same, so all below it is.
        theirs.retain(|index, _| !(40..60).contains(index));
        assert_eq!(search(&own, &theirs).0, 100);
        theirs.retain(|index, _| *index < 40);
        assert_eq!(search(&own, &theirs).0, 39);
    }
}
