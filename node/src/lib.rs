//! The outer shell of a node: configuration, certificates, listeners, pages, telemetry.
//!
//! ```text
//!  main ─▶ cli ─▶ config ─▶ pki files ─▶ tls listeners ─▶ gRPC services, HTTPS pages
//!                                 └─▶ telemetry (logs, metrics), doctor
//! ```
//! Nothing here knows Raft; the pages see the cluster through one trait. Parts are replaced at
//! [`seams`], for measuring only.

mod belonging;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod handover;
pub mod http;
pub mod join;
pub mod join_token;
pub mod keyring;
pub mod pki;
mod runtime;
pub mod seams;
pub mod serve;
mod services;
pub mod shell;
pub mod system;
pub mod telemetry;
pub mod tls;
