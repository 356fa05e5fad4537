//! The calendar. Months above all: data keys and fingerprints live and die by the month.

use std::fmt;

/// A day, microseconds.
pub const DAY_US: i64 = 86_400_000_000;
/// How far local time is ahead of UTC, microseconds.
pub const LOCAL_OFFSET_US: i64 = 7 * 3_600 * 1_000_000;

/// A month in UTC, counted as year * 12 + (month - 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(pub u32);

impl Month {
    /// The month of a moment in Unix microseconds.
    pub fn of_micros(time_us: i64) -> Self {
        let (year, month, _) = civil(time_us.div_euclid(DAY_US));
        Self(u32::try_from(year * 12 + month - 1).unwrap_or(0))
    }

    /// The month before.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Year and month 1 to 12.
    pub fn year_month(self) -> (u32, u32) {
        (self.0 / 12, self.0 % 12 + 1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month) = self.year_month();
        write!(f, "{year:04}-{month:02}")
    }
}

/// The day of a moment where the people are, UTC+07:00 the whole year, counted from 1970-01-01.
pub fn local_day(time_us: i64) -> u32 {
    let local_us = time_us.saturating_add(LOCAL_OFFSET_US);
    u32::try_from(local_us.div_euclid(DAY_US)).unwrap_or(0)
}

/// Year, month and day of a day counted from 1970-01-01 (proleptic Gregorian calendar).
// Hot path: every time of a record.
#[inline]
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_vietnam() {
        let midnight_us = 20_779 * DAY_US - LOCAL_OFFSET_US;
        assert_eq!((local_day(midnight_us - 1), local_day(midnight_us)), (20_778, 20_779));
        assert_eq!(local_day(midnight_us + DAY_US - 1), 20_779);
        assert_eq!((local_day(i64::MIN), local_day(i64::MAX)), (0, 106_751_991));
    }

    #[test]
    fn months_follow_the_calendar() {
        for (days, text) in [
            (0, "1970-01"),
            (30, "1970-01"),
            (31, "1970-02"),
            (19_782, "2024-02"),
            (19_783, "2024-03"),
            (20_788, "2026-12"),
        ] {
            assert_eq!(Month::of_micros(days * DAY_US).to_string(), text);
        }
        assert_eq!(Month::of_micros(20_788 * DAY_US).previous().to_string(), "2026-11");
    }
}
