//! One table of the file: takes its keys, and refuses those that nobody took.

use std::ops::Range;
use std::time::Duration;

use dtm_types::text::Told;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Error;

/// Bytes of a text.
const TEXT_BYTES_MAX: usize = 400;
/// The longest time that a drill may name: a day.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(86_400);

/// A table while it is read.
pub(crate) struct Fields<'t> {
    text: &'t str,
    /// The table's own name, for messages.
    name: &'t str,
    place: Range<usize>,
    left: Vec<(&'t str, &'t Spanned<DeValue<'t>>)>,
    asked: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    pub(crate) fn new(
        text: &'t str,
        name: &'t str,
        place: Range<usize>,
        table: &'t DeTable<'t>,
    ) -> Self {
        let left = table.iter().map(|(key, value)| (key.get_ref().as_ref(), value)).collect();
        Self { text, name, place, left, asked: Vec::new() }
    }

    /// A refusal of the table itself, or of a key that is missing.
    pub(crate) fn refuse(&self, key: &str, why: Told) -> Error {
        refuse_at(self.text, self.place.start, &self.named(key), why)
    }

    fn refuse_value(&self, key: &str, value: &Spanned<DeValue<'t>>, why: Told) -> Error {
        refuse_at(self.text, value.span().start, &self.named(key), why)
    }

    fn named(&self, key: &str) -> String {
        match (self.name, key) {
            ("", key) => key.to_owned(),
            (name, "") => name.to_owned(),
            (name, key) => format!("{name}.{key}"),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        let at = self.left.iter().position(|(name, _)| *name == key)?;
        Some(self.left.remove(at).1)
    }

    /// Where the table stands, from 1.
    pub(crate) fn line(&self) -> usize {
        self.refuse("", Told::new("")).line
    }

    /// A value, refused where `read` gives a reason.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Told>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        read(value.get_ref()).map(Some).map_err(|why| self.refuse_value(key, value, why))
    }

    /// As [`Fields::optional`], for a key that must be there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, Told>,
    ) -> Result<T, Error> {
        let found = self.optional(key, read)?;
        found.ok_or_else(|| self.refuse(key, Told::new("drill.missing")))
    }

    /// A table within.
    pub(crate) fn table(&mut self, key: &'static str) -> Result<Option<Fields<'t>>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Some(Fields::new(self.text, key, value.span(), table))),
            _ => Err(self.refuse_value(key, value, expected("drill.is.table"))),
        }
    }

    /// An array of tables.
    pub(crate) fn tables(&mut self, key: &'static str) -> Result<Vec<Fields<'t>>, Error> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let refused = |this: &Self| this.refuse_value(key, value, expected("drill.is.tables"));
        let DeValue::Array(array) = value.get_ref() else { return Err(refused(self)) };
        let read = array.iter().map(|entry| match entry.get_ref() {
            DeValue::Table(table) => Ok(Fields::new(self.text, key, entry.span(), table)),
            _ => Err(refused(self)),
        });
        read.collect()
    }

    /// Refuses what nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Some((key, value)) = self.left.first() else { return Ok(()) };
        let why = Told::new("drill.unknown-key").with("allowed", self.asked.join(", "));
        Err(self.refuse_value(key, value, why))
    }
}

/// The error at a byte of the text.
pub(crate) fn refuse_at(text: &str, at: usize, key: &str, why: Told) -> Error {
    let before = text.get(..at).unwrap_or(text);
    Error { line: before.matches('\n').count() + 1, key: key.to_owned(), why }
}

pub(crate) fn expected(key: &'static str) -> Told {
    Told::new("drill.expected").with_told("what", Told::new(key))
}

/// A text that is not empty.
pub(crate) fn text(value: &DeValue<'_>) -> Result<String, Told> {
    match value.as_str() {
        Some(text) if !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX => {
            Ok(text.to_owned())
        }
        _ => Err(expected("drill.is.text")),
    }
}

/// A name of small letters, digits and dashes.
pub(crate) fn name(value: &DeValue<'_>) -> Result<String, Told> {
    let named = value.as_str().filter(|text| is_name(text));
    named.map(str::to_owned).ok_or_else(|| expected("drill.is.name"))
}

/// Whether it is one.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A whole number within bounds.
pub(crate) fn number(least: u64, most: u64) -> impl Fn(&DeValue<'_>) -> Result<u64, Told> {
    move |value| {
        let number = value.as_integer().and_then(|number| number.as_str().parse().ok());
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| Told::new("drill.is-number").with("least", least).with("most", most))
    }
}

/// A share in hundredths, 0 to 100, as millionths.
pub(crate) fn percent(value: &DeValue<'_>) -> Result<u32, Told> {
    let digits = match value {
        DeValue::Integer(number) => Some(number.as_str()),
        DeValue::Float(number) => Some(number.as_str()),
        _ => None,
    };
    let share = digits.and_then(|digits| digits.parse::<f64>().ok());
    let share = share.filter(|share| (0.0..=100.0).contains(share));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
    share.map(|share| (share * 10_000.0).round() as u32).ok_or_else(|| expected("drill.is.percent"))
}

/// A time such as `500ms`, `10s`, `5m`, `1h`, at most a day.
pub(crate) fn time(value: &DeValue<'_>) -> Result<Duration, Told> {
    value.as_str().and_then(parse_time).ok_or_else(|| expected("drill.is.time"))
}

/// A time with a sign: `-1h`, `+90s`.
pub(crate) fn jump_ms(value: &DeValue<'_>) -> Result<i64, Told> {
    let jump = value.as_str().and_then(|text| {
        let (sign, rest) = match text.split_at_checked(1)? {
            ("-", rest) => (-1, rest),
            ("+", rest) => (1, rest),
            _ => return None,
        };
        let ms = i64::try_from(parse_time(rest)?.as_millis()).ok()?;
        Some(sign * ms)
    });
    jump.filter(|jump| *jump != 0).ok_or_else(|| expected("drill.is.jump"))
}

/// One of the words of a table.
pub(crate) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, Told> {
    move |value| {
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|(_, meant)| *meant).ok_or_else(|| {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Told::new("drill.one-of").with("allowed", allowed.join(", "))
        })
    }
}

/// `true` or `false`.
pub(crate) fn flag(value: &DeValue<'_>) -> Result<bool, Told> {
    value.as_bool().ok_or_else(|| Told::new("drill.one-of").with("allowed", "true, false"))
}

fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.checked_mul(unit_ms)?);
    (time <= TIME_MAX).then_some(time)
}
