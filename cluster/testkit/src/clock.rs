//! A clock that starts where a test says.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use dtm_machine::seams::Clock;

/// Time since the clock was made, added to a moment of the test's choice.
#[derive(Debug)]
pub struct TestClock {
    base_us: AtomicI64,
    start: Instant,
}

impl TestClock {
    /// Shows this moment, microseconds, and goes on from there.
    pub fn starting_at(base_us: i64) -> Self {
        Self { base_us: AtomicI64::new(base_us), start: Instant::now() }
    }

    /// Another clock that shows the same.
    pub fn beside(&self) -> Self {
        Self { base_us: AtomicI64::new(self.base_us.load(Ordering::SeqCst)), start: self.start }
    }

    /// Moves the clock forward or, with a negative number, back, from what it shows. Monotonic time
    /// goes on as it was.
    pub fn move_by_us(&self, by_us: i64) {
        self.base_us.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.base_us.load(Ordering::SeqCst) + self.monotonic_us()
    }

    fn monotonic_us(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_micros()).expect("tests end before that")
    }
}
