//! What a batch tells beside its records: what was reported without refusing, and clear values where
//! masked ones were agreed. Counted once the batch is committed.

use dtm_catalog::Rule;
use dtm_types::format::Violation;

/// Counts of one batch.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records accepted with at least one report.
    pub(crate) reported: u32,
    /// Reports by rule; only a few rules report.
    pub(crate) rules: Vec<(Rule, u32)>,
    /// Records with a clear value in a field agreed as masked.
    pub(crate) unmasked: u32,
    /// The first such field, as a JSON Pointer.
    pub(crate) pointer: Option<String>,
}

impl Tally {
    /// An accepted record with these reports.
    pub(super) fn reported(&mut self, reports: &[Violation]) {
        if reports.is_empty() {
            return;
        }
        self.reported += 1;
        for rule in reports.iter().filter_map(|report| Rule::from_name(&report.rule)) {
            match self.rules.iter_mut().find(|(known, _)| *known == rule) {
                Some((_, count)) => *count += 1,
                None => self.rules.push((rule, 1)),
            }
        }
    }

    /// A record with a clear value where a masked one was agreed. The place is looked for once a
    /// batch.
    pub(super) fn unmasked(&mut self, pointer: impl FnOnce() -> Option<String>) {
        self.unmasked += 1;
        if self.pointer.is_none() {
            self.pointer = pointer();
        }
    }
}
