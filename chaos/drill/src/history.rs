//! What one source sent and was acknowledged, how long it waited, and whether it is what is stored.
//!
//! ```text
//!  sent:     sequence ─▶ 16 bytes of the SHA-256       a stream has no holes
//!  acked:    everything up to `acked_through`
//!  waiting:  a record was handed over and no ack has come since: its silence is measured
//! ```
//! Pure: time comes in. Memory: 16 bytes a record, 40 an ack.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// First half of the SHA-256 of a payload.
pub(crate) type Digest = [u8; 16];

/// A source that waits longer than this for an ack is out of service for as long as it waits.
pub(crate) const OUT_AFTER: Duration = Duration::from_secs(1);

/// Of a payload.
pub(crate) fn digest(payload: &[u8]) -> Digest {
    let whole: [u8; 32] = Sha256::digest(payload).into();
    let mut half = Digest::default();
    half.copy_from_slice(&whole[..16]);
    half
}

/// An ack, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Everything up to here.
    pub(crate) through: u64,
    /// When.
    pub(crate) at: Instant,
    /// From which node; None: the session was gone when it was looked at.
    pub(crate) node: Option<usize>,
}

/// The records of one stream, from sequence 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    sent: Vec<Digest>,
    acked_through: u64,
    /// Those that acked more than the one before.
    acks: Vec<Ack>,
    pending: VecDeque<(u64, Instant)>,
    last_ack: Option<Instant>,
    longest: Duration,
    out: Duration,
}

impl History {
    /// Notes what was handed over under the next sequence.
    ///
    /// # Panics
    /// When it is not the next one: the client numbers without holes.
    pub(crate) fn sent(&mut self, sequence: u64, digest: Digest, now: Instant) {
        assert!(sequence == self.sent.len() as u64 + 1, "sequences have no holes");
        self.sent.push(digest);
        self.pending.push_back((sequence, now));
    }

    /// Notes an ack of a node.
    pub(crate) fn acked(&mut self, through: u64, now: Instant, node: Option<usize>) {
        let oldest = self.pending.front().copied();
        while self.pending.front().is_some_and(|(sequence, _)| *sequence <= through) {
            self.pending.pop_front();
        }
        if let Some((sequence, since)) = oldest
            && sequence <= through
        {
            self.silence(since, now);
            self.last_ack = Some(now);
        }
        let through = through.min(self.sent.len() as u64);
        if through > self.acked_through {
            self.acked_through = through;
            self.acks.push(Ack { through, at: now, node });
        }
    }

    /// The ack that covered a record first.
    pub(crate) fn ack_of(&self, sequence: u64) -> Option<Ack> {
        let at = self.acks.partition_point(|ack| ack.through < sequence);
        self.acks.get(at).copied()
    }

    /// All acks after a moment.
    pub(crate) fn acks_after(&self, moment: Instant) -> &[Ack] {
        &self.acks[self.acks.partition_point(|ack| ack.at <= moment)..]
    }

    /// When the last ack came.
    pub(crate) fn last_ack(&self) -> Option<Instant> {
        self.acks.last().map(|ack| ack.at)
    }

    /// Nothing more is waited for: what still waits has waited until now.
    pub(crate) fn end(&mut self, now: Instant) {
        if let Some((_, since)) = self.pending.front().copied() {
            self.silence(since, now);
            self.pending.clear();
        }
    }

    fn silence(&mut self, since: Instant, now: Instant) {
        let from = self.last_ack.map_or(since, |last| last.max(since));
        let silence = now.saturating_duration_since(from);
        self.longest = self.longest.max(silence);
        if silence > OUT_AFTER {
            self.out += silence;
        }
    }

    /// Records handed over.
    pub(crate) fn sent_count(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Records acknowledged.
    pub(crate) fn acked_count(&self) -> u64 {
        self.acked_through
    }

    /// The longest wait for an ack.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// How long it was out of service.
    pub(crate) fn out(&self) -> Duration {
        self.out
    }

    fn digest_of(&self, sequence: u64) -> Option<&Digest> {
        self.sent.get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }
}

/// What was found of one source on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Acked and not there (ING-1).
    pub(crate) lost: Vec<u64>,
    /// There more than once (ING-2).
    pub(crate) doubled: Vec<u64>,
    /// There before one with a lower sequence (ING-3).
    pub(crate) out_of_order: Vec<u64>,
    /// There and never sent so (ING-4).
    pub(crate) strange: Vec<u64>,
}

/// Holds what one node returns of one source against what was sent.
#[derive(Debug)]
pub(crate) struct Checker {
    acked_through: u64,
    seen: Vec<bool>,
    last: u64,
    findings: Findings,
}

impl Checker {
    /// What was acked by now must be there.
    pub(crate) fn new(history: &History) -> Self {
        Self {
            acked_through: history.acked_through,
            seen: Vec::new(),
            last: 0,
            findings: Findings::default(),
        }
    }

    /// Takes a stored record, in the order in which it was read. The history may be longer by now.
    pub(crate) fn stored(&mut self, history: &History, sequence: u64, digest: Digest) {
        if history.digest_of(sequence) != Some(&digest) {
            self.findings.strange.push(sequence);
            return;
        }
        let at = usize::try_from(sequence - 1).expect("it is in the history");
        if self.seen.len() <= at {
            self.seen.resize(at + 1, false);
        }
        if std::mem::replace(&mut self.seen[at], true) {
            self.findings.doubled.push(sequence);
            return;
        }
        if sequence < self.last {
            self.findings.out_of_order.push(sequence);
        }
        self.last = self.last.max(sequence);
    }

    /// Everything was read.
    pub(crate) fn finish(mut self) -> Findings {
        let acked = 1..=self.acked_through;
        let is_seen = |sequence: u64| {
            let at = usize::try_from(sequence - 1).unwrap_or(usize::MAX);
            self.seen.get(at).copied().unwrap_or(false)
        };
        self.findings.lost = acked.filter(|sequence| !is_seen(*sequence)).collect();
        self.findings
    }
}

/// Numbers in their order as ranges: `3-5, 9`.
pub(crate) fn ranges(numbers: &[u64]) -> Vec<String> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let shown =
        |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(shown).collect()
}

/// The value below which this share of the sorted values lies: the nearest rank.
pub(crate) fn quantile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn start() -> Instant {
        Instant::now()
    }

    fn five() -> History {
        let mut history = History::default();
        for sequence in 1..=5 {
            history.sent(sequence, [sequence as u8; 16], start());
        }
        history.acked(4, start(), Some(0));
        history
    }

    fn check(stored: &[(u64, u8)]) -> Findings {
        let history = five();
        let mut checker = Checker::new(&history);
        for (sequence, byte) in stored {
            checker.stored(&history, *sequence, [*byte; 16]);
        }
        checker.finish()
    }

    #[test]
    fn what_was_acked_and_is_there_once_in_order_is_clean() {
        let clean = Findings::default();
        assert_eq!(check(&[(1, 1), (2, 2), (3, 3), (4, 4)]), clean);
        assert_eq!(check(&[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]), clean, "more is no fault");
    }

    // A checker that cannot see a fault is no checker: each is planted here.
    #[test]
    fn every_planted_fault_is_found() {
        assert_eq!(check(&[(1, 1), (4, 4)]).lost, [2, 3]);
        assert_eq!(check(&[(1, 1), (2, 2), (3, 3)]).lost, [4]);
        assert_eq!(check(&[]).lost, [1, 2, 3, 4]);
        assert_eq!(check(&[(1, 1), (2, 2), (2, 2), (3, 3), (4, 4)]).doubled, [2]);
        assert_eq!(check(&[(2, 2), (1, 1), (3, 3), (4, 4)]).out_of_order, [1]);
        let altered = check(&[(1, 1), (2, 9), (3, 3), (4, 4)]);
        assert_eq!((altered.strange, altered.lost), (vec![2], vec![2]));
        assert_eq!(check(&[(1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (0, 0)]).strange, [6, 0]);
    }

    #[test]
    fn silence_counts_only_while_something_waits() {
        let begun = start();
        let mut history = History::default();
        history.sent(1, [0; 16], begun);
        history.acked(1, begun + MS(40), None);
        // Nothing waits for ten seconds: nobody is out of service.
        history.sent(2, [0; 16], begun + MS(10_000));
        history.sent(3, [0; 16], begun + MS(10_500));
        history.acked(2, begun + MS(10_900), None);
        assert_eq!((history.longest(), history.out()), (MS(900), MS(0)));
        // The third waits since 10.5 s, but there was an ack at 10.9 s.
        history.acked(3, begun + MS(12_400), None);
        assert_eq!((history.longest(), history.out()), (MS(1_500), MS(1_500)));
        history.sent(4, [0; 16], begun + MS(13_000));
        history.end(begun + MS(15_000));
        assert_eq!((history.longest(), history.out()), (MS(2_000), MS(3_500)));
        assert_eq!((history.sent_count(), history.acked_count()), (4, 3));
    }

    #[test]
    fn each_ack_is_known_by_what_it_covered_when_and_who() {
        let begun = start();
        let mut history = History::default();
        for sequence in 1..=6 {
            history.sent(sequence, [0; 16], begun);
        }
        history.acked(2, begun + MS(10), Some(1));
        history.acked(2, begun + MS(20), Some(1));
        history.acked(9, begun + MS(30), Some(4));
        let (first, second) = (begun + MS(10), begun + MS(30));
        let ack = |through, at, node| Some(Ack { through, at, node: Some(node) });
        assert_eq!(history.ack_of(1), ack(2, first, 1));
        assert_eq!(history.ack_of(3), ack(6, second, 4), "no more than was sent");
        assert_eq!(history.ack_of(7), None);
        assert_eq!(history.acks_after(first).len(), 1, "what came at that moment is before it");
        assert_eq!(history.last_ack(), Some(second));
    }

    #[test]
    fn ranges_and_quantiles() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), ["1-3", "7", "9-10"]);
        assert!(ranges(&[]).is_empty());
        let values: Vec<Duration> = (1..=200).map(MS).collect();
        assert_eq!(quantile(&values, 50), Some(MS(100)));
        assert_eq!(quantile(&values, 99), Some(MS(198)));
        assert_eq!(quantile(&values[..1], 99), Some(MS(1)));
        assert_eq!(quantile(&[], 50), None);
    }
}
