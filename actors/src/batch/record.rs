//! One record: check, mask, canonical form. Hot path.

use std::sync::Arc;

use bytes::Bytes;
use dtm_catalog::{Lang, Outcome, Reason, Refusal, Scratch};
use dtm_proto::ingest;
use dtm_types::format::{Form, Violation};
use sha2::{Digest, Sha256};

use crate::contract::Contract;
use crate::treatment::Treatment;

/// A record as it goes into a batch.
pub(crate) struct Checked {
    /// Canonical payload, or the bytes as they came where it is refused.
    pub(crate) content: Bytes,
    /// Rules that reported without refusing.
    pub(crate) warnings: Vec<Violation>,
    /// Pointers that the node masked.
    pub(crate) masked: bool,
    /// Why it is refused; none = accepted.
    pub(crate) refused: Option<RefusedRecord>,
}

/// Why a record is refused, for the batch and for the client.
pub(crate) struct RefusedRecord {
    pub(crate) violations: Vec<Violation>,
    pub(crate) messages_vi: Vec<String>,
    pub(crate) messages_en: Vec<String>,
}

/// Checks the records of one stream.
pub(crate) struct RecordChecker {
    scratch: Scratch,
    pub(super) treatment: Arc<dyn Treatment>,
}

impl RecordChecker {
    pub(crate) fn new(treatment: Arc<dyn Treatment>) -> Self {
        Self { scratch: Scratch::default(), treatment }
    }

    /// Never fails: a record that cannot be accepted is refused, with every finding.
    pub(crate) fn check(
        &mut self,
        contract: &Contract,
        record: &ingest::Record,
        salt: &[u8; 16],
    ) -> Checked {
        let payload = &record.payload;
        match self.treatment.check(&contract.schema, payload, &mut self.scratch) {
            Outcome::Accepted { form, warnings } => {
                let canonical = match form {
                    dtm_catalog::Accepted::Same => payload.clone(),
                    dtm_catalog::Accepted::Rewritten(bytes) => Bytes::from(bytes),
                };
                let masked =
                    contract.mask.as_ref().and_then(|(mask, key)| mask.mask(&canonical, key));
                Checked {
                    masked: masked.as_ref().is_some_and(|m| m.as_slice() != canonical.as_ref()),
                    content: masked.map_or(canonical, Bytes::from),
                    warnings: warnings
                        .into_iter()
                        .map(|w| violation(w, contract.form, salt))
                        .collect(),
                    refused: None,
                }
            }
            Outcome::Refused(refusal) => Checked {
                content: payload.clone(),
                warnings: Vec::new(),
                masked: false,
                refused: Some(refused(refusal, contract.form, salt)),
            },
        }
    }
}

fn refused(mut refusal: Refusal, form: Form, salt: &[u8; 16]) -> RefusedRecord {
    if form == Form::Masked {
        refusal.violations.iter_mut().for_each(dtm_catalog::Violation::redact);
    }
    let mut texts = [Lang::Vi, Lang::En].map(|lang| -> Vec<String> {
        refusal.violations.iter().map(|v| v.message(lang)).collect()
    });
    if refusal.reason == Reason::UnknownState {
        metrics::counter!("dtm_records_unknown_state_total").increment(1);
    }
    let violations = refusal.violations.into_iter().map(|v| violation(v, form, salt)).collect();
    let [messages_vi, messages_en] = std::mem::take(&mut texts);
    RefusedRecord { violations, messages_vi, messages_en }
}

/// Under MASKED place, rule, length and a salted digest are kept, never content.
fn violation(found: dtm_catalog::Violation, form: Form, salt: &[u8; 16]) -> Violation {
    let masked = form == Form::Masked;
    let digest = || {
        let mut hash = Sha256::new();
        hash.update(salt);
        hash.update(found.found.as_bytes());
        Bytes::copy_from_slice(&hash.finalize()[..16])
    };
    Violation {
        pointer: found.pointer.clone(),
        rule: found.rule.name().to_owned(),
        expected: found.expected.clone(),
        found_bytes: found.found_bytes,
        found_digest: if masked { digest() } else { Bytes::new() },
        found: if masked { String::new() } else { found.found.clone() },
        byte_offset: found.byte_offset,
    }
}
