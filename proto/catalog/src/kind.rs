//! The compiled form of a type: what a value must look like, without names to look up.
//!
//! A schema is a tree of kinds, expanded at every use of a named type, so that checking a record
//! is a walk without lookups. [`Kind::accepts`] is the one place that decides whether a text is
//! canonical and valid; the fast and the slow path both ask it.

// Hot path: `accepts` runs once a field on every record.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::definition::Precision;
use crate::dossier::{DossierFault, DossierGrammars};
use crate::lexical::{
    compare_dates, compare_decimals, is_base64, is_code, is_date, is_date_time, is_decimal,
    is_digits, is_sha256, is_uri, to_date, to_date_time, to_decimal,
};
use crate::violation::Rule;

/// Limits of a text, in characters.
#[derive(Debug, Clone)]
pub(crate) struct Lengths {
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) digits: bool,
}

/// Limits of a value that is ordered as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Between {
    pub(crate) min: Option<String>,
    pub(crate) max: Option<String>,
}

/// A code list made for lookups.
#[derive(Debug)]
pub(crate) struct Codes {
    pub(crate) name: String,
    pub(crate) quarantine_unknown: bool,
    pub(crate) short: Vec<String>,
    pub(crate) long: HashSet<String>,
    pub(crate) wire: HashMap<String, String>,
}

/// Up to this many codes are compared one by one, which is faster than hashing.
pub(crate) const SHORT_LIST: usize = 16;

impl Codes {
    fn holds(&self, code: &str) -> bool {
        if self.long.is_empty() {
            self.short.iter().any(|c| c == code)
        } else {
            self.long.contains(code)
        }
    }
}

/// How a masked value looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaskForm {
    /// Null or absent.
    Hidden,
    /// A text with three stars in it.
    Partial { first: u8, last: u8 },
    /// A year or month.
    Date(Precision),
    /// A multiple of the step.
    Number { step: i64 },
    /// `PSN-` and 26 characters of base32.
    Pseudonym,
}

/// What a value must look like.
#[derive(Debug)]
pub(crate) enum Kind {
    Text(Lengths),
    Code(Lengths),
    Dossier(Lengths, Arc<DossierGrammars>),
    Bool,
    Date(Between),
    DateTime(Between),
    Uri(Lengths),
    Decimal(Between),
    Base64(Lengths),
    Sha256,
    Enum(Arc<Codes>),
    Integer { min: i64, max: i64 },
    Object,
    Struct(Box<Struct>),
    List(Box<List>),
    Masked(MaskForm, Box<Kind>),
}

/// An object with agreed members.
#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) type_name: String,
    /// Sorted by name, which is the canonical order: names are ASCII.
    pub(crate) members: Vec<Member>,
    /// Each needs one of the bits that the members set.
    pub(crate) any_of: Vec<(u64, String)>,
}

/// Marks a member that no rule and no key looks at.
pub(crate) const NO_SLOT: u16 = u16::MAX;

/// One agreed member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// `"name":`, as it stands in canonical JSON.
    pub(crate) token: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) nullable: bool,
    pub(crate) slot: u16,
    pub(crate) any_bit: u64,
}

/// A list of values of one kind.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) item: Kind,
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Struct {
    pub(crate) fn member(&self, name: &str) -> Option<usize> {
        self.members.binary_search_by(|m| m.name.as_str().cmp(name)).ok()
    }
}

impl Lengths {
    fn admits(&self, s: &str, chars: usize) -> bool {
        let within = chars >= self.min as usize && chars <= self.max as usize;
        within && (!self.digits || is_digits(s.as_bytes()))
    }
}

impl Between {
    fn admits(&self, s: &str, compare: fn(&str, &str) -> Ordering) -> bool {
        self.min.as_ref().is_none_or(|min| compare(s, min) != Ordering::Less)
            && self.max.as_ref().is_none_or(|max| compare(s, max) != Ordering::Greater)
    }

    fn expected(&self) -> String {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => format!("{min} … {max}"),
            (Some(min), None) => format!("≥ {min}"),
            (None, Some(max)) => format!("≤ {max}"),
            (None, None) => String::new(),
        }
    }
}

/// A rule and what it expects.
pub(crate) type Broken = (Rule, String);

impl Kind {
    /// True when the unescaped, normalised text is the canonical form of a valid value.
    ///
    /// `chars` is its length in characters. Kinds that are no JSON string accept nothing.
    pub(crate) fn accepts(&self, s: &str, chars: usize) -> bool {
        let b = s.as_bytes();
        match self {
            Kind::Text(lengths) => lengths.admits(s, chars),
            Kind::Code(lengths) => is_code(b) && lengths.admits(s, chars),
            Kind::Dossier(lengths, grammars) => {
                lengths.admits(s, chars) && grammars.check(s, None).is_ok()
            }
            Kind::Date(between) => is_date(b) && between.admits(s, compare_dates),
            Kind::DateTime(between) => is_date_time(b) && between.admits(s, compare_dates),
            Kind::Uri(lengths) => is_uri(b) && lengths.admits(s, chars),
            Kind::Decimal(between) => is_decimal(b) && between.admits(s, compare_decimals),
            Kind::Base64(lengths) => is_base64(b) && lengths.admits(s, chars),
            Kind::Sha256 => is_sha256(b),
            Kind::Enum(codes) => codes.holds(s),
            Kind::Masked(form, _) => form.accepts(s),
            Kind::Bool | Kind::Integer { .. } | Kind::Object | Kind::Struct(_) | Kind::List(_) => {
                false
            }
        }
    }

    /// True when a JSON string is the right JSON type.
    pub(crate) fn takes_text(&self) -> bool {
        match self {
            Kind::Masked(form, inner) => match form {
                MaskForm::Hidden => inner.takes_text(),
                MaskForm::Number { .. } => false,
                _ => true,
            },
            Kind::Bool | Kind::Integer { .. } | Kind::Object | Kind::Struct(_) | Kind::List(_) => {
                false
            }
            _ => true,
        }
    }

    /// The canonical form of a text that a sender may write, or what is wrong with it.
    pub(crate) fn canonical<'a>(&self, s: &'a str) -> Result<Cow<'a, str>, Broken> {
        if self.accepts(s, s.chars().count()) {
            return Ok(Cow::Borrowed(s));
        }
        let converted: Option<Cow<'a, str>> = match self {
            Kind::Code(_) | Kind::Dossier(..) => Some(Cow::Borrowed(s.trim())),
            Kind::Date(_) => to_date(s).map(Cow::Owned),
            Kind::DateTime(_) => to_date_time(s).map(Cow::Owned),
            Kind::Decimal(_) => to_decimal(s).map(Cow::Owned),
            Kind::Sha256 => Some(Cow::Owned(s.to_ascii_lowercase())),
            Kind::Enum(codes) => codes.wire.get(s).cloned().map(Cow::Owned),
            _ => None,
        };
        match converted {
            Some(text) if self.accepts(&text, text.chars().count()) => Ok(text),
            Some(text) => Err(self.broken(&text)),
            None => Err(self.broken(s)),
        }
    }

    /// Which rule a refused text breaks.
    fn broken(&self, s: &str) -> Broken {
        let b = s.as_bytes();
        let broken = |rule, expected: &str| (rule, expected.to_owned());
        match self {
            Kind::Code(_) if !is_code(b) => broken(Rule::Code, "A-Z 0-9 . -"),
            Kind::Dossier(_, grammars) => match grammars.check(s, None) {
                Err(DossierFault::Day) => broken(Rule::DossierDay, "YYMMDD"),
                Err(DossierFault::NotInForce) => {
                    broken(Rule::DossierCode, "MXX.YYY.ZZ-YYMMDD-AAXXXX (in force on its day)")
                }
                Err(DossierFault::Form) => broken(Rule::DossierCode, "MXX.YYY.ZZ-YYMMDD-AAXXXX"),
                Ok(_) => self.broken_length(),
            },
            Kind::Date(_) if !is_date(b) => broken(Rule::Date, "YYYY[-MM[-DD]]"),
            Kind::DateTime(_) if !is_date_time(b) => {
                broken(Rule::DateTime, "YYYY-MM-DDThh:mm:ss[.ffffff]+07:00")
            }
            Kind::Date(between) | Kind::DateTime(between) => (Rule::Range, between.expected()),
            Kind::Uri(_) if !is_uri(b) => broken(Rule::Uri, "https://…"),
            Kind::Decimal(_) if !is_decimal(b) => broken(Rule::Decimal, "-?0.0"),
            Kind::Decimal(between) => (Rule::Range, between.expected()),
            Kind::Base64(_) if !is_base64(b) => broken(Rule::Base64, "base64"),
            Kind::Sha256 => broken(Rule::Sha256, "[0-9a-f]{64}"),
            Kind::Enum(codes) if codes.quarantine_unknown => {
                (Rule::UnknownState, codes.name.clone())
            }
            Kind::Enum(codes) => (Rule::CodeList, codes.expected()),
            Kind::Text(l) | Kind::Code(l) if l.digits && !is_digits(b) => {
                broken(Rule::Digits, "0-9")
            }
            Kind::Masked(form, _) => broken(Rule::NotMasked, form.name()),
            _ => self.broken_length(),
        }
    }

    fn broken_length(&self) -> Broken {
        let expected = match self {
            Kind::Text(l)
            | Kind::Code(l)
            | Kind::Dossier(l, _)
            | Kind::Uri(l)
            | Kind::Base64(l) => match (l.min, l.max) {
                (min, u32::MAX) => format!("≥ {min}"),
                (min, max) => format!("{min} … {max}"),
            },
            _ => String::new(),
        };
        (Rule::Length, expected)
    }

    /// The name of the type for people.
    pub(crate) fn type_name(&self) -> &str {
        match self {
            Kind::Text(_) => "Text",
            Kind::Code(_) | Kind::Dossier(..) => "Code",
            Kind::Bool => "Bool",
            Kind::Date(_) => "Date",
            Kind::DateTime(_) => "DateTime",
            Kind::Uri(_) => "Uri",
            Kind::Decimal(_) => "Decimal",
            Kind::Base64(_) => "Base64",
            Kind::Sha256 => "Sha256",
            Kind::Enum(codes) => &codes.name,
            Kind::Integer { min: 0, .. } => "Integer ≥ 0",
            Kind::Integer { .. } => "Integer",
            Kind::Object => "Object",
            Kind::Struct(s) => &s.type_name,
            Kind::List(_) => "List",
            Kind::Masked(form, _) => form.name(),
        }
    }
}

impl Codes {
    fn expected(&self) -> String {
        const SHOWN: usize = 8;
        match self.short.is_empty() {
            true => self.name.clone(),
            false => {
                let more = if self.short.len() > SHOWN { ", …" } else { "" };
                let shown: Vec<_> = self.short.iter().take(SHOWN).map(String::as_str).collect();
                format!("{} ({}{more})", self.name, shown.join(", "))
            }
        }
    }
}

/// What stands for the characters that a partial mask hides; always three, whatever the length.
pub(crate) const STARS: &str = "***";
/// Head of a pseudonym; the whole is a valid `Code`.
pub(crate) const PSEUDONYM_HEAD: &str = "PSN-";
/// Base32 characters of a pseudonym: 128 bits.
pub(crate) const PSEUDONYM_CHARS: usize = 26;

impl MaskForm {
    pub(crate) fn accepts(self, s: &str) -> bool {
        match self {
            MaskForm::Hidden | MaskForm::Number { .. } => false,
            MaskForm::Partial { first, last } => {
                let kept = usize::from(first) + usize::from(last);
                let bare = s == STARS;
                bare || s.chars().count() == kept + STARS.len()
                    && s.chars().skip(usize::from(first)).take(STARS.len()).all(|c| c == '*')
            }
            MaskForm::Date(Precision::Year) => s.len() == 4 && is_date(s.as_bytes()),
            MaskForm::Date(_) => matches!(s.len(), 4 | 7) && is_date(s.as_bytes()),
            MaskForm::Pseudonym => s.strip_prefix(PSEUDONYM_HEAD).is_some_and(|t| {
                let base32 = |c: u8| matches!(c, b'A'..=b'Z' | b'2'..=b'7');
                t.len() == PSEUDONYM_CHARS && t.bytes().all(base32)
            }),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            MaskForm::Hidden => "hide",
            MaskForm::Partial { .. } => "partial",
            MaskForm::Date(_) | MaskForm::Number { .. } => "generalise",
            MaskForm::Pseudonym => "pseudonym",
        }
    }
}
