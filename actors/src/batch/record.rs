//! One record: check, mask, canonical form. Hot path.

use std::sync::Arc;

use bytes::Bytes;
use dtm_catalog::{Lang, Outcome, Reason, Refusal, Rule, Scratch, check_envelope};
use dtm_proto::ingest;
use dtm_types::format::Violation;
use sha2::{Digest, Sha256};

use super::tally::Tally;
use crate::contract::Contract;
use crate::security;
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

    /// Never fails: a record that cannot be accepted is refused, with every finding. `hides`: no
    /// finding keeps content.
    pub(crate) fn check(
        &mut self,
        contract: &Contract,
        record: &ingest::Record,
        salt: &[u8; 16],
        hides: bool,
        tally: &mut Tally,
    ) -> Checked {
        let payload = &record.payload;
        let mut labels = security::broken_labels(record);
        let envelope = record.envelope.as_deref();
        labels.extend(check_envelope(&record.message_id, record.event_time_us, envelope));
        if !labels.is_empty() {
            let refusal = Refusal { reason: Reason::Invalid, violations: labels, more: 0 };
            return refuse(payload, refused(refusal, false, salt));
        }
        match self.treatment.check(&contract.schema, payload, &mut self.scratch) {
            Outcome::Accepted { form, warnings } => {
                let canonical = match form {
                    dtm_catalog::Accepted::Same => payload.clone(),
                    dtm_catalog::Accepted::Rewritten(bytes) => Bytes::from(bytes),
                };
                let form = contract.mask.as_ref();
                let masked_form = form.and_then(|(mask, key)| mask.mask(&canonical, key));
                let masked = masked_form.as_ref().is_some_and(|m| m.as_slice() != &*canonical);
                if masked {
                    tally.unmasked(|| self.raw_field(contract, payload));
                }
                let warnings: Vec<_> =
                    warnings.into_iter().map(|w| violation(&w, hides, salt)).collect();
                tally.reported(&warnings);
                Checked {
                    masked,
                    content: masked_form.map_or(canonical, Bytes::from),
                    warnings,
                    refused: None,
                }
            }
            Outcome::Refused(refusal) => {
                let is_raw = |v: &&dtm_catalog::Violation| v.rule == Rule::NotMasked;
                let raw = refusal.violations.iter().find(is_raw).map(|v| v.pointer.clone());
                if let Some(pointer) = raw.or_else(|| self.raw_field(contract, payload)) {
                    tally.unmasked(|| Some(pointer));
                }
                refuse(payload, refused(refusal, hides, salt))
            }
        }
    }

    /// The first field with a clear value, where this node masks.
    fn raw_field(&mut self, contract: &Contract, payload: &[u8]) -> Option<String> {
        let (mask, _) = contract.mask.as_ref()?;
        mask.raw_fields(payload, &mut self.scratch).into_iter().next().map(|v| v.pointer)
    }
}

fn refuse(payload: &Bytes, refused: RefusedRecord) -> Checked {
    Checked {
        content: payload.clone(),
        warnings: Vec::new(),
        masked: false,
        refused: Some(refused),
    }
}

fn refused(mut refusal: Refusal, hides: bool, salt: &[u8; 16]) -> RefusedRecord {
    let violations = refusal.violations.iter().map(|v| violation(v, hides, salt)).collect();
    if hides {
        refusal.violations.iter_mut().for_each(dtm_catalog::Violation::redact);
    }
    let [messages_vi, messages_en] = [Lang::Vi, Lang::En].map(|lang| -> Vec<String> {
        refusal.violations.iter().map(|v| v.message(lang)).collect()
    });
    if refusal.reason == Reason::UnknownState {
        metrics::counter!("dtm_records_unknown_state_total").increment(1);
    }
    RefusedRecord { violations, messages_vi, messages_en }
}

/// Where content is hidden, place, rule, length and a salted digest are kept.
fn violation(found: &dtm_catalog::Violation, hides: bool, salt: &[u8; 16]) -> Violation {
    let digest = || {
        let mut hash = Sha256::new();
        hash.update(salt);
        hash.update(found.found.as_bytes());
        Bytes::copy_from_slice(&hash.finalize()[..16])
    };
    let hides_expected = hides && found.rule.expects_content();
    Violation {
        pointer: found.pointer.clone(),
        rule: found.rule.name().to_owned(),
        expected: if hides_expected { String::new() } else { found.expected.clone() },
        found_bytes: found.found_bytes,
        found_digest: if hides { digest() } else { Bytes::new() },
        found: if hides { String::new() } else { found.found.clone() },
        byte_offset: found.byte_offset,
    }
}
