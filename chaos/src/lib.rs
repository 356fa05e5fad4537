//! Fault injectors, planted bugs, checkers.
//!
//! `checker` judges what a cluster did; `sandbox` runs a cluster in this process over disks that
//! can be cut from power; `known_bugs` (a test) puts faulty implementations of the seams into it and
//! shows that the checkers catch each.

pub mod checker;
pub mod sandbox;
