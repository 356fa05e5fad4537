//! The real twins of the seams [`Clock`] and [`Entropy`].

use std::time::{SystemTime, UNIX_EPOCH};

use dtm_machine::seams::{Clock, Entropy};

/// The system's clock: the one place of the node that reads it.
#[derive(Debug)]
pub struct SystemClock {
    start_us: i64,
}

impl SystemClock {
    /// Monotonic time counts from here.
    pub fn start() -> Self {
        Self { start_us: since_boot_us() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the real twin of the seam")]
    fn now_us(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic_us(&self) -> i64 {
        since_boot_us() - self.start_us
    }
}

/// Goes on while the machine is suspended, unlike `std::time::Instant`: else group time would lag
/// behind the clocks for as long as the pause was.
pub fn since_boot_us() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which lives here.
    #[allow(unsafe_code)]
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert!(failed == 0, "every Linux since 2.6.39 has this clock");
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// Which clock [`since_boot_us`] reads: that of one run of the machine, as seen from one time namespace.
pub fn boot_clock() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // Absent on kernels without time namespaces.
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Some(format!("{}/{}", boot.trim(), namespace.display()))
}

/// The operating system's randomness. Without it the process ends: no key is made of less.
#[derive(Clone, Copy, Debug)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives randomness");
    }
}
