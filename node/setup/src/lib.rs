//! What a node is set up from: its configuration, the files of its keys and certificates, and the
//! TLS listeners and connections that are made of them.
//!
//! ```text
//!  config (dtm.toml, environment, the cluster's settings) ─▶ pki (files) ─▶ tls (doors, peers)
//! ```
//! Whoever starts a node reads [`config::load`] first; nothing here starts anything by itself.

pub mod config;
pub mod pki;
pub mod tls;
