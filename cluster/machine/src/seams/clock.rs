//! Time as a seam: nothing above storage reads the system clock itself.

use std::sync::atomic::{AtomicI64, Ordering};

/// Wall and monotonic time.
pub trait Clock: Send + Sync {
    /// Unix microseconds.
    fn now_us(&self) -> i64;
    /// Microseconds since some fixed moment; never goes back.
    fn monotonic_us(&self) -> i64;
}

/// A clock that moves only when told: for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_us: AtomicI64,
}

impl ManualClock {
    /// Starts at a moment in Unix microseconds.
    pub fn at(now_us: i64) -> Self {
        Self { now_us: AtomicI64::new(now_us) }
    }

    /// Moves on.
    pub fn advance_us(&self, by_us: i64) {
        self.now_us.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.now_us.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> i64 {
        self.now_us()
    }
}
