//! Says what keeps failing without filling the log: at its start, then with a count each minute,
//! and once when it is over.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines about the same failure.
const EVERY: Duration = Duration::from_secs(60);

/// Failures of one thing that is tried again and again.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// When it was told last, and how many failures there were since the first one.
    failing: Option<(Instant, u64)>,
}

impl Repeats {
    /// It failed once more: how many times by now, where that is to be told.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<u64> {
        let Some((told, count)) = &mut self.failing else {
            self.failing = Some((now, 1));
            return Some(1);
        };
        *count += 1;
        if now.duration_since(*told) < EVERY {
            return None;
        }
        *told = now;
        Some(*count)
    }

    /// It worked: how many times it had failed, where it had.
    pub(crate) fn worked(&mut self) -> Option<u64> {
        self.failing.take().map(|(_, count)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_each_second_is_told_at_its_start_each_minute_and_at_its_end() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.worked(), None, "nothing failed");
        let mut told = Vec::new();
        let start = Instant::now();
        for second in 0..150 {
            told.extend(repeats.failed(start + Duration::from_secs(second)));
        }
        assert_eq!(told, [1, 61, 121]);
        assert_eq!((repeats.worked(), repeats.worked()), (Some(150), None));
        assert_eq!(repeats.failed(start), Some(1), "a new failure is told at once");
    }
}
