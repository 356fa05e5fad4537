//! The one place of the benches that reads the machine's clock: measuring it is their job.

use std::time::Instant;

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the benches' clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, for naming a result.
#[expect(clippy::disallowed_methods, reason = "the benches' clock")]
pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
