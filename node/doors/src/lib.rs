//! The doors of a node: gRPC services of intake and of reading, pages, telemetry, and whether the node
//! may acknowledge.
//!
//! ```text
//!  call ─▶ who (auth: certificate or key, held against meta) ─▶ may they (rights, one table)
//!       ─▶ the work, through the seams ─▶ an entry in the ledger before data leaves (audit)
//! ```
//! Owner of the state: [`Shared`], which the wiring of the node fills; the services hold none. What
//! operators change stands above, in `dtm-administration`.

mod ahead;
mod arrivals;
pub mod audit;
pub mod auth;
mod cluster_key;
mod cluster_status;
pub mod confirm;
mod depended;
pub mod directory;
mod drained;
pub mod elsewhere;
mod fences;
mod follow;
mod gauges;
pub mod http;
mod ingest;
pub mod join_token;
pub mod keyring;
pub mod life;
pub mod lines;
mod live;
pub mod lives;
mod peers;
pub mod primacy;
mod records;
mod reflection;
mod renewal;
pub mod rights;
pub mod settings;
mod shared;
pub mod status;
pub mod system;
pub mod telemetry;
mod today;
mod too_large;
pub mod vault;

pub use ahead::metered;
pub use cluster_key::keep_cluster_key;
pub use drained::keep_drained;
pub use fences::watch as watch_fences;
pub use follow::follow_leaders;
pub use ingest::IngestServer;
pub use lines::{SiteLines, enter_lines};
pub use live::Live;
pub use peers::{NodeDoor, PeerCalls};
pub use records::RecordsDoor;
pub use reflection::reflection;
pub use renewal::keep_certificate;
pub use rights::watch as watch_rights;
pub use settings::{Settings, keep_settings, limits};
pub use shared::{Room, Shared};
pub use status::not_the_grpc_port;
pub use too_large::TellTooLarge;
