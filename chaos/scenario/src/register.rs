//! The register of past drills: when each is due again, and who has to be reminded.

use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};
use serde::Serialize;

use crate::{Report, UnixMs, Verdict};

/// A drill that was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its name.
    pub name: String,
    /// When.
    pub began: UnixMs,
    /// Whether it passed.
    pub passed: bool,
}

impl From<&Report> for Past {
    fn from(report: &Report) -> Self {
        let passed = report.verdict == Verdict::Passed;
        Self { name: report.name.clone(), began: report.began, passed }
    }
}

/// How a drill stands against its date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It never passed.
    Never,
    /// The date is past.
    Overdue,
    /// The date is near: a reminder.
    Soon,
    /// There is time.
    Fine,
}

/// When a drill is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Due {
    /// Its name.
    pub name: String,
    /// How often it was run.
    pub runs: usize,
    /// The last run, however it ended.
    pub last: Option<UnixMs>,
    /// The last run that passed: from it the time counts.
    pub passed: Option<UnixMs>,
    /// When it is due; None: now, since it never passed.
    pub due: Option<UnixMs>,
    /// What that means now.
    pub standing: Standing,
}

/// When each of these drills is due, the most pressing first. A drill is due so many months of the
/// calendar (Vietnam's) after it last passed: a run that did not pass proves nothing and moves no
/// date.
#[must_use]
pub fn due(names: &[&str], past: &[Past], now: UnixMs, months: u32, remind_days: u32) -> Vec<Due> {
    let mut all: Vec<Due> = names
        .iter()
        .map(|name| {
            let runs: Vec<&Past> = past.iter().filter(|past| past.name == *name).collect();
            let last = runs.iter().map(|run| run.began).max();
            let passed = runs.iter().filter(|run| run.passed).map(|run| run.began).max();
            let due = passed.map(|passed| later(passed, months));
            let reminded_ms = i64::from(remind_days) * 86_400_000;
            let standing = match due {
                None => Standing::Never,
                Some(due) if now >= due => Standing::Overdue,
                Some(due) if now.0 >= due.0 - reminded_ms => Standing::Soon,
                Some(_) => Standing::Fine,
            };
            Due { name: (*name).to_owned(), runs: runs.len(), last, passed, due, standing }
        })
        .collect();
    all.sort_by_key(|due| (due.standing, due.due));
    all
}

/// Months of the calendar later; a day that the month does not have is its last.
fn later(at: UnixMs, months: u32) -> UnixMs {
    let zone = TimeZone::fixed(Offset::constant(7));
    let moved = Timestamp::from_millisecond(at.0).and_then(|at| {
        let moved = at.to_zoned(zone).checked_add(Span::new().months(months))?;
        Ok(moved.timestamp().as_millisecond())
    });
    // Past the end of the calendar: never.
    UnixMs(moved.unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str) -> UnixMs {
        UnixMs(format!("{day}T09:00:00+07:00").parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn run(name: &str, day: &str, passed: bool) -> Past {
        Past { name: name.to_owned(), began: at(day), passed }
    }

    #[test]
    fn a_drill_is_due_a_year_after_it_passed_and_the_most_pressing_comes_first() {
        let past = [
            run("fine", "2026-06-01", true),
            run("soon", "2025-12-10", true),
            run("over", "2025-11-21", true),
            run("over", "2026-03-01", false),
            run("failed", "2026-11-01", false),
            run("fine", "2024-06-01", true),
        ];
        let names = ["fine", "soon", "over", "failed", "new"];
        let all = due(&names, &past, at("2026-11-22"), 12, 30);
        let shown: Vec<_> = all.iter().map(|due| (due.name.as_str(), due.standing)).collect();
        assert_eq!(
            shown,
            [
                ("failed", Standing::Never),
                ("new", Standing::Never),
                ("over", Standing::Overdue),
                ("soon", Standing::Soon),
                ("fine", Standing::Fine)
            ]
        );
        assert_eq!(all[0].last, Some(at("2026-11-01")));
        assert_eq!((all[2].due, all[2].runs), (Some(at("2026-11-21")), 2));
        assert_eq!(all[2].last, Some(at("2026-03-01")), "a run that failed is known");
        assert_eq!(all[4].due, Some(at("2027-06-01")));
    }

    #[test]
    fn a_month_without_that_day_ends_sooner_and_the_date_itself_is_due() {
        let past = [run("a", "2024-02-29", true)];
        let all = |now| due(&["a"], &past, at(now), 12, 30).remove(0);
        assert_eq!(all("2024-03-01").due, Some(at("2025-02-28")));
        assert_eq!(all("2025-02-28").standing, Standing::Overdue);
        assert_eq!(all("2025-02-27").standing, Standing::Soon);
        assert_eq!(all("2025-01-29").standing, Standing::Soon);
        assert_eq!(all("2025-01-28").standing, Standing::Fine);
    }
}
