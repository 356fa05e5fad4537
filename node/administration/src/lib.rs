//! What operators change and ask for: the service `Admin`, nodes that join, backups, and what a life of
//! the cluster that is over left on a node's disk.
//!
//! ```text
//!  call ─▶ who, may they (dtm-doors) ─▶ checks that name what is wrong ─▶ one command of meta, which is
//!          its own entry in the ledger ─▶ what follows from it, watched until it is there
//! ```

mod admin;
mod backup;
pub mod handover;
mod join;
mod left;

pub use admin::{AdminDoor, dataset_row};
pub use backup::{BackupDoor, keep_backups};
pub use join::JoinDoor;
