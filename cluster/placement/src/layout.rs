//! How a group's replicas lie over sites.
//!
//! ```text
//!  single     anywhere, apart over sites and zones where that can be; the oldest vote
//!  stretched  voters at three sites: of 5 replicas 2 + 2 + 1, of 3 one each; led at the primary
//!  standby    every voter at the primary; at the other site replicas that stand by: they learn and
//!             never vote; elsewhere none of an ingest group
//! ```
//! A replica of an ingest group that stands by does so for good: it leaves its group before its node
//! may vote there again, under another id. So no change of the layout makes a vote of a copy that may
//! lag. Of meta every node has a replica; those stand by as long as the layout says so.

use std::collections::BTreeMap;

use dtm_types::command::{LayoutKind, LayoutRow};

/// Of so many replicas a third site has one.
const REPLICAS_A_THIRD_VOTE: usize = 5;

/// What an operator decided about sites; `single` where nobody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which of the three.
    pub kind: LayoutKind,
    /// Where groups are led.
    pub primary: String,
    /// The second site.
    pub other: String,
    /// The third site; empty = none.
    pub arbiter: String,
    /// How often it was decided; 0 = never.
    pub version: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self::of(&LayoutRow::default())
    }
}

impl From<LayoutRow> for Layout {
    fn from(row: LayoutRow) -> Self {
        Self::of(&row)
    }
}

impl Layout {
    /// As a row of meta says. Apply writes no row without a kind: there is none before the first.
    pub fn of(row: &LayoutRow) -> Self {
        let kind = match row.kind() {
            LayoutKind::Unspecified => LayoutKind::Single,
            kind => kind,
        };
        Self {
            kind,
            primary: row.primary.clone(),
            other: row.other.clone(),
            arbiter: row.arbiter.clone(),
            version: row.version,
        }
    }

    /// Whether replicas stand by at the other site.
    pub fn is_standby(&self) -> bool {
        self.kind == LayoutKind::Standby
    }

    /// How many voters of a group of so many replicas each site is to have; empty where sites are
    /// not told apart.
    pub fn votes(&self, replicas: usize) -> BTreeMap<&str, usize> {
        match self.kind {
            LayoutKind::Unspecified | LayoutKind::Single => BTreeMap::new(),
            LayoutKind::Standby => [(self.primary.as_str(), replicas)].into(),
            LayoutKind::Stretched => {
                let has_third = !self.arbiter.is_empty() && replicas >= 3;
                let third = usize::from(has_third) * (replicas / REPLICAS_A_THIRD_VOTE).max(1);
                let other = (replicas - third) / 2;
                let primary = replicas - third - other;
                let of = [(&self.primary, primary), (&self.other, other), (&self.arbiter, third)];
                of.into_iter().map(|(site, count)| (site.as_str(), count)).collect()
            }
        }
    }

    /// Whether a new replica of an ingest group at the site stands by instead of voting.
    pub fn stands_by_at(&self, site: &str) -> bool {
        self.is_standby() && site == self.other
    }

    /// Of how many replicas at these sites there is one more than the layout has there.
    pub(crate) fn misplaced<'a>(
        &self,
        sites: impl Iterator<Item = &'a str>,
        replicas: usize,
    ) -> usize {
        let mut left = self.votes(replicas);
        if left.is_empty() {
            return 0;
        }
        let mut misplaced = 0;
        for site in sites {
            match left.iter_mut().find(|(of, count)| **of == site && **count > 0) {
                Some((_, count)) => *count -= 1,
                None => misplaced += 1,
            }
        }
        misplaced
    }

    /// Where leaders are wanted: the lowest rank that has a voter able to lead.
    pub(crate) fn rank(&self, site: &str) -> u8 {
        match self.kind {
            LayoutKind::Unspecified | LayoutKind::Single => 0,
            _ if site == self.primary => 0,
            _ if site == self.other => 1,
            _ => 2,
        }
    }

    /// Whether a node of the site hands leadership over to whoever can take it.
    pub fn is_arbiter(&self, site: &str) -> bool {
        self.rank(site) == 2
    }

    /// Sites that are named, the primary first.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        let all = [self.primary.as_str(), self.other.as_str(), self.arbiter.as_str()];
        all.into_iter().filter(|site| !site.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(kind: LayoutKind) -> Layout {
        let site = str::to_owned;
        let (primary, other, arbiter) = (site("a"), site("b"), site("c"));
        Layout { kind, primary, other, arbiter, version: 1 }
    }

    #[test]
    fn votes_lie_over_sites_as_the_number_of_replicas_gives() {
        let stretched = layout(LayoutKind::Stretched);
        let of = |replicas| -> Vec<usize> { stretched.votes(replicas).into_values().collect() };
        assert_eq!([of(3), of(5), of(7)], [vec![1, 1, 1], vec![2, 2, 1], vec![3, 3, 1]]);
        assert_eq!(of(1), [1, 0, 0]);
        for replicas in 3..=9 {
            // Without any one site the rest of an odd number is a majority.
            let most = of(replicas).into_iter().max().unwrap_or(0);
            assert!(replicas % 2 == 0 || 2 * (replicas - most) > replicas, "{replicas}");
        }
        assert_eq!(layout(LayoutKind::Standby).votes(3), BTreeMap::from([("a", 3)]));
        assert_eq!(layout(LayoutKind::Single).votes(3), BTreeMap::new());
    }

    #[test]
    fn what_is_beyond_a_sites_number_is_misplaced() {
        let beyond = |kind, sites: &[&str]| layout(kind).misplaced(sites.iter().copied(), 3);
        assert_eq!(beyond(LayoutKind::Stretched, &["a", "b", "c"]), 0);
        assert_eq!(beyond(LayoutKind::Stretched, &["a", "a", "a"]), 2);
        assert_eq!(beyond(LayoutKind::Stretched, &["a", "x", "b"]), 1);
        assert_eq!(beyond(LayoutKind::Standby, &["a", "b", "b"]), 2);
        assert_eq!(beyond(LayoutKind::Single, &["a", "a", "a"]), 0);
    }

    #[test]
    fn nothing_decided_is_single() {
        let none = Layout::default();
        assert_eq!(
            (none.kind, none.rank("a"), none.is_arbiter("a")),
            (LayoutKind::Single, 0, false)
        );
        assert_eq!(none.sites().count(), 0);
        assert!(layout(LayoutKind::Stretched).is_arbiter("c"));
    }
}
