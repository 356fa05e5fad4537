//! Days, months and years where the people are: UTC+07:00 the whole year.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use jiff::{Span, Timestamp};

use crate::Error;

/// UTC+07:00.
const LOCAL: Offset = Offset::constant(7);
const MINUTE_S: i64 = 60;

/// A day, a month or a year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// As it was asked for.
    pub name: String,
    /// First minute, since 1970-01-01 UTC.
    pub from: i64,
    /// The minute after the last.
    pub to: i64,
    /// Minutes of the year that it begins in.
    pub year_minutes: i64,
}

impl Period {
    /// `2026`, `2026-11` or `2026-11-22`.
    ///
    /// # Errors
    /// [`Error::Period`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Period(text.to_owned());
        let numbers: Option<Vec<i16>> = text.split('-').map(|part| part.parse().ok()).collect();
        let (first, span) = match numbers.as_deref() {
            Some([year]) => (Date::new(*year, 1, 1), Span::new().years(1)),
            Some([year, month]) => (Date::new(*year, small(*month), 1), Span::new().months(1)),
            Some([year, month, day]) => {
                (Date::new(*year, small(*month), small(*day)), Span::new().days(1))
            }
            _ => return Err(wrong()),
        };
        let first = first.ok().filter(|date| date.year() >= 1970).ok_or_else(wrong)?;
        let last = first.checked_add(span).map_err(|_| wrong())?;
        let (from, to) = (minute_of(first), minute_of(last));
        let (Some(from), Some(to)) = (from, to) else { return Err(wrong()) };
        let year_minutes = i64::from(first.days_in_year()) * 24 * 60;
        Ok(Self { name: text.to_owned(), from, to, year_minutes })
    }

    /// The year of a minute.
    ///
    /// # Errors
    /// [`Error::Period`] beyond the years that there are.
    pub fn year_of(minute: i64) -> Result<Self, Error> {
        let text = local(minute).map_or_else(|| minute.to_string(), |at| at.year().to_string());
        Self::parse(&text)
    }

    /// Minutes that may be an interruption in the year: 1 % of it.
    pub fn allowance(&self) -> f64 {
        self.year_minutes as f64 / 100.0
    }
}

/// What does not fit is no month and no day either.
fn small(number: i16) -> i8 {
    i8::try_from(number).unwrap_or(0)
}

fn minute_of(date: Date) -> Option<i64> {
    let midnight = LOCAL.to_timestamp(date.to_datetime(Default::default())).ok()?;
    Some(midnight.as_second().div_euclid(MINUTE_S))
}

fn local(minute: i64) -> Option<DateTime> {
    let at = Timestamp::from_second(minute.checked_mul(MINUTE_S)?).ok()?;
    Some(LOCAL.to_datetime(at))
}

/// A minute as people write it: `2026-11-22 17:05`.
pub(crate) fn written(minute: i64) -> String {
    local(minute).map_or_else(|| minute.to_string(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_midnight_of_hanoi() {
        let day = Period::parse("2026-11-22").expect("a day");
        assert_eq!((written(day.from), day.to - day.from), ("2026-11-22 00:00".to_owned(), 1_440));
        // 17:00 UTC of the day before.
        assert_eq!(day.from * 60 % 86_400, 17 * 3_600);
        let month = Period::parse("2028-02").expect("a month");
        assert_eq!(month.to - month.from, 29 * 1_440);
        let year = Period::year_of(day.from).expect("a year");
        assert_eq!((year.name.as_str(), year.to - year.from), ("2026", 525_600));
    }

    #[test]
    fn a_year_allows_one_percent_of_its_minutes() {
        let of = |year| Period::parse(year).expect("a year").allowance();
        // 87 h 36 min; 87 h 50 min 24 s.
        assert!((of("2026") - 5_256.0).abs() < 1e-9, "{}", of("2026"));
        assert!((of("2028") - (87.0 * 60.0 + 50.4)).abs() < 1e-9, "{}", of("2028"));
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in ["", "26x", "2026-13", "2026-02-30", "2026-1-1-1", "-5", "1969", "2026-300"] {
            assert!(Period::parse(text).is_err(), "{text}");
        }
    }
}
