//! Sites in network namespaces, joined by a router that loses, delays and cuts as it is told.
//!
//! ```text
//!   node ns ── veth ──┐
//!   node ns ── veth ──┤ bridge, site ns, TUN ──┐
//!   node ns ── veth ──┘                        ├── router (this process): a link a direction
//!   node ns ── veth ──── bridge, site ns, TUN ─┘
//! ```
//!
//! [`Wan`] builds and owns all of it. The namespaces have no names: the kernel takes them down,
//! with interfaces and rules, when the last descriptor and process in them are gone, so a run that
//! panics leaves nothing behind, and one that is killed at most the processes that it started.
//! Addresses are from 198.18.0.0/15 (RFC 2544, for benches), which nothing outside routes.
//!
//! [`nemesis`] holds the faults of processes and clocks. Everything counts what it really did:
//! a run whose fault did not fire proves nothing.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

mod block;
mod error;
mod link;
mod namespace;
pub mod nemesis;
mod plan;
mod probe;
mod rng;
mod router;
mod run;
mod tun;
mod wan;

pub use error::Error;
pub use link::{Counts, Link, Ppm, Settings, Verdict};
pub use namespace::{Namespace, Running};
pub use plan::{NodeId, Plan, SiteId, SitePlan};
pub use rng::SplitMix;
pub use run::{can_run, did_not_run};
pub use wan::Wan;
