//! The demo's only look at the clock.

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};
use tokio::time::Instant;

/// Monotonic time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Unix microseconds.
pub(crate) fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// The day in Viet Nam.
pub(crate) fn today() -> Date {
    let vietnam = TimeZone::fixed(Offset::constant(7));
    Zoned::new(Timestamp::now(), vietnam).date()
}
