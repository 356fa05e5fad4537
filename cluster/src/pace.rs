//! How fast this node takes copies: bundles of snapshots and bundles it lacks, over all groups.
//! What is committed now, and what a reader waits for, is not held up.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One wait at most: the sender of a copy sees that it goes on.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes a second, in turns: whoever has taken some is waited for by the next.
#[derive(Debug)]
pub(crate) struct Pace {
    /// 0 = no bound.
    bytes_per_second: u64,
    /// When all that was taken is paid.
    paid: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn to store so many bytes. Cancel-safe: the turn is then lost, not free.
    pub(crate) async fn take(&self, bytes: usize) {
        let wait = self.owe(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(WAIT_MAX)).await;
        }
    }

    /// How long those before take; these bytes are paid behind them.
    fn owe(&self, bytes: usize, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_second;
        let mut paid = self.paid.lock();
        let begins = (*paid).max(now);
        // Beyond the longest wait nothing is added up: a burst does not hold up copies for hours.
        *paid = begins + Duration::from_micros(micros).min(WAIT_MAX);
        begins - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_take_turns_at_the_rate() {
        let (pace, mut now) = (Pace::new(1 << 20), Instant::now());
        let begun = now;
        for _ in 0..64 {
            now += pace.owe(256 << 10, now);
        }
        // The last one is still to be paid.
        let lasted = (now - begun).as_secs_f64();
        assert!((lasted - 63.0 * 0.25).abs() < 0.05, "{lasted} s for 16 MiB at 1 MiB/s");
        assert_eq!(pace.owe(1, now + Duration::from_secs(1)), Duration::ZERO, "nothing is owed");
    }

    #[test]
    fn no_bound_is_no_wait_and_no_wait_is_without_bound() {
        let (free, slow) = (Pace::new(0), Pace::new(1));
        let now = Instant::now();
        assert_eq!((free.owe(usize::MAX, now), free.owe(1, now)), (Duration::ZERO, Duration::ZERO));
        assert_eq!((slow.owe(1 << 30, now), slow.owe(1, now)), (Duration::ZERO, WAIT_MAX));
    }
}
