//! The two-hour rule: when the first path has been cut for so long, the standby channel is ordered.
//! Pure: time is handed in, counted from some fixed moment by a monotonic clock.
//!
//! ```text
//!  first path works ──cut──▶ counting ──standby_after──▶ ordered            (at once, automatic)
//!        ▲                                  └──────────▶ awaited ─confirm─▶ ordered  (confirmed)
//!        └───────────────────── works again ────────────────────────────────┘
//! ```

use std::time::Duration;

use crate::settings::StandbyRule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Works,
    Cut { since: Duration },
    Awaited { since: Duration },
    Ordered { since: Duration },
}

/// What the rule says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Awaited { cut_for: Duration },
    Ordered { cut_for: Duration, confirmed: bool },
}

/// The rule for one peer.
#[derive(Debug)]
pub(crate) struct Standby {
    rule: StandbyRule,
    after: Duration,
    stage: Stage,
}

impl Standby {
    /// A first path that has never worked counts as cut from the start.
    pub(crate) fn new(rule: StandbyRule, after: Duration, now: Duration) -> Self {
        Self { rule, after, stage: Stage::Cut { since: now } }
    }

    /// The first path works, or no longer does. Returns how long it did not.
    pub(crate) fn note(&mut self, works: bool, now: Duration) -> Duration {
        let cut_for = self.cut_for(now).unwrap_or_default();
        match (works, self.stage) {
            (true, _) => self.stage = Stage::Works,
            (false, Stage::Works) => self.stage = Stage::Cut { since: now },
            (false, _) => {}
        }
        cut_for
    }

    /// How long the first path has been cut.
    pub(crate) fn cut_for(&self, now: Duration) -> Option<Duration> {
        match self.stage {
            Stage::Works => None,
            Stage::Cut { since } | Stage::Awaited { since } | Stage::Ordered { since } => {
                Some(now.saturating_sub(since))
            }
        }
    }

    /// Says once that the time has come.
    pub(crate) fn tick(&mut self, now: Duration) -> Option<Said> {
        let Stage::Cut { since } = self.stage else { return None };
        let cut_for = now.saturating_sub(since);
        if cut_for < self.after {
            return None;
        }
        if self.rule == StandbyRule::Confirmed {
            self.stage = Stage::Awaited { since };
            return Some(Said::Awaited { cut_for });
        }
        self.stage = Stage::Ordered { since };
        Some(Said::Ordered { cut_for, confirmed: false })
    }

    /// The one confirmation. `None` where none is waited for.
    pub(crate) fn confirm(&mut self, now: Duration) -> Option<Said> {
        let Stage::Awaited { since } = self.stage else { return None };
        self.stage = Stage::Ordered { since };
        let cut_for = now.saturating_sub(since);
        Some(Said::Ordered { cut_for, confirmed: true })
    }

    /// Whether paths behind the first may be used.
    pub(crate) fn may_use_standby(&self) -> bool {
        self.rule == StandbyRule::AtOnce || matches!(self.stage, Stage::Ordered { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(7_200);

    fn cut(rule: StandbyRule) -> (Standby, Duration) {
        let start = Duration::from_secs(5);
        let mut standby = Standby::new(rule, AFTER, start);
        standby.note(true, start);
        let cut = start + Duration::from_secs(1_000_000);
        standby.note(false, cut);
        (standby, cut)
    }

    #[test]
    fn ordered_at_two_hours_and_not_a_moment_before() {
        for (rule, before) in [(StandbyRule::AtOnce, true), (StandbyRule::Automatic, false)] {
            let (mut standby, cut) = cut(rule);
            assert_eq!(standby.tick(cut + AFTER - Duration::from_nanos(1)), None);
            assert_eq!(standby.may_use_standby(), before);
            let said = standby.tick(cut + AFTER);
            assert_eq!(said, Some(Said::Ordered { cut_for: AFTER, confirmed: false }));
            assert!(standby.may_use_standby());
            assert_eq!(standby.tick(cut + AFTER * 2), None, "said once");
        }
    }

    #[test]
    fn one_confirmation_is_waited_for_where_the_rule_says_so() {
        let (mut standby, cut) = cut(StandbyRule::Confirmed);
        assert_eq!(standby.confirm(cut), None, "nothing to confirm yet");
        assert_eq!(standby.tick(cut + AFTER), Some(Said::Awaited { cut_for: AFTER }));
        assert!(!standby.may_use_standby());
        let said = standby.confirm(cut + AFTER * 2);
        assert_eq!(said, Some(Said::Ordered { cut_for: AFTER * 2, confirmed: true }));
        assert!(standby.may_use_standby());
    }

    #[test]
    fn a_first_path_that_works_again_ends_it_and_a_new_cut_counts_from_zero() {
        let (mut standby, cut) = cut(StandbyRule::Automatic);
        standby.tick(cut + AFTER);
        // A second word of the same cut changes nothing.
        standby.note(false, cut + AFTER);
        assert_eq!(standby.note(true, cut + AFTER * 2), AFTER * 2);
        assert!(!standby.may_use_standby());
        standby.note(false, cut + AFTER * 3);
        assert_eq!(standby.tick(cut + AFTER * 4 - Duration::from_nanos(1)), None);
        assert!(standby.tick(cut + AFTER * 4).is_some());
    }
}
