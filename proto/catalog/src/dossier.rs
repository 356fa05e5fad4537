//! The dossier code: its grammars, their validity, and what is only reported.
//!
//! ```text
//! M X X . Y Y Y . Z Z - Y Y M M D D - A A X X X X …
//! └── handling agency ┘ └ received ┘  │   └ number of the day, at least 4 digits, no upper limit
//!                                     └ digits of the owner of the centralised system
//! ```
//! The validator is a list of grammars with dates, chosen by procedure and by the day of receipt
//! inside the code, so that a late update of an older dossier keeps its older form.

use std::fmt;

use crate::lexical::{days_in_month, is_digits};

/// A day of the Gregorian calendar; orders by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    /// Year, four digits.
    pub year: u16,
    /// Month, from 1.
    pub month: u8,
    /// Day, from 1.
    pub day: u8,
}

impl Day {
    /// The day of `YYYY-MM-DD`, when it exists.
    pub fn parse(text: &str) -> Option<Day> {
        let b = text.as_bytes();
        let dated = b.len() == 10 && b[4] == b'-' && b[7] == b'-';
        dated.then(|| Day::of(digits(&b[..4])?, digits(&b[5..7])?, digits(&b[8..])?))?
    }

    fn of(year: u32, month: u32, day: u32) -> Option<Day> {
        let real = (1..=9999).contains(&year) && day >= 1 && day <= days_in_month(year, month);
        real.then_some(Day { year: year as u16, month: month as u8, day: day as u8 })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

fn digits(b: &[u8]) -> Option<u32> {
    is_digits(b).then(|| b.iter().fold(0, |n, c| n * 10 + u32::from(c - b'0')))
}

/// The form of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `MXX.YYY.ZZ-YYMMDD-AAXXXX`, nationwide centralised services.
    Central,
    /// `VVV.ZZ.YY.MXX-YYMMDD-XXXX`, the older form with the groups in reverse order.
    Reversed,
}

/// Why a text is not a dossier code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DossierFault {
    /// It follows no grammar that is switched on.
    Form,
    /// The six digits are no day of the calendar.
    Day,
    /// The grammar is not in force for this procedure on the day of receipt.
    NotInForce,
}

/// How strictly a code is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Digits only in the groups Y and Z.
    pub strict_digits: bool,
    /// Agency identifiers of the first or second level only, such as `H57` or `H57.101`.
    pub short_identifiers: bool,
}

/// A dossier code in its parts; prints as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DossierCode<'a> {
    agency: &'a str,
    received: Day,
    owner: Option<&'a str>,
    number: &'a str,
}

impl<'a> DossierCode<'a> {
    /// Reads a code of the form for centralised services.
    ///
    /// # Errors
    /// [`DossierFault::Form`] or [`DossierFault::Day`]; whether the form is in force is not asked.
    pub fn parse(text: &'a str, reading: Reading) -> Result<Self, DossierFault> {
        Self::parse_form(text, Form::Central, reading)
    }

    /// Reads a code of one form.
    ///
    /// # Errors
    /// As [`DossierCode::parse`].
    pub fn parse_form(text: &'a str, form: Form, reading: Reading) -> Result<Self, DossierFault> {
        if !text.is_ascii() {
            return Err(DossierFault::Form);
        }
        let (agency, rest) = text.split_once('-').ok_or(DossierFault::Form)?;
        let (date, tail) = rest.split_once('-').ok_or(DossierFault::Form)?;
        let (agency_ok, owner_len) = match form {
            Form::Central => (is_central_agency(agency.as_bytes(), reading), 2),
            Form::Reversed => (is_reversed_agency(agency.as_bytes()), 0),
        };
        let tail_ok = is_digits(tail.as_bytes()) && tail.len() >= owner_len + 4;
        if !agency_ok || !tail_ok || date.len() != 6 || !is_digits(date.as_bytes()) {
            return Err(DossierFault::Form);
        }
        let (owner, number) = tail.split_at(owner_len);
        let two = |at: usize| digits(&date.as_bytes()[at..at + 2]).unwrap_or(0);
        let received = Day::of(2000 + two(0), two(2), two(4)).ok_or(DossierFault::Day)?;
        let owner = (owner_len > 0).then_some(owner);
        Ok(DossierCode { agency, received, owner, number })
    }

    /// Electronic identifier of the agency that handles the dossier.
    pub fn agency(&self) -> &'a str {
        self.agency
    }

    /// Day of receipt, Vietnam time.
    pub fn received(&self) -> Day {
        self.received
    }

    /// The two digits of the agency that owns the centralised system; none in the older form.
    pub fn owner(&self) -> Option<&'a str> {
        self.owner
    }

    /// Sequence number of the day, as written.
    pub fn number(&self) -> &'a str {
        self.number
    }

    /// False when the number has leading zeros beyond four places: `00001` is the dossier `0001`.
    pub fn has_canonical_number(&self) -> bool {
        self.number.len() == 4 || !self.number.starts_with('0')
    }

    /// The number without needless zeros.
    pub fn canonical_number(&self) -> String {
        format!("{:0>4}", self.number.trim_start_matches('0'))
    }
}

impl fmt::Display for DossierCode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Day { year, month, day } = self.received;
        let owner = self.owner.unwrap_or_default();
        write!(f, "{}-{:02}{month:02}{day:02}-{owner}{}", self.agency, year % 100, self.number)
    }
}

/// Prints the codes of one agency, day and owner in sequence: how the demo's sources number their
/// dossiers. Whole codes are unique as long as one sequence is used for each agency, day and owner.
#[derive(Debug, Clone)]
pub struct DossierSequence {
    head: String,
    last: u64,
}

impl DossierSequence {
    /// A sequence whose first number is `last + 1`.
    ///
    /// Returns nothing when the parts do not make a code of the form for centralised services.
    pub fn new(agency: &str, received: Day, owner: &str, last: u64) -> Option<DossierSequence> {
        let Day { year, month, day } = received;
        let head = format!("{agency}-{:02}{month:02}{day:02}-{owner}", year % 100);
        let fits = DossierCode::parse(&format!("{head}0001"), Reading::default())
            .is_ok_and(|code| code.owner() == Some(owner) && code.received() == received);
        fits.then_some(DossierSequence { head, last })
    }
}

impl Iterator for DossierSequence {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.last = self.last.checked_add(1)?;
        Some(format!("{}{:04}", self.head, self.last))
    }
}

/// The two digits that stand for an owner agency in the codes of its system: `G22…` gives `22`.
pub fn owner_digits(agency_code: &str) -> Option<&str> {
    let two = agency_code.get(1..3)?;
    (agency_code.as_bytes()[0].is_ascii_uppercase() && is_digits(two.as_bytes())).then_some(two)
}

/// The two digits of an owner as a definition names it: by them, or by its agency's code.
pub(crate) fn registered_owner(named: &str) -> Option<&str> {
    let is_digits_only = named.len() == 2 && is_digits(named.as_bytes());
    if is_digits_only { Some(named) } else { owner_digits(named) }
}

fn is_first_group(b: &[u8]) -> bool {
    b.len() == 3 && b[0].is_ascii_uppercase() && is_digits(&b[1..])
}

fn is_group(b: &[u8], len: usize, strict_digits: bool) -> bool {
    let ok = |c: &u8| c.is_ascii_digit() || (!strict_digits && c.is_ascii_uppercase());
    b.len() == len && b.iter().all(ok)
}

fn is_central_agency(b: &[u8], reading: Reading) -> bool {
    let strict = reading.strict_digits;
    match b.len() {
        10 => {
            b[3] == b'.'
                && b[7] == b'.'
                && is_first_group(&b[..3])
                && is_group(&b[4..7], 3, strict)
                && is_group(&b[8..], 2, strict)
        }
        7 if reading.short_identifiers => {
            b[3] == b'.' && is_first_group(&b[..3]) && is_group(&b[4..], 3, strict)
        }
        3 if reading.short_identifiers => is_first_group(b),
        _ => false,
    }
}

fn is_reversed_agency(b: &[u8]) -> bool {
    b.len() == 13
        && (b[3], b[6], b[9]) == (b'.', b'.', b'.')
        && is_group(&b[..3], 3, false)
        && is_group(&b[4..6], 2, false)
        && is_group(&b[7..9], 2, false)
        && is_first_group(&b[10..])
}

/// One form and the days of receipt for which it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grammar {
    /// The form.
    pub form: Form,
    /// First day of receipt; none = always was.
    pub valid_from: Option<Day>,
    /// Last day of receipt; none = until further notice.
    pub valid_to: Option<Day>,
}

/// The list of grammars and the switches around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DossierGrammars {
    /// How strictly codes are read.
    pub reading: Reading,
    /// The forms, in the order in which they are tried.
    pub grammars: Vec<Grammar>,
    /// Procedures assigned to a nationwide centralised solution: only [`Form::Central`] for
    /// dossiers received from its first day on.
    pub centralised_procedures: Vec<String>,
    /// Owner digits with a registered centralised system; empty = not checked.
    pub owners: Vec<String>,
}

/// First day of the form for centralised services.
const CENTRAL_FROM: Day = Day { year: 2026, month: 1, day: 25 };

impl Default for DossierGrammars {
    fn default() -> Self {
        let from = |form, valid_from| Grammar { form, valid_from, valid_to: None };
        DossierGrammars {
            reading: Reading::default(),
            grammars: vec![from(Form::Central, Some(CENTRAL_FROM)), from(Form::Reversed, None)],
            centralised_procedures: Vec::new(),
            owners: Vec::new(),
        }
    }
}

impl DossierGrammars {
    /// Reads a code by the first grammar that is in force on its day of receipt.
    ///
    /// # Errors
    /// The fault of the grammar that came nearest: `NotInForce` over `Day` over `Form`.
    pub fn check<'a>(
        &self,
        text: &'a str,
        procedure: Option<&str>,
    ) -> Result<DossierCode<'a>, DossierFault> {
        let central_only =
            procedure.is_some_and(|code| self.centralised_procedures.iter().any(|p| p == code));
        let mut nearest = DossierFault::Form;
        for grammar in &self.grammars {
            let code = match DossierCode::parse_form(text, grammar.form, self.reading) {
                Ok(code) => code,
                Err(DossierFault::Day) if nearest == DossierFault::Form => {
                    nearest = DossierFault::Day;
                    continue;
                }
                Err(_) => continue,
            };
            let early = grammar.valid_from.is_some_and(|from| code.received < from);
            let late = grammar.valid_to.is_some_and(|to| code.received > to);
            let replaced =
                central_only && grammar.form != Form::Central && code.received >= CENTRAL_FROM;
            if !early && !late && !replaced {
                return Ok(code);
            }
            nearest = DossierFault::NotInForce;
        }
        Err(nearest)
    }

    /// True when the owner digits of a code are registered, or when nothing is registered at all.
    pub fn knows_owner(&self, code: &DossierCode<'_>) -> bool {
        let known = |owner: &str| self.owners.iter().any(|o| o == owner);
        self.owners.is_empty() || code.owner().is_none_or(known)
    }
}

#[cfg(test)]
#[path = "dossier_test.rs"]
mod tests;
