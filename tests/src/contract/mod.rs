//! One suite a seam, run over each implementation: what callers rely on, and nothing else.

pub mod clock;
pub mod commands;
pub mod entropy;
pub mod proposer;
pub mod read_view;
pub mod record_store;
pub mod state_store;
