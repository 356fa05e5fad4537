//! What callers rely on in a `Clock`.

use dtm_machine::seams::Clock;

/// Runs the suite.
pub fn suite(clock: &dyn Clock) {
    let mut before = clock.monotonic_us();
    for _ in 0..1000 {
        let now = clock.monotonic_us();
        assert!(now >= before, "monotonic time went back from {before} to {now}");
        before = now;
    }
    assert!(clock.now_us() >= 0, "wall time is after 1970");
}
