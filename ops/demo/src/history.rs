//! What was sent and acknowledged, and whether it is what is stored.
//!
//! ```text
//!  sent:  sequence ─▶ (16 bytes of the SHA-256, valid or broken)      a stream has no holes
//!  acked: everything up to `acked_through`
//!  read:  each stored record once (ING-2), in order (ING-3), every acked valid one (ING-1),
//!         nothing else (ING-4)
//! ```
//! Memory: 17 bytes a record.

use std::collections::HashMap;

/// First half of the SHA-256 of a payload.
pub(crate) type Digest = [u8; 16];

/// The records of one stream, from sequence 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamHistory {
    sent: Vec<(Digest, bool)>,
    acked_through: u64,
}

impl StreamHistory {
    /// Notes what was sent under a sequence.
    ///
    /// # Panics
    /// When the sequence is not the next one: the client numbers without holes.
    pub(crate) fn sent(&mut self, sequence: u64, digest: Digest, valid: bool) {
        assert!(sequence == self.sent.len() as u64 + 1, "sequences have no holes");
        self.sent.push((digest, valid));
    }

    /// Notes an ack.
    pub(crate) fn acked(&mut self, through: u64) {
        self.acked_through = self.acked_through.max(through.min(self.sent.len() as u64));
    }

    /// Records sent.
    pub(crate) fn sent_count(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Records acknowledged.
    pub(crate) fn acked_count(&self) -> u64 {
        self.acked_through
    }

    /// Whether a sequence was sent and broke its contract; none = never sent.
    pub(crate) fn is_broken(&self, sequence: u64) -> Option<bool> {
        let at = usize::try_from(sequence.checked_sub(1)?).ok()?;
        self.sent.get(at).map(|(_, valid)| !valid)
    }

    /// Acknowledged records that broke their contract.
    pub(crate) fn broken_acked(&self) -> u64 {
        self.sent[..self.acked_through as usize].iter().filter(|(_, valid)| !valid).count() as u64
    }
}

/// What was found on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Records read.
    pub(crate) stored: u64,
    /// Acknowledged, valid, not there.
    pub(crate) lost: u64,
    /// There more than once.
    pub(crate) doubled: u64,
    /// There before one with a lower sequence.
    pub(crate) out_of_order: u64,
    /// There and never sent so: other content, unknown sequence or stream, broken record.
    pub(crate) strange: u64,
}

impl Findings {
    /// Nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        (self.lost, self.doubled, self.out_of_order, self.strange) == (0, 0, 0, 0)
    }

    /// Adds those of another source.
    pub(crate) fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.strange += other.strange;
    }
}

/// Holds what one node returns for one source against what was sent.
#[derive(Debug)]
pub(crate) struct Checker<'a> {
    histories: &'a HashMap<&'static str, StreamHistory>,
    seen: HashMap<&'static str, Seen>,
    findings: Findings,
}

#[derive(Debug)]
struct Seen {
    records: Vec<bool>,
    last: u64,
}

impl<'a> Checker<'a> {
    /// For the streams of one source, by name.
    pub(crate) fn new(histories: &'a HashMap<&'static str, StreamHistory>) -> Self {
        let seen = histories.iter().map(|(stream, history)| {
            (*stream, Seen { records: vec![false; history.sent.len()], last: 0 })
        });
        Self { histories, seen: seen.collect(), findings: Findings::default() }
    }

    /// Takes a stored record, in the order in which it was read.
    pub(crate) fn stored(&mut self, stream: &str, sequence: u64, digest: Digest) {
        self.findings.stored += 1;
        let known = self.histories.get(stream).zip(self.seen.get_mut(stream));
        let at = sequence.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let Some(((history, seen), at)) = known.zip(at) else {
            self.findings.strange += 1;
            return;
        };
        match history.sent.get(at) {
            Some((sent, true)) if *sent == digest => {}
            _ => {
                self.findings.strange += 1;
                return;
            }
        }
        if seen.records[at] {
            self.findings.doubled += 1;
            return;
        }
        seen.records[at] = true;
        if sequence < seen.last {
            self.findings.out_of_order += 1;
        }
        seen.last = seen.last.max(sequence);
    }

    /// Everything was read.
    pub(crate) fn finish(mut self) -> Findings {
        for (stream, history) in self.histories {
            let acked = history.sent[..history.acked_through as usize].iter();
            let seen = &self.seen[stream].records;
            let lost = acked.zip(seen).filter(|((_, valid), seen)| *valid && !**seen).count();
            self.findings.lost += lost as u64;
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five records, the third broken, four acked.
    fn histories() -> HashMap<&'static str, StreamHistory> {
        let mut history = StreamHistory::default();
        for sequence in 1..=5 {
            history.sent(sequence, [sequence as u8; 16], sequence != 3);
        }
        history.acked(4);
        HashMap::from([("s", history)])
    }

    fn check(stored: &[(u64, u8)]) -> Findings {
        let histories = histories();
        let mut checker = Checker::new(&histories);
        for (sequence, byte) in stored {
            checker.stored("s", *sequence, [*byte; 16]);
        }
        checker.finish()
    }

    #[test]
    fn what_was_acked_and_is_there_once_in_order_is_clean() {
        for stored in [&[(1, 1), (2, 2), (4, 4)][..], &[(1, 1), (2, 2), (4, 4), (5, 5)]] {
            let findings = check(stored);
            assert!(findings.is_clean(), "{findings:?}");
            assert_eq!(findings.stored, stored.len() as u64);
        }
        let histories = histories();
        assert_eq!(histories["s"].broken_acked(), 1);
        assert_eq!(histories["s"].is_broken(3), Some(true));
        assert_eq!(histories["s"].is_broken(6), None);
    }

    // A checker that cannot see a fault is no checker: each is planted here.
    #[test]
    fn every_planted_fault_is_found() {
        assert_eq!(check(&[(1, 1), (4, 4)]).lost, 1);
        assert_eq!(check(&[(1, 1), (2, 2), (2, 2), (4, 4)]).doubled, 1);
        assert_eq!(check(&[(2, 2), (1, 1), (4, 4)]).out_of_order, 1);
        let altered = check(&[(1, 1), (2, 9), (4, 4)]);
        assert_eq!((altered.strange, altered.lost), (1, 1));
        assert_eq!(check(&[(1, 1), (2, 2), (3, 3), (4, 4)]).strange, 1, "a broken one is stored");
        assert_eq!(check(&[(1, 1), (2, 2), (4, 4), (6, 6)]).strange, 1, "it was never sent");
        let histories = histories();
        let mut checker = Checker::new(&histories);
        checker.stored("other", 1, [1; 16]);
        assert_eq!(checker.finish().strange, 1, "no such stream");
    }
}
