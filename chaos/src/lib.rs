//! Fault injectors, planted bugs, checkers.

pub mod checker;
