//! Fault injectors, planted bugs, checkers.
//!
//! `checker` judges what a cluster did; `sandbox` runs a cluster in this process over disks that
//! can be cut from power; `known_bugs` (a test) puts faulty implementations of the seams into it and
//! shows that the checkers catch each.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

pub mod checker;
pub mod sandbox;
