//! Fault injectors, planted bugs, checkers.
