//! Nodes talk: tonic over mutual TLS, two connections a pair and direction — one for log entries,
//! snapshots and forwarded commands, one for heartbeats and votes, so that these never wait behind
//! bulk data.
//!
//! ```text
//!  factory ── client, heartbeat ── link (two channels) ── tls ──> tls ── server ── registry, groups
//! ```

#[macro_use]
mod through;

mod client;
pub(crate) mod entries;
mod factory;
mod handshakes;
mod heartbeat;
mod hello;
mod link;
mod matched;
mod origin;
mod presence;
mod roster;
mod server;
pub(crate) mod snapshot;
mod tls;

pub(crate) use factory::Factory;
pub(crate) use link::{Link, Links, answered};
pub(crate) use origin::OriginGuard;
pub(crate) use presence::Presence;
pub(crate) use server::serve;
pub(crate) use tls::Incoming;
pub use tls::{BoxIo, PeerIo, PeerTls};
