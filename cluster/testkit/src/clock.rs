//! A clock that starts where a test says.

use std::time::Instant;

use dtm_machine::seams::Clock;

/// Time since the clock was made, added to a moment of the test's choice.
#[derive(Clone, Copy, Debug)]
pub struct TestClock {
    base_us: i64,
    start: Instant,
}

impl TestClock {
    /// Shows this moment, microseconds, and goes on from there.
    pub fn starting_at(base_us: i64) -> Self {
        Self { base_us, start: Instant::now() }
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.base_us + self.monotonic_us()
    }

    fn monotonic_us(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_micros()).expect("tests end before that")
    }
}
