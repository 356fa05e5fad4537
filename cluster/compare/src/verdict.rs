//! Who is right, and in which rows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::rows::{Page, behind};

/// A row that is not the same on all replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its key.
    pub key: Bytes,
    /// Replicas that hold something else than a majority of the voters; empty where no value has a
    /// majority: then nobody knows who is right.
    pub odd: BTreeSet<u64>,
}

impl Difference {
    /// Whether it is known who is right.
    pub fn is_decided(&self) -> bool {
        !self.odd.is_empty()
    }
}

/// What one page of each replica shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// By key, ascending.
    pub differences: Vec<Difference>,
    /// From where to go on; `None` = the range is done.
    pub next: Option<Bytes>,
}

/// What more than half of all voters say. Who did not answer counts as a voter all the same.
pub fn majority<T: PartialEq + Copy>(
    answers: &BTreeMap<u64, T>,
    voters: &BTreeSet<u64>,
) -> Option<T> {
    let said = || answers.iter().filter(|(replica, _)| voters.contains(replica)).map(|(_, v)| *v);
    said().find(|value| 2 * said().filter(|other| other == value).count() > voters.len())
}

/// Compares the same range on replicas, as far as every page reaches.
pub fn narrow(pages: &BTreeMap<u64, Page>, voters: &BTreeSet<u64>) -> Narrowed {
    let cut_off = pages.values().filter(|page| !page.is_whole);
    let through = cut_off.filter_map(|page| page.rows.last()).map(|row| row.key.clone()).min();
    let is_seen = |key: &Bytes| through.as_ref().is_none_or(|through| key <= through);
    let mut found: BTreeMap<Bytes, BTreeMap<u64, Option<[u8; 32]>>> = BTreeMap::new();
    for (replica, page) in pages {
        for row in page.rows.iter().filter(|row| is_seen(&row.key)) {
            found.entry(row.key.clone()).or_default().insert(*replica, Some(row.hash));
        }
    }
    let mut differences = Vec::new();
    for (key, mut held) in found {
        for replica in pages.keys() {
            held.entry(*replica).or_insert(None);
        }
        let is_same = held.values().all(|value| Some(value) == held.values().next());
        if is_same {
            continue;
        }
        let right = majority(&held, voters);
        let is_odd = |value: &Option<[u8; 32]>| right.is_some_and(|right| right != *value);
        let odd = held.iter().filter(|(_, value)| is_odd(value)).map(|(replica, _)| *replica);
        differences.push(Difference { key, odd: odd.collect() });
    }
    Narrowed { differences, next: through.map(|through| behind(&through)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::RowHash;

    fn page(rows: &[(u8, u8)], is_whole: bool) -> Page {
        let row = |&(key, value): &(u8, u8)| RowHash { key: vec![key].into(), hash: [value; 32] };
        Page { rows: rows.iter().map(row).collect(), is_whole }
    }

    /// First bytes of keys that differ with who is off, and where to go on.
    type Told = (Vec<(u8, Vec<u64>)>, Option<Vec<u8>>);

    fn told(pages: &[(u64, Page)], voters: &[u64]) -> Told {
        let pages = pages.iter().cloned().collect();
        let narrowed = narrow(&pages, &voters.iter().copied().collect());
        let of = |found: Difference| (found.key[0], found.odd.into_iter().collect());
        let next = narrowed.next.map(|next| next.to_vec());
        (narrowed.differences.into_iter().map(of).collect(), next)
    }

    #[test]
    fn more_than_half_of_all_voters_are_right() {
        let voters = BTreeSet::from([1, 2, 3]);
        let said = |said: &[(u64, u8)]| majority(&said.iter().copied().collect(), &voters);
        assert_eq!(said(&[(1, 7), (2, 7), (3, 8)]), Some(7));
        assert_eq!(said(&[(1, 8), (2, 7), (3, 7)]), Some(7), "whoever leads");
        assert_eq!(said(&[(1, 7), (2, 7)]), Some(7), "two of three");
        assert_eq!(said(&[(1, 7), (4, 7), (5, 7)]), None, "learners do not count");
        assert_eq!(said(&[(1, 7), (2, 8)]), None, "the third may hold either");
        assert_eq!(said(&[(1, 7), (2, 8), (3, 9)]), None);
    }

    #[test]
    fn a_row_that_differs_is_named_with_who_is_off() {
        let right = page(&[(1, 1), (2, 2), (3, 3)], true);
        let other = page(&[(1, 1), (2, 9), (3, 3)], true);
        let less = page(&[(1, 1), (3, 3)], true);
        let more = page(&[(1, 1), (2, 2), (3, 3), (4, 4)], true);
        let of = |odd: &Page, at: u64| {
            let pages: Vec<(u64, Page)> = (1..=4)
                .map(|id| (id, if id == at { odd.clone() } else { right.clone() }))
                .collect();
            told(&pages, &[1, 2, 3])
        };
        for at in [1, 3, 4] {
            assert_eq!(of(&other, at), (vec![(2, vec![at])], None));
            assert_eq!(of(&less, at), (vec![(2, vec![at])], None), "a row that is not there");
            assert_eq!(of(&more, at), (vec![(4, vec![at])], None), "one that is only there");
            assert_eq!(of(&right, at), (vec![], None));
        }
        // Each voter has another one: of each row two agree.
        let pages = [(1, other.clone()), (2, more), (3, right.clone())];
        assert_eq!(told(&pages, &[1, 2, 3]).0, [(2, vec![1]), (4, vec![2])]);
        assert_eq!(told(&[(1, other), (2, right)], &[1, 2, 3]).0, [(2, vec![])], "undecided");
    }

    #[test]
    fn pages_are_compared_as_far_as_all_of_them_reach() {
        let first = page(&[(1, 1), (5, 5)], false);
        let second = page(&[(1, 1), (2, 2)], false);
        let third = page(&[(1, 1), (9, 9)], true);
        let pages = [(1, first), (2, second), (3, third)];
        // Nothing is said of 5 and 9 yet: the second may hold them.
        assert_eq!(told(&pages, &[1, 2, 3]), (vec![(2, vec![2])], Some(vec![2, 0])));
    }
}
