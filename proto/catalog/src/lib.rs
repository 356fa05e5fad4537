//! Data sets: definitions, validation, masking, canonical form.
//!
//! One [`Definition`] a data set version yields everything else: the validator
//! ([`CompiledSchema`]), the JSON Schema, the labels in Vietnamese and English, the masks
//! ([`CompiledMask`]) and the columns of tables ([`Columns`]).
//!
//! Pure: no runtime, no clock, no randomness, no files. Whatever the door or the format, the same
//! record has the same canonical bytes.

mod chars;
mod columns;
mod compile;
pub mod definition;
pub mod dossier;
mod envelope;
mod error;
mod fast;
mod json;
mod json_schema;
mod kind;
mod lexical;
mod mask;
mod rules;
mod schema;
mod slow;
mod violation;

pub use columns::{CellError, Columns};
pub use definition::{BUILT_IN_IDS, Definition, MaskRule};
pub use dossier::{DossierCode, DossierGrammars};
pub use dtm_types::text::Lang;
pub use envelope::{ENVELOPE_TEXT_BYTES_MAX, check_envelope, is_envelope_text};
pub use error::Error;
pub use mask::{CompiledMask, MaskKey, MaskProfile};
pub use schema::{Accepted, CompiledSchema, Outcome, Scratch};
pub use violation::{FOUND_CHARS_MAX, Reason, Refusal, Rule, VIOLATIONS_MAX, Violation};

#[cfg(test)]
mod check_test;
#[cfg(test)]
mod property_test;
