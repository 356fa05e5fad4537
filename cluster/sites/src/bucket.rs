//! The rate of copies: a token bucket that all copies of this node leave through.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What may leave at once, as a time at the rate.
const BURST: Duration = Duration::from_millis(50);
/// At least one packet's worth at a time.
const BURST_BYTES_MIN: u64 = 16 << 10;
/// At most this much a write: lanes take turns.
const TURN_BYTES_MAX: usize = 64 << 10;

/// Bytes a second over all copies.
pub(crate) struct Bucket {
    bytes_per_second: u64,
    burst: u64,
    state: Mutex<State>,
}

struct State {
    bytes: u64,
    filled: Instant,
}

impl Bucket {
    /// `None` = no bound.
    pub(crate) fn new(bytes_per_second: u64, now: Instant) -> Option<Self> {
        let burst = (bytes_per_second as u128 * BURST.as_nanos() / 1_000_000_000) as u64;
        let burst = burst.max(BURST_BYTES_MIN);
        let state = Mutex::new(State { bytes: burst, filled: now });
        (bytes_per_second > 0).then_some(Self { bytes_per_second, burst, state })
    }

    /// Takes some of `wanted`, at least one byte, or says when there is something again.
    pub(crate) fn take(&self, wanted: usize, now: Instant) -> Result<usize, Instant> {
        let mut state = self.state.lock();
        let passed = now.saturating_duration_since(state.filled).as_nanos();
        let gained = passed * u128::from(self.bytes_per_second) / 1_000_000_000;
        if gained > 0 {
            state.bytes = self.burst.min(state.bytes + gained.min(self.burst.into()) as u64);
            state.filled = now;
        }
        // Small turns would cost more packets than they carry.
        let least = (wanted as u64).min(BURST_BYTES_MIN / 4);
        if state.bytes < least {
            let lacking = u128::from(least - state.bytes) * 1_000_000_000;
            let pause = lacking.div_ceil(u128::from(self.bytes_per_second)) as u64;
            return Err(now + Duration::from_nanos(pause.max(1_000_000)));
        }
        let taken = wanted.min(TURN_BYTES_MAX).min(state.bytes as usize);
        state.bytes -= taken as u64;
        Ok(taken)
    }

    /// What was taken and not written.
    pub(crate) fn give_back(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = self.burst.min(state.bytes + bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_the_rate_and_one_burst() {
        let (rate, begun) = (1 << 20, Instant::now());
        let bucket = Bucket::new(rate, begun).expect("a bound");
        let (mut sent, mut now) = (0, begun);
        while now - begun < Duration::from_secs(10) {
            match bucket.take(1 << 20, now) {
                Ok(taken) => sent += taken as u64,
                Err(until) => now = until,
            }
        }
        let due = 10 * rate;
        assert!((due * 95 / 100..=due + bucket.burst).contains(&sent), "{sent} of {due}");
    }

    #[test]
    fn what_was_not_written_is_given_back() {
        let now = Instant::now();
        let bucket = Bucket::new(1 << 20, now).expect("a bound");
        let taken = bucket.take(usize::MAX, now).expect("a burst");
        bucket.give_back(taken);
        assert_eq!(bucket.take(usize::MAX, now), Ok(taken));
        assert!(bucket.take(usize::MAX, now).is_err());
        assert!(Bucket::new(0, now).is_none());
    }
}
