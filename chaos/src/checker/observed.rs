//! OBS-1: each fault that a scenario injects moves a metric that an operator can watch.

use std::collections::BTreeMap;

use super::breach::Breach;

/// Counters by name, labels summed up.
pub type Counts = BTreeMap<String, u64>;

/// A fault and the metrics of which at least one must move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// F6: an entry that was committed is damaged on disk.
    DamagedEntry,
    /// F1: the process that leads a group is gone.
    LeaderGone,
}

impl Fault {
    /// Counters that are to show it.
    pub fn metrics(self) -> &'static [&'static str] {
        match self {
            Self::DamagedEntry => {
                &["dtm_cluster_replicas_recovering_total", "dtm_cluster_scrub_damaged_total"]
            }
            Self::LeaderGone => &["dtm_cluster_takeovers_total"],
        }
    }

    /// A breach where none of them is higher than before the fault.
    pub fn unseen(self, before: &Counts, after: &Counts) -> Option<Breach> {
        let count = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or_default();
        let has_moved = |name: &&str| count(after, name) > count(before, name);
        if self.metrics().iter().any(has_moved) {
            return None;
        }
        Some(Breach::Unseen { fault: format!("{self:?}"), metrics: self.metrics().join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_seen_in_one_of_its_own_metrics() {
        let counts = |name: &str, count| Counts::from([(name.to_owned(), count)]);
        let own = Fault::LeaderGone.metrics()[0];
        let unseen = |before, after| Fault::LeaderGone.unseen(&before, &after).is_some();
        assert!(!unseen(Counts::default(), counts(own, 1)));
        assert!(!unseen(counts(own, 1), counts(own, 2)));
        assert!(unseen(counts(own, 1), counts(own, 1)));
        assert!(unseen(Counts::default(), counts("dtm_other_total", 1)));
    }
}
