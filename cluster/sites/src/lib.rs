//! Byte streams between nodes of different sites, over QUIC or TCP with mutual TLS.
//!
//! What the bytes mean is not known here: no Raft, no gRPC. One connection carries all that two
//! nodes tell each other, each kind of traffic and each group on a stream of its own (a *lane*), so
//! that none waits for another:
//!
//! ```text
//!        Lines ──── Line (a peer) ──── path 0: channel, remote address ──┐
//!          │           │   └────────── path 1: other socket, other key ──┤ the first that works
//!          │           └── keeper: dials, falls back, goes back          │
//!          │                                                             ▼
//!          └── open(node, lane) ──▶ control ▏ log of group G ▏ copies of group G  ══ QUIC ══▶ peer
//! ```
//!
//! * **Paths.** A peer has an ordered list of them; each goes through one of this node's *channels*
//!   (a socket with credentials of its own, which speaks QUIC over UDP or TLS over TCP). The first that
//!   works is used. After a cut the next one is tried; the first is taken again once it has answered for
//!   a while.
//! * **The two-hour rule.** A first path that was cut for so long, since the last good message over it,
//!   orders the standby channel: by itself or after one confirmation ([`StandbyRule`]).
//! * **What happens** is told ([`Events`]) and kept until the ledger has it ([`Journal`]).
//! * **Copies** (snapshots and what was missed) have a bounded rate and the lowest priority.
//!
//! The decision and its figures: docs/adr/0008-sites-speak-http2-over-quic-streams.md.

mod accept;
mod bucket;
mod error;
mod events;
mod journal;
mod keep;
mod lane;
mod line;
mod lines;
mod path;
mod settings;
mod standby;
mod tcp;
mod tls;
mod wire;

pub use error::Error;
pub use events::{Event, Events};
pub use journal::Journal;
pub use lane::{Lane, LaneIo};
pub use line::LineState;
pub use lines::{Arrived, Lines};
pub use path::{Channel, ChannelKind, Path, SharedPart, shared_parts};
pub use settings::{Congestion, Settings, StandbyRule};
pub use tls::SiteTls;
