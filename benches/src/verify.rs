//! The check behind every figure: all acknowledged records are read back from every node; one
//! that is missing, doubled, changed or out of order makes the throughput 0.
//!
//! Holds one number and the open gaps for each source; gaps are bounded by what was sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::record::Records;

/// What one source knows to be acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acked {
    /// Every sequence up to this one.
    pub through: u64,
    /// Further ones above a hole.
    pub beyond: BTreeSet<u64>,
    /// Highest sequence that was sent; what lies above was never sent.
    pub sent: u64,
}

/// Result of reading one node back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Records read.
    pub read: u64,
    /// Acknowledged and not there.
    pub missing: u64,
    /// There more than once.
    pub doubled: u64,
    /// There behind a later one of their source.
    pub disordered: u64,
    /// Not a record of this run, or with other bytes.
    pub foreign: u64,
}

impl Verdict {
    /// Nothing missing, doubled, changed or out of order.
    pub fn clean(&self) -> bool {
        self.missing + self.doubled + self.disordered + self.foreign == 0
    }
}

/// Collects what one node gives back.
#[derive(Debug)]
pub struct Check {
    records: Arc<Records>,
    sources: Vec<Seen>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    last: u64,
    gaps: BTreeSet<u64>,
}

impl Check {
    /// An empty check for `sources` sources.
    pub fn new(records: Arc<Records>, sources: u32) -> Self {
        Self {
            records,
            sources: vec![Seen::default(); sources as usize],
            verdict: Verdict::default(),
        }
    }

    /// The records of the run.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// Takes the next record of the node.
    pub fn see(&mut self, payload: &[u8]) {
        let found = self.records.identify(payload);
        self.note(found);
    }

    /// Takes the next record of the node, of which it is known which it is: `None` when it is none
    /// of the run, or not as it was sent.
    pub fn note(&mut self, found: Option<(u32, u64)>) {
        self.verdict.read += 1;
        let Some((source, sequence)) = found else {
            self.verdict.foreign += 1;
            return;
        };
        let Some(seen) = self.sources.get_mut(source as usize) else {
            self.verdict.foreign += 1;
            return;
        };
        if sequence > seen.last {
            seen.gaps.extend(seen.last + 1..sequence);
            seen.last = sequence;
        } else if seen.gaps.remove(&sequence) {
            self.verdict.disordered += 1;
        } else {
            self.verdict.doubled += 1;
        }
    }

    /// Compares with what the sources know. A record that was sent and not acknowledged may be
    /// there or not; one that was never sent is foreign.
    pub fn finish(self, acked: &[Acked]) -> Verdict {
        let mut verdict = self.verdict;
        for (seen, acked) in self.sources.iter().zip(acked) {
            let tail = acked.through.saturating_sub(seen.last);
            let holes = seen.gaps.range(..=acked.through).count() as u64;
            let beyond = acked
                .beyond
                .iter()
                .filter(|sequence| **sequence > seen.last || seen.gaps.contains(sequence))
                .count() as u64;
            verdict.missing += tail + holes + beyond;
            verdict.foreign += seen.last.saturating_sub(acked.sent);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sequences: &[u64], acked: &Acked) -> Verdict {
        let records = Arc::new(Records::new(256, 1));
        let mut check = Check::new(Arc::clone(&records), 1);
        for sequence in sequences {
            let mut bytes = Vec::new();
            records.write(0, *sequence, &mut bytes);
            check.see(&bytes);
        }
        check.finish(std::slice::from_ref(acked))
    }

    fn through(through: u64, sent: u64) -> Acked {
        Acked { through, sent, ..Acked::default() }
    }

    #[test]
    fn clean_run_is_clean_with_and_without_the_unacknowledged() {
        assert!(read(&[1, 2, 3], &through(3, 3)).clean());
        assert!(read(&[1, 2, 3, 4], &through(3, 5)).clean());
    }

    #[test]
    fn each_fault_is_counted() {
        assert_eq!(read(&[1, 3], &through(3, 3)).missing, 1);
        assert_eq!(read(&[1, 2], &through(3, 3)).missing, 1);
        assert_eq!(read(&[], &through(3, 3)).missing, 3);
        assert_eq!(read(&[1, 2, 2, 3], &through(3, 3)).doubled, 1);
        assert_eq!(read(&[1, 3, 2], &through(3, 3)).disordered, 1);
        assert_eq!(read(&[1, 2, 3, 4], &through(3, 3)).foreign, 1);
        let beyond = Acked { through: 1, beyond: BTreeSet::from([3]), sent: 3 };
        assert_eq!(read(&[1, 2], &beyond).missing, 1);
        assert!(read(&[1, 3], &beyond).clean());
    }

    #[test]
    fn changed_bytes_are_foreign() {
        let mut check = Check::new(Arc::new(Records::new(256, 1)), 1);
        check.see(b"{}");
        assert_eq!(check.finish(&[Acked::default()]).foreign, 1);
    }
}
