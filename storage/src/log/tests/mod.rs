//! Tests of the log, on the in-memory file system with seeded faults.

mod basic_test;
mod kit;
