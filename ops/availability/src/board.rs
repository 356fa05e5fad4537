//! What stands on a board: how the system is now, and its day, month and year.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Error;
use crate::account::{Account, account, minutes};
use crate::minute::{Function, Line, Minute, State};
use crate::period::{Period, written};

/// Minutes after which nobody knows how the system is: a minute is written when it is over.
const KNOWN_MINUTES: i64 = 3;

/// How the system is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Now {
    /// Every address answered.
    Up,
    /// Some address did not.
    Partial,
    /// A function worked at no address.
    Interrupted,
    /// No probe wrote anything of late.
    Unknown,
}

/// A board, as it stands at a minute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Board {
    /// That minute, UTC+07:00.
    pub at: String,
    /// How the system is.
    pub now: Now,
    /// The newest minute that a probe saw.
    pub newest: Option<String>,
    /// What failed in it: by function and address, why.
    pub failing: BTreeMap<Function, BTreeMap<String, String>>,
    /// Today.
    pub day: Account,
    /// This month.
    pub month: Account,
    /// This year: what is left of its allowance is what is left.
    pub year: Account,
}

impl Board {
    /// At the minute `now`, from the lines of one probe or several, as [`account`] takes them.
    ///
    /// # Errors
    /// [`Error::Period`] for a minute beyond the years that there are.
    pub fn of(now: i64, probes: &[Vec<Line>]) -> Result<Self, Error> {
        let at = written(now);
        let part = |chars: usize| Period::parse(at.get(..chars).unwrap_or_default());
        let (day, month, year) = (part("2026-11-22".len())?, part("2026-11".len())?, part(4)?);
        let newest = newest(now, probes);
        let is_known = newest.as_ref().is_some_and(|seen| now - seen.minute <= KNOWN_MINUTES);
        let state = match newest.as_ref().map(Minute::state) {
            Some(State::Up) if is_known => Now::Up,
            Some(State::Partial) if is_known => Now::Partial,
            Some(State::Interrupted) if is_known => Now::Interrupted,
            _ => Now::Unknown,
        };
        Ok(Self {
            now: state,
            failing: newest.as_ref().map(failing).unwrap_or_default(),
            newest: newest.map(|seen| written(seen.minute)),
            day: account(&day, now, probes),
            month: account(&month, now, probes),
            year: account(&year, now, probes),
            at,
        })
    }
}

/// The newest minute that was seen. One that is not over was written by a probe to whom something
/// worked nowhere: beside others it waits for theirs, who may have reached it.
fn newest(now: i64, probes: &[Vec<Line>]) -> Option<Minute> {
    let until = if probes.len() == 1 { now + 1 } else { now };
    let seen = probes.iter().flatten().filter_map(|line| match line {
        Line::Seen(seen) if seen.minute < until => Some(seen.minute),
        Line::Seen(_) | Line::Planned { .. } => None,
    });
    let newest = seen.max()?;
    minutes(newest..newest + 1, probes).remove(&newest)
}

fn failing(minute: &Minute) -> BTreeMap<Function, BTreeMap<String, String>> {
    let of = |function: Function| {
        let failed = minute.of(function).iter().filter(|(_, why)| !why.is_empty());
        let failed: BTreeMap<_, _> =
            failed.map(|(address, why)| (address.clone(), why.clone())).collect();
        (!failed.is_empty()).then_some((function, failed))
    };
    Function::ALL.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(minute: i64, reached: &[bool]) -> Line {
        let mut seen = Minute { minute, ..Minute::default() };
        let outcome = |(at, reached): (usize, &bool)| {
            (format!("site-{at}"), reached.then_some(()).ok_or_else(|| "cut".to_owned()))
        };
        seen.round(Function::Reception, reached.iter().enumerate().map(outcome).collect());
        seen.round(Function::EntryPage, vec![("page".to_owned(), Ok(()))]);
        Line::Seen(seen)
    }

    fn start() -> i64 {
        Period::parse("2026-11-22").expect("a day").from
    }

    #[test]
    fn how_the_system_is_now_is_what_the_newest_minute_says() {
        let at = start() + 10;
        let now = |lines: Vec<Line>| Board::of(at, &[lines]).expect("a board");
        assert_eq!(now(vec![seen(at - 1, &[true, true])]).now, Now::Up);
        let partial = now(vec![seen(at - 1, &[false, true])]);
        assert_eq!(
            (partial.now, partial.newest.as_deref()),
            (Now::Partial, Some("2026-11-22 00:09"))
        );
        assert_eq!(partial.failing[&Function::Reception]["site-0"], "cut");
        assert_eq!(partial.failing.len(), 1);
        // As soon as it is written.
        let down = now(vec![seen(at - 1, &[true, true]), seen(at, &[false, false])]);
        assert_eq!((down.now, down.year.interrupted), (Now::Interrupted, 0));
        // Nobody looks any more: it is not known, whatever was last.
        let old = now(vec![seen(at - KNOWN_MINUTES - 1, &[true])]);
        assert_eq!((old.now, old.newest.as_deref()), (Now::Unknown, Some("2026-11-22 00:06")));
        let none = now(Vec::new());
        assert_eq!((none.now, none.newest), (Now::Unknown, None));
    }

    #[test]
    fn a_minute_that_is_not_over_waits_for_the_other_probe() {
        let at = start() + 10;
        let cut = vec![seen(at - 1, &[true]), seen(at, &[false])];
        let of = |other| Board::of(at, &[cut.clone(), other]).expect("a board").now;
        assert_eq!(of(vec![seen(at - 1, &[true])]), Now::Up);
        let later = Board::of(at + 1, &[cut.clone(), vec![seen(at, &[true])]]).expect("a board");
        assert_eq!(later.now, Now::Partial);
        let both = Board::of(at + 1, &[cut, vec![seen(at, &[false])]]).expect("a board");
        assert_eq!((both.now, both.day.interrupted), (Now::Interrupted, 1));
    }

    #[test]
    fn day_month_and_year_stand_beside_each_other() {
        let at = start() + 2;
        let month = Period::parse("2026-11").expect("a month").from;
        let year = Period::parse("2026").expect("a year").from;
        let minutes = [year + 5, month + 5, at - 1];
        let lines = minutes.map(|minute| seen(minute, &[false])).to_vec();
        let board = Board::of(at, &[lines]).expect("a board");
        let of = |account: &Account| (account.period.clone(), account.interrupted);
        assert_eq!(of(&board.day), ("2026-11-22".to_owned(), 1));
        assert_eq!(of(&board.month), ("2026-11".to_owned(), 2));
        assert_eq!(of(&board.year), ("2026".to_owned(), 3));
        assert!((board.year.allowance_left_minutes - 5_253.0).abs() < 1e-9);
        assert!(Board::of(i64::MAX, &[]).is_err());
    }
}
