//! How long to wait before the next attempt: exponential, bounded, with jitter from a seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);

/// Waits of a row of failures.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    longest: Duration,
    rng: StdRng,
}

impl Backoff {
    pub(crate) fn new(longest: Duration, seed: u64) -> Self {
        Self { failures: 0, longest, rng: StdRng::seed_from_u64(seed) }
    }

    /// There was progress: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: between half and all of 50 ms × 2^n, at least what the
    /// server asked for, never more than the longest.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let wait = full.mul_f64(self.rng.random_range(0.5..=1.0));
        wait.max(asked.unwrap_or_default()).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_repeat_with_the_seed() {
        let longest = Duration::from_secs(5);
        let mut a = Backoff::new(longest, 7);
        let mut b = Backoff::new(longest, 7);
        let waits: Vec<_> = (0..40).map(|_| a.next(None)).collect();
        assert!(waits.iter().all(|w| *w <= longest && *w >= FIRST / 2));
        assert!(waits[39] >= longest / 2);
        assert_eq!(waits, (0..40).map(|_| b.next(None)).collect::<Vec<_>>());
        assert_eq!(a.next(Some(Duration::from_secs(60))), longest);
        a.reset();
        assert!(a.next(None) <= FIRST);
    }
}
