//! What a node is set up from: its configuration, the files of its keys and certificates, the TLS
//! listeners and connections that are made of them, and whether the machine is fit for it (doctor).
//!
//! ```text
//!  config (dtm.toml, environment, the cluster's settings) ─▶ pki (files) ─▶ tls (doors, peers)
//!     └───────────────────────────────────────────────────────┴─▶ doctor
//! ```
//! Whoever starts a node reads [`config::load`] first; nothing here starts anything by itself.

pub mod config;
pub mod doctor;
pub mod pki;
pub mod tls;
