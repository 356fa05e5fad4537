//! Tests of the log, on the in-memory file system with seeded faults.

mod basic_test;
mod damage_test;
mod fault_test;
mod golden_test;
mod kit;
mod model_test;
mod torn_test;
mod unreadable_test;
mod vote_test;
