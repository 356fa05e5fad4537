//! Formats that stay: each value is built from fixed inputs, every field set, and compared with the
//! bytes in `tests/golden/v1`, which are decoded and compared with the value. What cannot be reached
//! from here has its goldens beside its code; docs/formats.md names both.
//!
//! `DTM_WRITE_GOLDEN=1` writes the files anew: for a format that is not released yet, or a new one.
//! What only wrote fails.
#![allow(clippy::unwrap_used)]

mod admin;
mod canonical;
mod cluster;
mod commands;
mod coverage;
mod file;
mod formats;
mod formulas;
mod ledger;
mod machine;
mod rows;
mod scenario;
