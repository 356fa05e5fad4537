//! The drill's only look at the clock: it waits and measures by the machine's own.

use std::time::{Duration, Instant};

use dtm_scenario::UnixMs;
use jiff::Timestamp;

/// Monotonic time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Unix microseconds.
pub(crate) fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// The machine's clock, for a run.
pub(crate) struct Wall;

impl dtm_scenario::Clock for Wall {
    fn now(&self) -> UnixMs {
        UnixMs(Timestamp::now().as_millisecond())
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
