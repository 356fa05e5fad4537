//! Who a peer is, and the way to it: connections between nodes over mutual TLS, lines to other sites,
//! what is checked of every call before a group sees it.
//!
//! ```text
//!  dial    tls (TCP, this site) or sites (a lane of a line, another site) ─▶ presence: heard lately?
//!  accept  handshakes (bounded) ─▶ tls: which node ─▶ roster: may it be heard ─▶ origin: which life,
//!          which start
//! ```
//! No group, log or row is named here.

#[macro_use]
mod through;

mod handshakes;
mod origin;
mod presence;
mod roster;
mod sites;
mod tls;

pub use origin::{OriginGuard, Peer};
pub use presence::Presence;
pub use sites::{LineTls, OtherSites, QuicSites, SiteLines};
pub use tls::{BoxIo, Connector, Incoming, PeerIo, PeerStream, PeerTls, Way};
