//! A set of log indexes as ascending ranges. Pure.

use dtm_proto::cluster as wire;

use crate::log_store::IndexRange;

/// Ranges kept apart at most; beyond it the two that are nearest become one, which names more
/// indexes than needed and never fewer.
const RANGES_MAX: usize = 1024;

/// Ascending ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<IndexRange>);

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Indexes in the set.
    pub(crate) fn count(&self) -> u64 {
        let of = |range: &IndexRange| (range.to - range.from).saturating_add(1);
        self.0.iter().map(of).fold(0, u64::saturating_add)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IndexRange> + '_ {
        self.0.iter().copied()
    }

    /// The range that holds an index.
    pub(crate) fn around(&self, index: u64) -> Option<IndexRange> {
        self.iter().find(|range| (range.from..=range.to).contains(&index))
    }

    /// Adds `from..=to`; nothing when it is empty.
    pub(crate) fn insert(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        let mut merged = IndexRange { from, to };
        self.0.retain(|range| {
            let is_apart = range.to.saturating_add(1) < merged.from
                || merged.to.saturating_add(1) < range.from;
            if !is_apart {
                merged.from = merged.from.min(range.from);
                merged.to = merged.to.max(range.to);
            }
            is_apart
        });
        let at = self.0.partition_point(|range| range.to < merged.from);
        self.0.insert(at, merged);
        self.bound();
    }

    /// What of the set is at or below an index.
    pub(crate) fn through(mut self, index: u64) -> Self {
        self.0.retain(|range| range.from <= index);
        if let Some(last) = self.0.last_mut() {
            last.to = last.to.min(index);
        }
        self
    }

    /// Takes `from..=to` out.
    pub(crate) fn remove(&mut self, from: u64, to: u64) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for range in self.0.drain(..) {
            if range.from < from {
                left.push(IndexRange { from: range.from, to: range.to.min(from - 1) });
            }
            if range.to > to {
                left.push(IndexRange { from: range.from.max(to + 1), to: range.to });
            }
        }
        self.0 = left;
        self.bound();
    }

    fn bound(&mut self) {
        while self.0.len() > RANGES_MAX {
            let gap = |at: &usize| self.0[at + 1].from - self.0[*at].to;
            let nearest = (0..self.0.len() - 1).min_by_key(gap).expect("there are several");
            let next = self.0.remove(nearest + 1);
            self.0[nearest].to = next.to;
        }
    }

    pub(crate) fn to_wire(&self) -> Vec<wire::IndexRange> {
        self.iter().map(|IndexRange { from, to }| wire::IndexRange { from, to }).collect()
    }

    pub(crate) fn from_wire(ranges: &[wire::IndexRange]) -> Self {
        ranges.iter().map(|range| IndexRange { from: range.from, to: range.to }).collect()
    }
}

impl Extend<IndexRange> for Ranges {
    fn extend<T: IntoIterator<Item = IndexRange>>(&mut self, ranges: T) {
        ranges.into_iter().for_each(|range| self.insert(range.from, range.to));
    }
}

impl FromIterator<IndexRange> for Ranges {
    fn from_iter<T: IntoIterator<Item = IndexRange>>(ranges: T) -> Self {
        let mut set = Self::default();
        set.extend(ranges);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn indexes(set: &Ranges) -> BTreeSet<u64> {
        set.iter().flat_map(|range| range.from..=range.to).collect()
    }

    #[test]
    fn a_set_is_a_set() {
        let (mut set, mut model) = (Ranges::default(), BTreeSet::new());
        let mut seed = 7u64;
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            let (from, len) = ((seed >> 33) % 200, (seed >> 48) % 9);
            if seed >> 63 == 0 {
                set.insert(from, from + len);
                model.extend(from..=from + len);
            } else {
                set.remove(from, from + len);
                model.retain(|index| !(from..=from + len).contains(index));
            }
            assert_eq!(indexes(&set), model);
            assert_eq!(set.count(), model.len() as u64);
            let ordered = set.0.windows(2).all(|pair| pair[0].to + 1 < pair[1].from);
            assert!(ordered, "{set:?}");
        }
        assert_eq!(Ranges::from_wire(&set.to_wire()), set);
    }

    #[test]
    fn what_a_peer_names_beyond_all_bounds_is_counted_and_cut() {
        let all = Ranges::from_wire(&[wire::IndexRange { from: 0, to: u64::MAX }]);
        assert_eq!(all.count(), u64::MAX);
        assert_eq!(all.through(9).count(), 10);
        let named = [(3, 5), (8, 12), (20, u64::MAX)];
        let named = named.map(|(from, to)| wire::IndexRange { from, to });
        let cut = Ranges::from_wire(&named).through(10);
        assert_eq!(indexes(&cut), BTreeSet::from([3, 4, 5, 8, 9, 10]));
        assert!(cut.through(2).is_empty());
    }

    #[test]
    fn too_many_ranges_name_more_never_fewer() {
        let mut set = Ranges::default();
        (0..RANGES_MAX as u64 + 50).for_each(|at| set.insert(at * 10, at * 10));
        assert_eq!(set.0.len(), RANGES_MAX);
        assert!((0..RANGES_MAX as u64 + 50).all(|at| set.around(at * 10).is_some()));
    }
}
