//! Nodes talk: tonic over mutual TLS, two connections a pair and direction — one for log entries,
//! snapshots and forwarded commands, one for heartbeats and votes, so that these never wait behind
//! bulk data. To a peer of another site each kind of traffic and each group has a lane of its own.
//!
//! ```text
//!  factory ── client, heartbeat ── link (two channels) ──> server ── registry, groups
//! ```

mod appends;
mod client;
pub(crate) mod entries;
mod factory;
mod heartbeat;
mod hello;
mod link;
mod matched;
mod server;
pub(crate) mod snapshot;

pub(crate) use appends::{answer_to_wire, append_request_from_wire};
pub(crate) use client::{answer_from_wire, append_request_to_wire};
pub(crate) use entries::{answer as entries_answer, entry_from_wire, entry_to_wire};
pub(crate) use factory::Factory;
pub(crate) use link::{Link, Links, answered};
pub(crate) use server::{SignsOfLife, answer_transfer, answer_vote, serve};
