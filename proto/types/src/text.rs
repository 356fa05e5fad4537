//! User-facing texts in Vietnamese and English from one catalogue, `text/vi.txt` and `text/en.txt`.
//!
//! One line a text: `key = words with {placeholders}`; `#` starts a comment. A test holds the two
//! files to the same keys and placeholders.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A language of the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lang {
    /// Vietnamese, the default everywhere.
    #[default]
    Vi,
    /// English.
    En,
}

impl Lang {
    /// `vi` or `en`, also as the start of a locale such as `en_US.UTF-8`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.get(..2)? {
            "vi" => Some(Self::Vi),
            "en" => Some(Self::En),
            _ => None,
        }
    }
}

type Catalogue = HashMap<&'static str, &'static str>;

static VI: LazyLock<Catalogue> = LazyLock::new(|| parse(include_str!("../text/vi.txt")));
static EN: LazyLock<Catalogue> = LazyLock::new(|| parse(include_str!("../text/en.txt")));

fn parse(file: &'static str) -> Catalogue {
    file.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, text)| (key.trim(), text.trim()))
        .collect()
}

fn catalogue(lang: Lang) -> &'static Catalogue {
    match lang {
        Lang::Vi => &VI,
        Lang::En => &EN,
    }
}

/// The text of `key` with its `{placeholders}` filled in; the key itself where there is no text,
/// so that a missing translation is seen and nothing fails.
pub fn render(lang: Lang, key: &str, values: &[(&str, &str)]) -> String {
    let Some(template) = catalogue(lang).get(key) else {
        return key.to_owned();
    };
    let mut text = String::with_capacity(template.len() + 32);
    let mut rest = *template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            rest = after;
            break;
        };
        match values.iter().find(|(key, _)| *key == name) {
            Some((_, value)) => text.push_str(value),
            None => text.push_str(name),
        }
        rest = tail;
    }
    text.push_str(rest);
    text
}

/// A text of the catalogue with its values: what an error says, before it is known in which
/// language.
/// Shown in English, as logs are; [`Told::of`] gives the user's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    key: &'static str,
    values: Vec<(&'static str, Word)>,
}

/// What stands for a placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// A name or a number: the same in every language.
    Given(String),
    /// Another text of the catalogue.
    Told(Box<Told>),
}

impl Told {
    /// The text of `key`.
    pub fn new(key: &'static str) -> Self {
        Self { key, values: Vec::new() }
    }

    /// With a name or a number for a placeholder.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.values.push((name, Word::Given(value.to_string())));
        self
    }

    /// With another text for a placeholder.
    #[must_use]
    pub fn with_told(mut self, name: &'static str, value: Told) -> Self {
        self.values.push((name, Word::Told(Box::new(value))));
        self
    }

    /// Its key in the catalogue.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The text in one language.
    pub fn of(&self, lang: Lang) -> String {
        let word = |word: &Word| match word {
            Word::Given(text) => text.clone(),
            Word::Told(told) => told.of(lang),
        };
        let values: Vec<_> = self.values.iter().map(|(name, value)| (*name, word(value))).collect();
        let values: Vec<_> = values.iter().map(|(name, text)| (*name, text.as_str())).collect();
        render(lang, self.key, &values)
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.of(Lang::En))
    }
}

/// Whether both languages have a text for `key`.
pub fn is_held(key: &str) -> bool {
    VI.contains_key(key) && EN.contains_key(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholders(text: &str) -> Vec<&str> {
        let mut names: Vec<&str> = text
            .split('{')
            .skip(1)
            .filter_map(|part| part.split_once('}'))
            .map(|(n, _)| n)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn both_languages_hold_the_same_keys_and_placeholders() {
        for (key, vi) in VI.iter() {
            let en = EN.get(key).unwrap_or_else(|| panic!("{key} has no English text"));
            assert_eq!(placeholders(vi), placeholders(en), "{key}");
        }
        for key in EN.keys() {
            assert!(VI.contains_key(key), "{key} has no Vietnamese text");
        }
    }

    #[test]
    fn no_key_stands_twice() {
        for file in [include_str!("../text/vi.txt"), include_str!("../text/en.txt")] {
            let keys = file.lines().filter(|l| !l.starts_with('#') && l.contains('='));
            assert_eq!(keys.count(), parse(file).len());
        }
    }

    #[test]
    fn an_unknown_key_shows_itself() {
        assert_eq!(render(Lang::Vi, "no.such.key", &[]), "no.such.key");
    }

    #[test]
    fn what_is_told_is_told_in_either_language_with_the_texts_inside_it() {
        let inner = Told::new("page.draining");
        let told = Told::new("cli.trouble.replica").with("group", 3).with("name", "n1");
        let told = told.with_told("state", inner);
        assert_eq!(told.to_string(), "group 3 on node n1: draining");
        let vi = told.of(Lang::Vi);
        assert!(vi.contains("n1") && !vi.contains("draining"), "{vi}");
    }

    #[test]
    fn every_error_code_has_a_text() {
        for code in crate::ErrorCode::ALL {
            assert!(VI.contains_key(format!("error.{code}").as_str()), "error.{code}");
        }
    }
}
