//! A compiled schema: everything a node needs to check, mask and address the records of one data
//! set version. Immutable; share it with `Arc`.

use std::collections::BTreeMap;

use crate::Error;
use crate::definition::{Definition, MaskRule};
use crate::fast;
use crate::kind::Struct;
use crate::rules::{Check, Slot};
use crate::slow;
use crate::violation::{Refusal, Violation};

/// Working memory of a checker, reused from record to record; one a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) slots: Vec<Slot>,
}

/// The form of an accepted record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The payload is canonical as it came.
    Same,
    /// The canonical bytes, which differ from the payload.
    Rewritten(Vec<u8>),
}

impl Accepted {
    /// The canonical bytes of a record whose payload was `payload`.
    pub fn bytes<'a>(&'a self, payload: &'a [u8]) -> &'a [u8] {
        match self {
            Accepted::Same => payload,
            Accepted::Rewritten(bytes) => bytes,
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It follows its schema and all rules.
    Accepted {
        /// Its canonical form.
        form: Accepted,
        /// What is reported without refusing it.
        warnings: Vec<Violation>,
    },
    /// It does not; all findings, bounded.
    Refused(Refusal),
}

/// A data set version, compiled.
#[derive(Debug)]
pub struct CompiledSchema {
    pub(crate) id: String,
    pub(crate) version: u32,
    pub(crate) root: Struct,
    pub(crate) checks: Vec<Check>,
    /// Pointer of each slot.
    pub(crate) slots: Vec<String>,
    pub(crate) key: Vec<u16>,
}

impl CompiledSchema {
    /// Compiles a definition for raw records.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when named types expand beyond the compiler's bound.
    pub fn compile(definition: &Definition) -> Result<CompiledSchema, Error> {
        crate::compile::schema(definition, &BTreeMap::new())
    }

    /// Compiles a definition for records that arrive masked: a field with a mask accepts masked
    /// values only, and a raw value there breaks the rule `not_masked`.
    ///
    /// # Errors
    /// As [`CompiledSchema::compile`], and [`Error::Mask`] for a mask that does not fit.
    pub fn compile_masked(
        definition: &Definition,
        masks: &BTreeMap<String, MaskRule>,
    ) -> Result<CompiledSchema, Error> {
        crate::compile::schema(definition, masks)
    }

    /// Id of the data set.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Schema version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Checks one record and finds its canonical form.
    ///
    /// A payload that is canonical and has nothing to report is never copied. Time is linear in
    /// its length (sorting members of a free object apart); nothing recurses deeper than 64
    /// levels; never panics, whatever the bytes are.
    pub fn check(&self, payload: &[u8], scratch: &mut Scratch) -> Outcome {
        let text = std::str::from_utf8(payload);
        if let Ok(text) = text
            && fast::is_canonical_and_valid(self, text, &mut scratch.slots)
        {
            return Outcome::Accepted { form: Accepted::Same, warnings: Vec::new() };
        }
        slow::check(self, payload, text.map_err(|e| e.valid_up_to()), &mut scratch.slots)
    }

    /// The key of a record: its key fields, each with its length before it; an explicit null
    /// counts as an empty value. Two records are about the same thing exactly when their keys
    /// are equal.
    ///
    /// Returns nothing when the data set has no key or `canonical` is not a valid canonical
    /// record of it.
    pub fn record_key(&self, canonical: &[u8], scratch: &mut Scratch) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(canonical).ok()?;
        if self.key.is_empty() || !fast::fill_slots(self, text, &mut scratch.slots) {
            return None;
        }
        let mut key = Vec::with_capacity(64);
        for &slot in &self.key {
            let Slot { start, end } = scratch.slots[usize::from(slot)];
            let value = canonical.get(start as usize..end as usize).unwrap_or_default();
            key.extend_from_slice(&(value.len() as u32).to_le_bytes());
            key.extend_from_slice(value);
        }
        Some(key)
    }
}
