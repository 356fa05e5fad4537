//! The node's log, state and record store.

pub mod keys;
pub mod log;
pub mod state;
pub mod vfs;
