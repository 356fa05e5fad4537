//! A node: doors, services, telemetry, and the wiring of all crates
//! (`runtime`).
//!
//! ```text
//!  main ─▶ cli ─▶ config ─▶ pki files ─▶ tls listeners ─▶ gRPC services, HTTPS pages
//!                                 └─▶ telemetry (logs, metrics)
//! ```
//! openraft and RocksDB are not named here; services reach groups through `dtm_cluster`. Parts are
//! replaced at [`seams`], for measuring and for tests only.

pub use dtm_setup::{config, doctor, pki, tls};

mod belonging;
pub mod cli;
pub mod join;
pub mod precheck;
pub mod restore;
mod runtime;
pub mod seams;
pub mod serve;
pub mod shell;
