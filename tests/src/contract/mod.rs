//! One suite a seam, run over each implementation: what callers rely on, and nothing else.

pub mod clock;
pub mod entropy;
pub mod state_store;
