//! Texts for people, in their language.

use dtm_types::text::{Lang, render};

/// Speaks one language.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Say(pub(crate) Lang);

impl Say {
    /// The text of `demo.KEY`.
    pub(crate) fn text(self, key: &str, values: &[(&str, &str)]) -> String {
        render(self.0, &format!("demo.{key}"), values)
    }

    /// The title in this language.
    pub(crate) fn pick<'a>(self, vi: &'a str, en: &'a str) -> &'a str {
        match self.0 {
            Lang::Vi => vi,
            Lang::En => en,
        }
    }

    /// A number with its thousands apart, as the language writes it.
    pub(crate) fn number(self, value: u64) -> String {
        let mark = if self.0 == Lang::Vi { '.' } else { ',' };
        let digits = value.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(mark);
            }
            text.push(digit);
        }
        text
    }

    /// Milliseconds from microseconds, with one decimal below 100.
    pub(crate) fn millis(self, micros: u64) -> String {
        if micros >= 100_000 {
            return self.number(micros / 1_000);
        }
        let mark = if self.0 == Lang::Vi { ',' } else { '.' };
        format!("{}{mark}{}", micros / 1_000, micros % 1_000 / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_language_does() {
        assert_eq!(Say(Lang::Vi).number(1_234_567), "1.234.567");
        assert_eq!(Say(Lang::En).number(999), "999");
        assert_eq!(Say(Lang::Vi).millis(12_345), "12,3");
        assert_eq!(Say(Lang::En).millis(1_234_567), "1,234");
    }
}
