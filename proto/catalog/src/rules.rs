//! Rules over several fields of one record, evaluated on the canonical values in their slots.

// Hot path: `broken` runs on every record, over spans, without allocating when nothing is wrong.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::dossier::DossierGrammars;
use crate::lexical::{compare_dates, is_date};
use crate::violation::Rule;

/// Where a value stands in the canonical bytes, without the quotes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Slot {
    /// No value: absent or null.
    pub(crate) const NONE: Slot = Slot { start: u32::MAX, end: u32::MAX };

    /// A value that broke its own rule: present, but not to be looked at.
    pub(crate) const BAD: Slot = Slot { start: u32::MAX - 1, end: u32::MAX - 1 };

    pub(crate) fn text(self, canonical: &[u8]) -> Option<&str> {
        let bytes = canonical.get(self.start as usize..self.end as usize)?;
        std::str::from_utf8(bytes).ok()
    }
}

/// A compiled record rule; fields are slots.
#[derive(Debug)]
pub(crate) enum Check {
    NotBefore { field: u16, earlier: u16, report: bool },
    RequiredWhen { field: u16, when: u16, values: Vec<String>, expected: String },
    RequiredTogether { fields: Vec<u16>, expected: String },
    Abolished { field: u16, by: u16, from: String },
    StateChange { field: u16, from: u16, next: Vec<(String, Vec<String>)>, report: bool },
    Dossier { field: u16, grammars: Arc<DossierGrammars> },
    DossierDate { field: u16, date: u16, grammars: Arc<DossierGrammars> },
    DossierProcedure { field: u16, procedure: u16, grammars: Arc<DossierGrammars> },
}

/// One finding of a record rule.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) slot: u16,
    pub(crate) rule: Rule,
    pub(crate) expected: String,
    pub(crate) report: bool,
}

fn refuse(slot: u16, rule: Rule, expected: impl Into<String>) -> Finding {
    Finding { slot, rule, expected: expected.into(), report: false }
}

fn report(slot: u16, rule: Rule, expected: impl Into<String>) -> Finding {
    Finding { slot, rule, expected: expected.into(), report: true }
}

impl Check {
    /// Calls `found` for each finding.
    pub(crate) fn run(&self, slots: &[Slot], canonical: &[u8], found: &mut dyn FnMut(Finding)) {
        let text = |slot: u16| slots.get(usize::from(slot)).and_then(|s| s.text(canonical));
        let absent = |slot: u16| slots.get(usize::from(slot)).is_none_or(|s| *s == Slot::NONE);
        let date = |slot: u16| text(slot).filter(|t| is_date(t.as_bytes()));
        match self {
            Check::NotBefore { field, earlier, report } => {
                if let (Some(late), Some(early)) = (date(*field), date(*earlier))
                    && compare_dates(late, early) == Ordering::Less
                {
                    found(Finding { report: *report, ..refuse(*field, Rule::NotBefore, early) });
                }
            }
            Check::RequiredWhen { field, when, values, expected } => {
                let decided = text(*when).is_some_and(|v| values.iter().any(|x| x == v));
                if decided && absent(*field) {
                    found(refuse(*field, Rule::RequiredWhen, expected));
                }
            }
            Check::RequiredTogether { fields, expected } => {
                if fields.iter().any(|f| text(*f).is_some()) {
                    for field in fields.iter().filter(|f| absent(**f)) {
                        found(refuse(*field, Rule::RequiredTogether, expected));
                    }
                }
            }
            Check::Abolished { field, by, from } => {
                let late = date(*by).is_some_and(|d| compare_dates(d, from) != Ordering::Less);
                if late && !absent(*field) {
                    found(refuse(*field, Rule::Abolished, from));
                }
            }
            Check::StateChange { field, from, next, report } => {
                let change = text(*from).zip(text(*field));
                if let Some(follows) = change.and_then(|(from, to)| not_followed(next, from, to)) {
                    let rule = if *report { Rule::UnusualState } else { Rule::StateChange };
                    found(Finding { report: *report, ..refuse(*field, rule, follows.join(", ")) });
                }
            }
            Check::Dossier { field, grammars } => {
                if let Some(Ok(code)) = text(*field).map(|t| grammars.check(t, None)) {
                    if !code.has_canonical_number() {
                        found(report(*field, Rule::DossierNumber, code.canonical_number()));
                    }
                    if !grammars.knows_owner(&code) {
                        found(report(*field, Rule::DossierOwner, ""));
                    }
                }
            }
            Check::DossierDate { field, date: on, grammars } => {
                let code = text(*field).and_then(|t| grammars.check(t, None).ok());
                if let (Some(code), Some(on_text)) = (code, date(*on)) {
                    let day = code.received().to_string();
                    if compare_dates(on_text, &day) != Ordering::Equal {
                        found(report(*on, Rule::DossierDateMismatch, day));
                    }
                }
            }
            Check::DossierProcedure { field, procedure, grammars } => {
                if grammars.centralised_procedures.is_empty() {
                    return;
                }
                let Some(code) = text(*field).filter(|t| grammars.check(t, None).is_ok()) else {
                    return;
                };
                if grammars.check(code, text(*procedure)).is_err() {
                    found(refuse(*field, Rule::DossierCode, "MXX.YYY.ZZ-YYMMDD-AAXXXX"));
                }
            }
        }
    }
}

/// What may follow a state, where the state that does is another one.
fn not_followed<'a>(
    next: &'a [(String, Vec<String>)],
    from: &str,
    to: &str,
) -> Option<&'a [String]> {
    let (_, follows) = next.iter().find(|(state, _)| state == from)?;
    (from != to && follows.iter().all(|state| state != to)).then_some(follows)
}
