//! The two-hour rule: when the first path has been cut for so long, the standby channel is ordered.
//! Counted from the last good message. Pure: time is handed in, counted from some fixed moment by a
//! monotonic clock.
//!
//! ```text
//!  first path works ──cut──▶ counting ──standby_after──▶ ordered            (at once, automatic)
//!        ▲                     │ told as an incident      └▶ awaited ─confirm─▶ ordered  (confirmed)
//!        │                     │ after incident_after
//!        └───────────────────── works again ────────────────────────────────┘
//! ```

use std::time::Duration;

use crate::settings::{Settings, StandbyRule};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Works,
    Cut { since: Duration, is_told: bool },
    Awaited { since: Duration },
    Ordered { since: Duration },
}

/// What the rule says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Interrupted { cut_for: Duration },
    Awaited { cut_for: Duration },
    Ordered { cut_for: Duration, confirmed: bool },
}

/// The rule for one peer.
#[derive(Debug)]
pub(crate) struct Standby {
    rule: StandbyRule,
    incident_after: Duration,
    after: Duration,
    stage: Stage,
}

impl Standby {
    /// A first path that has never worked counts as cut from the start.
    pub(crate) fn new(settings: &Settings, now: Duration) -> Self {
        Self {
            rule: settings.standby,
            incident_after: settings.incident_after,
            after: settings.standby_after,
            stage: Stage::Cut { since: now, is_told: false },
        }
    }

    /// The first path works, or no longer does: then something was last heard over it at `heard`.
    /// Returns how long it did not work.
    pub(crate) fn note(&mut self, works: bool, heard: Duration, now: Duration) -> Duration {
        match (works, self.stage) {
            (true, _) => {
                let cut_for = self.cut_for(now).unwrap_or_default();
                self.stage = Stage::Works;
                return cut_for;
            }
            (false, Stage::Works) => {
                self.stage = Stage::Cut { since: heard.min(now), is_told: false };
            }
            (false, _) => {}
        }
        self.cut_for(now).unwrap_or_default()
    }

    /// How long the first path has been cut.
    pub(crate) fn cut_for(&self, now: Duration) -> Option<Duration> {
        match self.stage {
            Stage::Works => None,
            Stage::Cut { since, .. } | Stage::Awaited { since } | Stage::Ordered { since } => {
                Some(now.saturating_sub(since))
            }
        }
    }

    /// Says once each that it is an incident and that the time has come; to be asked until it says
    /// nothing.
    pub(crate) fn tick(&mut self, now: Duration) -> Option<Said> {
        let Stage::Cut { since, is_told } = self.stage else { return None };
        let cut_for = now.saturating_sub(since);
        if !is_told && cut_for >= self.incident_after {
            self.stage = Stage::Cut { since, is_told: true };
            return Some(Said::Interrupted { cut_for });
        }
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

    /// Whether the first path has been cut for long enough to be told as an incident.
    pub(crate) fn is_incident(&self) -> bool {
        !matches!(self.stage, Stage::Works | Stage::Cut { is_told: false, .. })
    }

    /// Whether the one confirmation is waited for.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self.stage, Stage::Awaited { .. })
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
    const INCIDENT: Duration = Duration::from_secs(30);
    const INSTANT: Duration = Duration::from_nanos(1);

    /// The first path was heard at the moment that is returned, and found cut eight seconds later.
    fn cut(rule: StandbyRule) -> (Standby, Duration) {
        let start = Duration::from_secs(5);
        let settings = Settings { standby: rule, ..Settings::default() };
        let mut standby = Standby::new(&settings, start);
        standby.note(true, start, start);
        let heard = start + Duration::from_secs(1_000_000);
        standby.note(false, heard, heard + Duration::from_secs(8));
        (standby, heard)
    }

    /// As [`cut`], told as an incident.
    fn incident(rule: StandbyRule) -> (Standby, Duration) {
        let (mut standby, heard) = cut(rule);
        assert_eq!(standby.tick(heard + INCIDENT - INSTANT), None);
        let said = standby.tick(heard + INCIDENT);
        assert_eq!(said, Some(Said::Interrupted { cut_for: INCIDENT }));
        assert_eq!(standby.tick(heard + INCIDENT), None, "said once");
        (standby, heard)
    }

    #[test]
    fn an_incident_begins_at_the_last_good_message_and_is_told_within_thirty_seconds() {
        let (standby, heard) = incident(StandbyRule::AtOnce);
        assert_eq!(standby.cut_for(heard + INCIDENT), Some(INCIDENT));
        assert!(Settings::default().incident_after <= Duration::from_secs(30));
    }

    #[test]
    fn a_cut_that_is_mended_soon_is_no_incident() {
        let (mut standby, heard) = cut(StandbyRule::AtOnce);
        let mended = heard + Duration::from_secs(12);
        assert_eq!(standby.note(true, mended, mended), Duration::from_secs(12));
        assert_eq!(standby.tick(heard + AFTER), None);
    }

    #[test]
    fn ordered_at_two_hours_and_not_a_moment_before() {
        for (rule, before) in [(StandbyRule::AtOnce, true), (StandbyRule::Automatic, false)] {
            let (mut standby, heard) = incident(rule);
            assert_eq!(standby.tick(heard + AFTER - INSTANT), None);
            assert_eq!(standby.may_use_standby(), before);
            let said = standby.tick(heard + AFTER);
            assert_eq!(said, Some(Said::Ordered { cut_for: AFTER, confirmed: false }));
            assert!(standby.may_use_standby());
            assert_eq!(standby.tick(heard + AFTER * 2), None, "said once");
        }
    }

    #[test]
    fn one_confirmation_is_waited_for_where_the_rule_says_so() {
        let (mut standby, heard) = incident(StandbyRule::Confirmed);
        assert_eq!(standby.confirm(heard), None, "nothing to confirm yet");
        assert_eq!(standby.tick(heard + AFTER), Some(Said::Awaited { cut_for: AFTER }));
        assert!(!standby.may_use_standby() && standby.is_awaited());
        let said = standby.confirm(heard + AFTER * 2);
        assert_eq!(said, Some(Said::Ordered { cut_for: AFTER * 2, confirmed: true }));
        assert!(standby.may_use_standby() && !standby.is_awaited());
    }

    #[test]
    fn a_first_path_that_works_again_ends_it_and_a_new_cut_counts_from_zero() {
        let (mut standby, heard) = incident(StandbyRule::Automatic);
        standby.tick(heard + AFTER);
        // A second word of the same cut changes nothing.
        standby.note(false, heard + AFTER, heard + AFTER);
        let (back, again) = (heard + AFTER * 2, heard + AFTER * 3);
        assert_eq!(standby.note(true, back, back), AFTER * 2);
        assert!(!standby.may_use_standby());
        standby.note(false, again, again);
        let said = standby.tick(again + AFTER - INSTANT);
        assert!(matches!(said, Some(Said::Interrupted { .. })), "{said:?}");
        assert_eq!(standby.tick(again + AFTER - INSTANT), None);
        assert!(standby.tick(again + AFTER).is_some());
    }
}
