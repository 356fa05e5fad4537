//! How long ago what was committed when, for one group: by it a replica that is behind in entries is
//! behind in time.
//!
//! ```text
//!  committed   ──●────●───────●────▶ samples: (when, through which index)
//!  a replica   ──────▲ holds through here: what the next sample brought is not there,
//!                      so it is behind since the sample after it
//! ```

use std::collections::VecDeque;
use std::time::Duration;

/// Samples that are kept: ten minutes of five a second. Who is further behind is told as that far.
const SAMPLES_MAX: usize = 3_000;

/// What was committed when, as far as its leader saw. Times are since any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct Course(VecDeque<(Duration, u64)>);

impl Course {
    /// Notes how far the group has committed now; indexes only rise.
    pub fn note(&mut self, now: Duration, committed: u64) {
        if self.0.back().is_some_and(|(_, last)| *last >= committed) {
            return;
        }
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, committed));
    }

    /// Committed entries that a replica that holds all through `matched` lacks, and since when it
    /// lacks the oldest of them: no earlier than that was seen committed here.
    pub fn behind(&self, now: Duration, matched: u64) -> (u64, Duration) {
        let Some((_, committed)) = self.0.back() else { return (0, Duration::ZERO) };
        let lacking = self.0.partition_point(|(_, index)| *index <= matched);
        let since = self.0.get(lacking).map(|(seen, _)| *seen);
        let age = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        (committed.saturating_sub(matched), age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_replica_is_behind_since_the_oldest_entry_that_it_lacks_was_committed() {
        let mut course = Course::default();
        assert_eq!(course.behind(ms(0), 0), (0, ms(0)), "nothing was seen yet");
        for (at, committed) in [(0, 10), (200, 20), (400, 20), (600, 50)] {
            course.note(ms(at), committed);
        }
        assert_eq!(course.behind(ms(800), 50), (0, ms(0)));
        assert_eq!(course.behind(ms(800), 60), (0, ms(0)), "ahead of what is committed");
        assert_eq!(course.behind(ms(800), 49), (1, ms(200)));
        assert_eq!(course.behind(ms(800), 19), (31, ms(600)));
        assert_eq!(course.behind(ms(800), 0), (50, ms(800)));
    }

    #[test]
    fn a_group_at_rest_makes_nobody_late() {
        let mut course = Course::default();
        (0..100).for_each(|at| course.note(ms(200 * at), 7));
        assert_eq!(course.0.len(), 1);
        assert_eq!(course.behind(ms(60_000), 7), (0, ms(0)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut course = Course::default();
        (1..=10_000).for_each(|at| course.note(ms(200 * at), at));
        assert_eq!(course.0.len(), SAMPLES_MAX);
        let (entries, age) = course.behind(ms(2_000_000), 0);
        assert_eq!((entries, age), (10_000, ms(200 * 2_999)));
    }
}
