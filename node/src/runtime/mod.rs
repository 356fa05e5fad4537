//! Running a node: opens what is on disk, starts the groups, opens the doors, stops in order.
//!
//! ```text
//!  data folder ─▶ log, rows ─▶ groups (peer port) ─▶ sessions ─▶ gRPC and HTTPS doors
//!                                   └─▶ founding: genesis of each group, first rows of meta
//!  stop: sessions told ▶ leaderships handed over ▶ doors closed ▶ groups stopped
//! ```

mod admit;
mod beside;
pub(crate) mod boot;
mod found;
mod grpc;
mod over;
mod run;
mod settings;
mod sites;

pub use run::Ended;
pub(crate) use run::{Error, run};
pub(crate) use settings::{log_identity, peer_node};
