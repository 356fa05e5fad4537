//! Counters of one source: read by the table twice a second, written by its streams.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Longest latency that is told apart, microseconds: five minutes.
const LATENCY_MAX_US: u64 = 300_000_000;
/// A silence that ends this long after the kill is not the kill's any more.
const KILL_WINDOW: Duration = Duration::from_secs(20);

/// When the node was killed; empty until then.
pub(crate) type KillMark = Arc<OnceLock<Instant>>;

/// Counters of a source.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Title in both languages.
    pub(crate) titles: [String; 2],
    kill: KillMark,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reading: Reading,
    latency_us: Histogram<u64>,
    gap: Duration,
}

/// What the table shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Records handed to the client.
    pub(crate) sent: u64,
    /// Records acknowledged.
    pub(crate) acked: u64,
    /// Refusals told.
    pub(crate) refused: u64,
    /// Median time to the ack, microseconds.
    pub(crate) p50_us: u64,
    /// 99th percentile.
    pub(crate) p99_us: u64,
    /// Node of the last session.
    pub(crate) node: String,
}

impl Meter {
    /// All zero.
    pub(crate) fn new(titles: [String; 2], kill: KillMark) -> Self {
        let latency_us = Histogram::new_with_max(LATENCY_MAX_US, 2).expect("bounds are valid");
        let state = State { reading: Reading::default(), latency_us, gap: Duration::ZERO };
        Self { titles, kill, state: Mutex::new(state) }
    }

    /// A record was handed over.
    pub(crate) fn sent(&self) {
        self.state.lock().reading.sent += 1;
    }

    /// A record was acknowledged this long after.
    pub(crate) fn acked(&self, after: Duration) {
        let mut state = self.state.lock();
        state.reading.acked += 1;
        let micros = u64::try_from(after.as_micros()).unwrap_or(LATENCY_MAX_US);
        state.latency_us.saturating_record(micros);
    }

    /// Refusals were told.
    pub(crate) fn refused(&self, count: u64) {
        self.state.lock().reading.refused += count;
    }

    /// How many the streams counted: one that was told while its connection was cut is told by no
    /// later answer.
    pub(crate) fn refused_in_all(&self, count: u64) {
        let mut state = self.state.lock();
        state.reading.refused = state.reading.refused.max(count);
    }

    /// A stream is on this node now.
    pub(crate) fn connected(&self, node: &str) {
        node.clone_into(&mut self.state.lock().reading.node);
    }

    /// Something waited and no ack came between these two.
    pub(crate) fn silence(&self, from: Instant, to: Instant) {
        let Some(kill) = self.kill.get() else { return };
        if to > *kill && from < *kill + KILL_WINDOW {
            let mut state = self.state.lock();
            state.gap = state.gap.max(to - from);
        }
    }

    /// The counters.
    pub(crate) fn reading(&self) -> Reading {
        let state = self.state.lock();
        Reading {
            p50_us: state.latency_us.value_at_quantile(0.5),
            p99_us: state.latency_us.value_at_quantile(0.99),
            ..state.reading.clone()
        }
    }

    /// Longest silence around the kill.
    pub(crate) fn gap(&self) -> Duration {
        self.state.lock().gap
    }

    /// Adds this source's latencies to those of others.
    pub(crate) fn add_to(&self, all: &mut Histogram<u64>) {
        all.add(&self.state.lock().latency_us).expect("the same bounds");
    }
}

/// An empty histogram for [`Meter::add_to`].
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_US, 2).expect("bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn refusals_that_were_not_told_are_counted_at_the_end() {
        let meter = Meter::new([String::new(), String::new()], KillMark::default());
        meter.refused(3);
        meter.refused_in_all(4);
        assert_eq!(meter.reading().refused, 4);
    }

    #[test]
    fn only_silence_around_the_kill_counts() {
        let kill = KillMark::default();
        let meter = Meter::new([String::new(), String::new()], kill.clone());
        let start = clock::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        meter.silence(at(0), at(9));
        kill.set(at(10)).expect("once");
        meter.silence(at(0), at(9));
        assert_eq!(meter.gap(), Duration::ZERO, "it ended before the kill");
        meter.silence(at(9), at(12));
        meter.silence(at(12), at(13));
        meter.silence(at(31), at(90));
        assert_eq!(meter.gap(), Duration::from_secs(3));
    }
}
