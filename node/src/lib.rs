//! A node: the wiring of all crates (`runtime`), joining, restoring, the command line.
//!
//! ```text
//!  main ─▶ cli ─▶ config ─▶ pki files ─▶ tls listeners                     dtm-setup
//!                   └─▶ runtime ─▶ intake, reading, pages, telemetry       dtm-doors
//!                             └──▶ what operators change, joins, backups   dtm-administration
//! ```
//! openraft and RocksDB are not named here; groups are reached through `dtm_cluster`. Parts are
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
