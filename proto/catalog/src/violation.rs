//! What is wrong with a record: where, which rule, what was expected, what was found.
//!
//! `Rule` is closed and its names are stable: they are stored with refusals, counted in metrics
//! and documented. Texts for people are looked up by the rule's name and language.

use std::fmt;

use crate::chars::excerpt;
use dtm_types::text::{Lang, render};

/// Most violations kept for one record; further ones are only counted.
pub const VIOLATIONS_MAX: usize = 64;
/// Longest excerpt of a found value, in characters.
pub const FOUND_CHARS_MAX: usize = 64;

/// What is expected in words, and the key of its text.
const WORDS: &[(&str, &str)] = &[
    ("end of the record", "expected.end"),
    ("a value", "expected.value"),
    ("a member name", "expected.name"),
    ("a number without leading zeros", "expected.number"),
    ("a digit", "expected.digit"),
    ("an escaped control character", "expected.escaped"),
    ("a closing quote", "expected.quote"),
    ("an escape", "expected.escape"),
    ("four hexadecimal digits", "expected.hexadecimal"),
    ("control character", "expected.control"),
    ("noncharacter", "expected.noncharacter"),
    ("lone surrogate", "expected.surrogate"),
    ("MXX.YYY.ZZ-YYMMDD-AAXXXX (in force on its day)", "expected.in_force"),
];

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The closed set of rules a record can break, or (the last four) be reported for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule { $($(#[$doc])* $name,)* }

        impl Rule {
            /// Every rule, in a fixed order.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];

            /// The stable name, in snake case.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => $text,)* }
            }
        }
    };
}

rules! {
    /// The payload is not UTF-8.
    NotUtf8 = "not_utf8",
    /// The payload is not one JSON value.
    NotJson = "not_json",
    /// Nested deeper than 64 levels.
    TooDeep = "too_deep",
    /// More values than a record may hold.
    TooManyValues = "too_many_values",
    /// A number of more than 64 digits.
    NumberTooLong = "number_too_long",
    /// One member name twice in an object.
    DuplicateKey = "duplicate_key",
    /// A value of another type than agreed.
    WrongType = "wrong_type",
    /// An integer beyond 2^53.
    IntegerTooLarge = "integer_too_large",
    /// A number with a fraction or exponent where only integers are allowed.
    NotAnInteger = "not_an_integer",
    /// A compulsory member is missing.
    Missing = "missing",
    /// A compulsory member is null or empty and may not be.
    NullNotAllowed = "null_not_allowed",
    /// A member that was not agreed.
    UnknownMember = "unknown_member",
    /// A control character, noncharacter or lone surrogate.
    ForbiddenCharacter = "forbidden_character",
    /// Not a code: capital letters, digits, dots and hyphens.
    Code = "code",
    /// Not a date.
    Date = "date",
    /// Not a time with seconds and offset.
    DateTime = "date_time",
    /// Not an absolute https address.
    Uri = "uri",
    /// Not a decimal.
    Decimal = "decimal",
    /// Not padded base64.
    Base64 = "base64",
    /// Not a SHA-256 digest in hexadecimal.
    Sha256 = "sha256",
    /// Something else than digits.
    Digits = "digits",
    /// A value outside its code list.
    CodeList = "code_list",
    /// A state outside the list of states; quarantined until the list is extended.
    UnknownState = "unknown_state",
    /// A text that is too short or too long.
    Length = "length",
    /// A number or date outside its range.
    Range = "range",
    /// A list with too few or too many items.
    Items = "items",
    /// None of a set of members of which one is needed.
    AnyOf = "any_of",
    /// A dossier code of no form that is in force.
    DossierCode = "dossier_code",
    /// A dossier code whose day does not exist.
    DossierDay = "dossier_day",
    /// A date before the one it must not precede.
    NotBefore = "not_before",
    /// A member that another member's value makes compulsory.
    RequiredWhen = "required_when",
    /// Members that come together, of which one is missing.
    RequiredTogether = "required_together",
    /// A member that may not be used any more at the record's date.
    Abolished = "abolished",
    /// A change of state that is not in the list's table.
    StateChange = "state_change",
    /// A security status or a priority that does not exist.
    Label = "label",
    /// A value that was agreed as masked and arrived raw.
    NotMasked = "not_masked",
    /// Reported: a dossier number with needless leading zeros.
    DossierNumber = "dossier_number",
    /// Reported: the day in the dossier code is not the day of receipt.
    DossierDateMismatch = "dossier_date_mismatch",
    /// Reported: no centralised system is registered for the two owner digits.
    DossierOwner = "dossier_owner",
    /// Reported: a change of state that is not in the table of usual changes.
    UnusualState = "unusual_state",
}

impl Rule {
    /// The rule of a stable name.
    pub fn from_name(name: &str) -> Option<Rule> {
        Rule::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// True where what was expected is itself taken from the record.
    pub fn expects_content(self) -> bool {
        matches!(self, Rule::NotBefore | Rule::DossierNumber | Rule::DossierDateMismatch)
    }

    /// True for rules about the payload as a whole, after which nothing else was checked.
    pub fn is_malformed(self) -> bool {
        self <= Rule::DuplicateKey
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One finding in one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Place in the payload, RFC 6901; empty for the payload as a whole.
    pub pointer: String,
    /// What was broken.
    pub rule: Rule,
    /// What would have been right, in a form that needs no translation.
    pub expected: String,
    /// Excerpt of what was there, at most [`FOUND_CHARS_MAX`] characters; empty when redacted.
    pub found: String,
    /// Length of what was there, in bytes of the payload as sent.
    pub found_bytes: u64,
    /// Place in the payload as sent, in bytes.
    pub byte_offset: Option<u64>,
}

impl Violation {
    pub(crate) fn new(rule: Rule, pointer: &str, expected: impl Into<String>, raw: &[u8]) -> Self {
        Violation {
            pointer: pointer.to_owned(),
            rule,
            expected: expected.into(),
            found: excerpt(raw, FOUND_CHARS_MAX),
            found_bytes: raw.len() as u64,
            byte_offset: None,
        }
    }

    pub(crate) fn at(mut self, offset: usize) -> Self {
        self.byte_offset = Some(offset as u64);
        self
    }

    /// Removes the content and keeps place, rule and length: for records agreed as masked.
    pub fn redact(&mut self) {
        self.found.clear();
        if self.rule.expects_content() {
            self.expected.clear();
        }
    }

    /// One sentence for people.
    pub fn message(&self, lang: Lang) -> String {
        let pointer = if self.pointer.is_empty() { "/" } else { &self.pointer };
        let offset = self.byte_offset.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let expected = WORDS.iter().find(|(word, _)| *word == self.expected);
        let expected =
            expected.map_or_else(|| self.expected.clone(), |(_, key)| render(lang, key, &[]));
        let values = [
            ("pointer", pointer),
            ("expected", shown(&expected)),
            ("found", shown(&self.found)),
            ("offset", offset.as_str()),
        ];
        render(lang, &format!("violation.{}", self.rule.name()), &values)
    }
}

/// A dash where there is nothing to show.
fn shown(text: &str) -> &str {
    if text.is_empty() { "—" } else { text }
}

/// Why a record was refused, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not UTF-8, not JSON, or beyond a bound: nothing in it could be checked.
    Malformed,
    /// It breaks its schema or a business rule.
    Invalid,
    /// Only its state is unknown: accepted from quarantine once the list holds it.
    UnknownState,
}

impl Reason {
    /// The stable name, in snake case.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Invalid => "invalid",
            Reason::UnknownState => "unknown_state",
        }
    }
}

/// A refused record: all that is wrong with it, up to a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of refusal.
    pub reason: Reason,
    /// At least one, at most [`VIOLATIONS_MAX`], in the order of the payload.
    pub violations: Vec<Violation>,
    /// How many more there were.
    pub more: u32,
}

/// A bounded list of findings.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
    pub(crate) warnings: Vec<Violation>,
    more: u32,
}

impl Findings {
    /// Counts a violation that would not be kept; false when there is still room.
    pub(crate) fn only_counted(&mut self) -> bool {
        let full = self.violations.len() >= VIOLATIONS_MAX;
        self.more = self.more.saturating_add(u32::from(full));
        full
    }

    pub(crate) fn refuse(&mut self, violation: Violation) {
        if !self.only_counted() {
            self.violations.push(violation);
        }
    }

    pub(crate) fn report(&mut self, warning: Violation) {
        if self.warnings.len() < VIOLATIONS_MAX {
            self.warnings.push(warning);
        }
    }

    pub(crate) fn into_refusal(self) -> Refusal {
        let only_states = self.violations.iter().all(|v| v.rule == Rule::UnknownState);
        let malformed = self.violations.iter().any(|v| v.rule.is_malformed());
        let reason = match (malformed, only_states && self.more == 0) {
            (true, _) => Reason::Malformed,
            (false, true) => Reason::UnknownState,
            (false, false) => Reason::Invalid,
        };
        Refusal { reason, violations: self.violations, more: self.more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_text_in_both_languages() {
        for &rule in Rule::ALL {
            assert_eq!(Rule::from_name(rule.name()), Some(rule));
            let violation = Violation::new(rule, "/a/0", "x", b"y").at(7);
            let [vi, en] = [Lang::Vi, Lang::En].map(|lang| violation.message(lang));
            assert!(vi.contains("/a/0") || rule.is_malformed(), "{vi}");
            assert!(en.contains("/a/0") || rule.is_malformed(), "{en}");
            assert!(!vi.contains('{') && !en.contains('{') && vi != en, "{vi} {en}");
        }
    }

    #[test]
    fn words_are_told_in_the_language_asked_for() {
        for (word, _) in WORDS {
            let violation = Violation::new(Rule::NotJson, "", *word, b"").at(3);
            let [vi, en] = [Lang::Vi, Lang::En].map(|lang| violation.message(lang));
            assert!(en.contains(word) && !vi.contains(word), "{vi} {en}");
        }
        let mut redacted = Violation::new(Rule::NotBefore, "/a", "2026-01-01", b"2025");
        redacted.redact();
        assert_eq!(redacted.message(Lang::En), "/a: must not be before —, found —");
    }

    #[test]
    fn what_the_reader_expects_has_words() {
        let faults = include_str!("json.rs").split("Rule::NotJson, \"").skip(1);
        let said: Vec<_> = faults.filter_map(|rest| rest.split('"').next()).collect();
        assert!(said.contains(&"four hexadecimal digits"), "{said:?}");
        for word in said {
            let known = WORDS.iter().any(|(known, _)| *known == word);
            assert!(known, "{word:?} would be told in English only");
        }
        let of_kinds: Vec<_> = WORDS.iter().filter(|(word, _)| word.contains('(')).collect();
        assert!(of_kinds.iter().all(|(word, _)| include_str!("kind.rs").contains(word)));
    }

    #[test]
    fn findings_are_bounded_and_counted() {
        let mut findings = Findings::default();
        for _ in 0..100 {
            findings.refuse(Violation::new(Rule::Missing, "/a", "", b""));
        }
        let refusal = findings.into_refusal();
        assert_eq!((refusal.violations.len(), refusal.more), (VIOLATIONS_MAX, 36));
        assert_eq!(refusal.reason, Reason::Invalid);
    }
}
