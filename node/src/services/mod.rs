//! The gRPC services of a node: intake, reading, administration, joining.
//!
//! Each call: who is calling (certificate or key, held against meta), may they (one table), then
//! the work through the seams. Owner of the state: [`Shared`]; the services themselves hold none.

mod admin;
mod ahead;
mod arrivals;
mod audit;
mod auth;
mod backup;
mod cluster_key;
mod confirm;
mod depended;
mod directory;
mod drained;
mod elsewhere;
mod fences;
mod follow;
mod gauges;
mod ingest;
mod join;
mod live;
mod peers;
mod records;
mod reflection;
mod rights;
mod settings;
mod shared;
mod status;
mod today;
mod too_large;

pub(crate) use admin::{AdminDoor, dataset_row};
pub(crate) use ahead::metered;
pub(crate) use audit::{Action, Actor, act};
pub(crate) use backup::{BackupDoor, keep_backups};
pub(crate) use cluster_key::keep_cluster_key;
pub(crate) use drained::keep_drained;
pub(crate) use fences::watch as watch_fences;
pub(crate) use follow::follow_leaders;
pub(crate) use ingest::IngestServer;
pub(crate) use join::JoinDoor;
pub(crate) use live::Live;
pub(crate) use peers::{NodeDoor, PeerCalls};
pub(crate) use records::RecordsDoor;
pub(crate) use reflection::reflection;
pub(crate) use rights::watch as watch_rights;
pub(crate) use settings::{Settings, keep_settings, limits};
pub(crate) use shared::{Room, Shared};
pub(crate) use status::not_the_grpc_port;
pub(crate) use too_large::TellTooLarge;
