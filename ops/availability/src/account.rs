//! What minutes make of a period.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;

use crate::minute::{Function, Line, Maintenance, Minute, State};
use crate::period::{Period, written};

/// Minutes without a break in which the system was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interruption {
    /// First minute, UTC+07:00.
    pub from: String,
    /// How many.
    pub minutes: i64,
    /// What worked at no address.
    pub functions: BTreeSet<Function>,
    /// Planned maintenance that falls into it; it counts all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<String>,
}

/// The account of a period, up to now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Of what.
    pub period: String,
    /// Minutes of the period.
    pub minutes: i64,
    /// Of them past.
    pub past: i64,
    /// Of the past ones, those that a probe saw.
    pub seen: i64,
    /// Past ones that nobody saw: it is not known what they were.
    pub unseen: i64,
    /// Seen ones in which the system was interrupted.
    pub interrupted: i64,
    /// Seen ones in which some address failed beside others that answered.
    pub partial: i64,
    /// Share of the seen minutes that were no interruption, percent; 100 where nothing was seen.
    pub availability_percent: f64,
    /// The same over all past minutes, where each that nobody saw had been an interruption.
    pub availability_at_least_percent: f64,
    /// Minutes that may be an interruption in the whole year.
    pub year_allowance_minutes: f64,
    /// What of them the interruptions of this period leave. Below 0 the year is missed.
    pub allowance_left_minutes: f64,
    /// The interruptions, in order.
    pub interruptions: Vec<Interruption>,
    /// Minutes in which an address failed, by function and address.
    pub failed_minutes: BTreeMap<Function, BTreeMap<String, i64>>,
}

/// The account of a period at the minute `now` (not yet past), from the lines of one probe or
/// several, each in its order: of two lines of a minute the later one holds. Where several probes
/// saw a minute, what one of them reached counts as reached.
pub fn account(period: &Period, now: i64, probes: &[Vec<Line>]) -> Account {
    let past = (now.min(period.to) - period.from).max(0);
    let until = period.from + past;
    let minutes = minutes(period.from..until, probes);
    let planned = probes.iter().flatten().filter_map(|line| match line {
        Line::Planned { maintenance } => Some(maintenance),
        Line::Seen(_) => None,
    });
    let planned: Vec<&Maintenance> = planned.collect();
    let mut failed_minutes: BTreeMap<Function, BTreeMap<String, i64>> = BTreeMap::new();
    let mut interruptions = Interruptions::default();
    let mut partial = 0;
    for minute in minutes.values() {
        for function in Function::ALL {
            let failed = minute.of(function).iter().filter(|(_, why)| !why.is_empty());
            for (address, _) in failed {
                let of = failed_minutes.entry(function).or_default();
                *of.entry(address.clone()).or_default() += 1;
            }
        }
        match minute.state() {
            State::Interrupted => interruptions.add(minute, &planned),
            State::Partial => partial += 1,
            State::Up => {}
        }
    }
    let seen = minutes.len() as i64;
    let interrupted = interruptions.minutes;
    let unseen = past - seen;
    Account {
        period: period.name.clone(),
        minutes: period.to - period.from,
        past,
        seen,
        unseen,
        interrupted,
        partial,
        availability_percent: percent(seen - interrupted, seen),
        availability_at_least_percent: percent(seen - interrupted, past),
        year_allowance_minutes: period.allowance(),
        allowance_left_minutes: period.allowance() - interrupted as f64,
        interruptions: interruptions.all,
        failed_minutes,
    }
}

fn percent(part: i64, whole: i64) -> f64 {
    if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Each minute of these that a probe saw.
pub(crate) fn minutes(range: Range<i64>, probes: &[Vec<Line>]) -> BTreeMap<i64, Minute> {
    let mut all: BTreeMap<i64, Minute> = BTreeMap::new();
    for lines in probes {
        let seen = lines.iter().filter_map(|line| match line {
            Line::Seen(seen) if range.contains(&seen.minute) => Some((seen.minute, seen)),
            Line::Seen(_) | Line::Planned { .. } => None,
        });
        let last: BTreeMap<i64, &Minute> = seen.collect();
        for (minute, seen) in last {
            match all.entry(minute) {
                Entry::Occupied(mut other) => other.get_mut().join(seen),
                Entry::Vacant(none) => drop(none.insert(seen.clone())),
            }
        }
    }
    all
}

#[derive(Default)]
struct Interruptions {
    all: Vec<Interruption>,
    /// The minute after the last one.
    next: i64,
    minutes: i64,
}

impl Interruptions {
    /// Minutes come in order.
    fn add(&mut self, minute: &Minute, planned: &[&Maintenance]) {
        if self.all.is_empty() || self.next != minute.minute {
            self.all.push(Interruption {
                from: written(minute.minute),
                minutes: 0,
                functions: BTreeSet::new(),
                planned: Vec::new(),
            });
        }
        self.next = minute.minute + 1;
        self.minutes += 1;
        let Some(last) = self.all.last_mut() else { return };
        last.minutes += 1;
        last.functions.extend(&minute.interrupted);
        for maintenance in planned {
            let falls_in = (maintenance.from..maintenance.to).contains(&minute.minute);
            if falls_in && !last.planned.contains(&maintenance.reason) {
                last.planned.push(maintenance.reason.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(minute: i64, reached: &[bool]) -> Line {
        let mut seen = Minute { minute, ..Minute::default() };
        let outcome = |(at, reached): (usize, &bool)| {
            let outcome = if *reached { Ok(()) } else { Err("cut".to_owned()) };
            (format!("site-{at}"), outcome)
        };
        for function in Function::ALL {
            seen.round(function, reached.iter().enumerate().map(outcome).collect());
        }
        Line::Seen(seen)
    }

    #[test]
    fn a_simulated_year_is_accounted_to_the_minute() {
        let year = Period::parse("2026").expect("a year");
        // 5,000 minutes in one piece from the second day on, 300 single ones; one in 1,000 is not
        // seen, none of them among the others.
        let down = |at: i64| (1_440..6_440).contains(&at) || (at >= 100_000 && at % 1_420 == 7);
        let singles = (100_000..525_600).filter(|at| at % 1_420 == 7).count() as i64;
        let unseen = |at: i64| at % 1_000 == 999 && !down(at);
        let minutes = (0..525_600).filter(|at| !unseen(*at));
        let lines: Vec<Line> = minutes.map(|at| seen(year.from + at, &[!down(at)])).collect();
        let seen_minutes = lines.len() as i64;
        let probes = [lines];
        let whole = account(&year, year.to, &probes);
        assert_eq!((whole.minutes, whole.past, whole.seen), (525_600, 525_600, seen_minutes));
        assert_eq!(whole.interrupted, 5_000 + singles);
        assert_eq!(whole.interruptions.len() as i64, 1 + singles);
        assert_eq!(
            (whole.interruptions[0].from.as_str(), whole.interruptions[0].minutes),
            ("2026-01-02 00:00", 5_000)
        );
        let exact = (seen_minutes - 5_000 - singles) as f64 * 100.0 / seen_minutes as f64;
        assert!((whole.availability_percent - exact).abs() < 1e-9);
        assert!(whole.availability_at_least_percent < whole.availability_percent);
        assert!((whole.allowance_left_minutes - (256.0 - singles as f64)).abs() < 1e-9);
        // A day in the middle of it, and the year as it stood then.
        let day = Period::parse("2026-01-03").expect("a day");
        let of_day = account(&day, year.to, &probes);
        assert_eq!((of_day.interrupted, of_day.minutes), (1_440, 1_440));
        let then = account(&year, year.from + 2_000, &probes);
        assert_eq!((then.past, then.interrupted), (2_000, 560));
    }

    #[test]
    fn one_site_that_is_away_is_a_partial_failure_and_all_are_an_interruption() {
        let day = Period::parse("2026-11-22").expect("a day");
        let at = |minute| day.from + minute;
        let lines = vec![
            // Written as soon as it was an interruption, and again when the minute was over.
            seen(at(2), &[false]),
            seen(at(0), &[true, true]),
            seen(at(1), &[false, true]),
            seen(at(2), &[false, false]),
            seen(at(3), &[true, true]),
        ];
        let found = account(&day, at(4), &[lines]);
        assert_eq!((found.seen, found.partial, found.interrupted, found.unseen), (4, 1, 1, 0));
        assert_eq!(found.failed_minutes[&Function::Reception]["site-0"], 2);
        assert_eq!(found.failed_minutes[&Function::EntryPage]["site-1"], 1);
        assert_eq!(found.interruptions[0].functions.len(), 2);
    }

    #[test]
    fn planned_maintenance_is_named_and_charged() {
        let day = Period::parse("2026-11-22").expect("a day");
        let maintenance =
            Maintenance { from: day.from, to: day.from + 10, reason: "disks".to_owned() };
        let lines = vec![
            Line::Planned { maintenance },
            seen(day.from + 5, &[false]),
            seen(day.from + 6, &[false]),
        ];
        let found = account(&day, day.from + 7, &[lines]);
        assert_eq!((found.interrupted, found.interruptions.len()), (2, 1));
        assert_eq!(found.interruptions[0].planned, ["disks"]);
        assert_eq!((found.unseen, found.past), (5, 7));
        assert!((found.availability_percent - 0.0).abs() < 1e-9);
    }

    #[test]
    fn several_probes_add_up_to_what_one_of_them_reached() {
        let day = Period::parse("2026-11-22").expect("a day");
        let probes = [vec![seen(day.from, &[false, false])], vec![seen(day.from, &[true])]];
        let found = account(&day, day.from + 1, &probes);
        assert_eq!((found.seen, found.interrupted, found.partial), (1, 0, 1));
    }
}
