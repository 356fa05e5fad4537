//! Lexical forms of scalar values: which bytes are canonical, and how others are brought there.
//!
//! Every `is_*` function answers for the canonical form only and takes the unescaped text; every
//! `to_*` function accepts what a sender may write and returns the canonical form or nothing.
//! Pure functions, linear in the length of the text.

// Hot path: `is_*` run once a field on every record.

use std::cmp::Ordering;

use dtm_types::civil;

/// Longest number in digits; longer ones are refused before anything is computed from them.
pub(crate) const NUMBER_DIGITS_MAX: usize = 64;
/// Largest integer that every JSON reader keeps exactly.
pub(crate) const INTEGER_MAX: i64 = 1 << 53;
/// Offset of Vietnam time, the offset of every canonical time.
const OFFSET_MINUTES: i64 = 7 * 60;

/// Upper-case letters, digits, dots and hyphens.
pub(crate) fn is_code(b: &[u8]) -> bool {
    let ok = |c: u8| c.is_ascii_uppercase() | c.is_ascii_digit() | (c == b'.') | (c == b'-');
    !b.is_empty() && b.iter().fold(true, |all, &c| all & ok(c))
}

/// Digits only.
pub(crate) fn is_digits(b: &[u8]) -> bool {
    !b.is_empty() && b.iter().all(u8::is_ascii_digit)
}

/// The SHA-256 digest as 64 lower-case hexadecimal digits.
pub(crate) fn is_sha256(b: &[u8]) -> bool {
    b.len() == 64 && b.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Standard base64 with padding, without blanks, without stray bits in the last group.
pub(crate) fn is_base64(b: &[u8]) -> bool {
    if b.is_empty() || !b.len().is_multiple_of(4) {
        return false;
    }
    let body = b.strip_suffix(b"==").or_else(|| b.strip_suffix(b"=")).unwrap_or(b);
    let ok = |c: u8| c.is_ascii_alphanumeric() | (c == b'+') | (c == b'/');
    if !body.iter().fold(true, |all, &c| all & ok(c)) {
        return false;
    }
    let Some(&last) = body.last() else {
        return false;
    };
    match b.len() - body.len() {
        0 => true,
        1 => base64_value(last) & 0b11 == 0,
        _ => base64_value(last) & 0b1111 == 0,
    }
}

fn base64_value(c: u8) -> u8 {
    match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    }
}

/// Absolute `https` address of printable ASCII characters that RFC 3986 allows.
pub(crate) fn is_uri(b: &[u8]) -> bool {
    let Some(rest) = b.strip_prefix(b"https://") else {
        return false;
    };
    let host = rest.split(|c| matches!(c, b'/' | b'?' | b'#')).next().unwrap_or_default();
    let forbidden = |c: &u8| {
        !(0x21..=0x7e).contains(c)
            || matches!(c, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    host.iter().any(u8::is_ascii_alphanumeric) && !b.iter().any(forbidden)
}

/// A JSON integer in canonical form: no plus, no leading zero, no "-0".
pub(crate) fn canonical_integer(b: &[u8]) -> Option<i64> {
    let (negative, digits) = match b {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, b),
    };
    if !is_digits(digits)
        || digits.len() > 16
        || (digits[0] == b'0' && (digits.len() > 1 || negative))
    {
        return None;
    }
    let value = digits.iter().fold(0i64, |n, c| n * 10 + i64::from(c - b'0'));
    (value <= INTEGER_MAX).then_some(if negative { -value } else { value })
}

/// A decimal in canonical form: no exponent, no trailing zeros, no "-0".
pub(crate) fn is_decimal(b: &[u8]) -> bool {
    let digits = b.strip_prefix(b"-").unwrap_or(b);
    let (whole, fraction) = match digits.iter().position(|&c| c == b'.') {
        Some(dot) => (&digits[..dot], Some(&digits[dot + 1..])),
        None => (digits, None),
    };
    let whole_ok = is_digits(whole) && (whole.len() == 1 || whole[0] != b'0');
    let fraction_ok = fraction.is_none_or(|f| is_digits(f) && f.last() != Some(&b'0'));
    whole_ok && fraction_ok && digits.len() <= NUMBER_DIGITS_MAX && b != b"-0"
}

/// Brings a plain decimal ("12.50", "-0.0", "7.") to its canonical form.
pub(crate) fn to_decimal(s: &str) -> Option<String> {
    let s = s.trim();
    let (sign, digits) = match s.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", s),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole_ok = is_digits(whole.as_bytes()) && (whole.len() == 1 || !whole.starts_with('0'));
    let fraction_ok = fraction.bytes().all(|c| c.is_ascii_digit());
    if !whole_ok || !fraction_ok || digits.len() > NUMBER_DIGITS_MAX {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let sign = if whole == "0" && fraction.is_empty() { "" } else { sign };
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{dot}{fraction}"))
}

/// Compares two canonical decimals by value.
pub(crate) fn compare_decimals(a: &str, b: &str) -> Ordering {
    let magnitude = |x: &str, y: &str| {
        let (xw, xf) = x.split_once('.').unwrap_or((x, ""));
        let (yw, yf) = y.split_once('.').unwrap_or((y, ""));
        xw.len().cmp(&yw.len()).then_with(|| xw.cmp(yw)).then_with(|| xf.cmp(yf))
    };
    match (a.strip_prefix('-'), b.strip_prefix('-')) {
        (None, None) => magnitude(a, b),
        (Some(x), Some(y)) => magnitude(y, x),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
    }
}

/// Number of days of a month in the Gregorian calendar; 0 for a month that does not exist.
pub(crate) fn days_in_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

fn number(b: &[u8]) -> Option<u32> {
    b.iter().try_fold(0u32, |n, c| c.is_ascii_digit().then(|| n * 10 + u32::from(c - b'0')))
}

/// `YYYY-MM-DD` with a real day.
fn day(b: &[u8]) -> Option<(u32, u32, u32)> {
    if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    let (y, m, d) = (number(&b[..4])?, number(&b[5..7])?, number(&b[8..10])?);
    (y >= 1 && d >= 1 && d <= days_in_month(y, m)).then_some((y, m, d))
}

/// `HH:MM:SS` of a real time of day; leap seconds have no place in +07:00 arithmetic.
fn clock(b: &[u8]) -> Option<(u32, u32, u32)> {
    if b.len() != 8 || b[2] != b':' || b[5] != b':' {
        return None;
    }
    let (h, m, s) = (number(&b[..2])?, number(&b[3..5])?, number(&b[6..8])?);
    (h < 24 && m < 60 && s < 60).then_some((h, m, s))
}

/// A time in canonical form: +07:00, seconds, at most 6 fraction digits without trailing zeros.
pub(crate) fn is_date_time(b: &[u8]) -> bool {
    if b.len() < 25 || !b.ends_with(b"+07:00") || b[10] != b'T' {
        return false;
    }
    let fraction = &b[19..b.len() - 6];
    let fraction_ok = match fraction {
        [] => true,
        [b'.', f @ ..] => f.len() <= 6 && is_digits(f) && f.last() != Some(&b'0'),
        _ => false,
    };
    fraction_ok && day(&b[..10]).is_some() && clock(&b[11..19]).is_some()
}

/// A date in canonical form: a year, a month, a day, or a full time.
pub(crate) fn is_date(b: &[u8]) -> bool {
    match b.len() {
        10 => day(b).is_some(),
        4 => number(b).is_some_and(|y| y >= 1),
        7 => {
            b[4] == b'-'
                && number(&b[..4]).is_some_and(|y| y >= 1)
                && number(&b[5..]).is_some_and(|m| (1..=12).contains(&m))
        }
        _ => is_date_time(b),
    }
}

/// Brings an RFC 3339 time with seconds and offset to +07:00.
pub(crate) fn to_date_time(s: &str) -> Option<String> {
    let b = s.as_bytes();
    if b.len() < 20 || !s.is_ascii() || !matches!(b[10], b'T' | b't') {
        return None;
    }
    let (y, mo, d) = day(&b[..10])?;
    let (h, mi, sec) = clock(&b[11..19])?;
    let zone = 19 + b[19..].iter().position(|c| matches!(c, b'Z' | b'z' | b'+' | b'-'))?;
    let fraction = match &s[19..zone] {
        "" => "",
        f => f.strip_prefix('.').filter(|f| is_digits(f.as_bytes()))?.trim_end_matches('0'),
    };
    if fraction.len() > 6 {
        return None;
    }
    let minutes = days_from_civil(y, mo, d) * 1440 + i64::from(h * 60 + mi);
    let local = minutes - zone_minutes(&b[zone..])? + OFFSET_MINUTES;
    let (y, mo, d) = civil(local.div_euclid(1440));
    if !(1..=9999).contains(&y) {
        return None;
    }
    let of_day = local.rem_euclid(1440);
    let mut out = String::with_capacity(32);
    let parts = [("", y / 100), ("", y % 100), ("-", mo), ("-", d)];
    let parts =
        parts.into_iter().chain([("T", of_day / 60), (":", of_day % 60), (":", i64::from(sec))]);
    for (before, n) in parts {
        out.push_str(before);
        out.push(char::from(b'0' + (n / 10) as u8));
        out.push(char::from(b'0' + (n % 10) as u8));
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out.push_str("+07:00");
    Some(out)
}

fn zone_minutes(b: &[u8]) -> Option<i64> {
    match b {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (h, m) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let minutes = i64::from(h * 60 + m);
            (h < 24 && m < 60).then_some(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => None,
    }
}

/// Days since 1970-01-01 of a Gregorian date (era arithmetic, exact for every year used here).
fn days_from_civil(y: u32, m: u32, d: u32) -> i64 {
    let y = i64::from(y) - i64::from(m <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((i64::from(m) + 9) % 12) + 2) / 5 + i64::from(d) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Brings a date or a full time to its canonical form.
pub(crate) fn to_date(s: &str) -> Option<String> {
    if is_date(s.as_bytes()) { Some(s.to_owned()) } else { to_date_time(s) }
}

/// Orders two canonical dates or times; values of different precision are compared by what they
/// have in common, so that a day is never before a moment of the same day.
pub(crate) fn compare_dates(a: &str, b: &str) -> Ordering {
    let whole = |s: &str| s.len().min(19);
    let common = whole(a).min(whole(b));
    let fraction = |s: &str| -> String {
        s.get(19..).map_or("", |f| f.trim_end_matches("+07:00")).trim_start_matches('.').to_owned()
    };
    a.as_bytes()[..common]
        .cmp(&b.as_bytes()[..common])
        .then_with(|| if common < 19 { Ordering::Equal } else { fraction(a).cmp(&fraction(b)) })
}

#[cfg(test)]
#[path = "lexical_test.rs"]
mod tests;
