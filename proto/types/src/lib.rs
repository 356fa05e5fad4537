//! Words shared by every crate: ids, units, time, error codes, texts and the stored formats.
//!
//! Nothing here does IO. The stored formats (`format`, `command`) are prost messages without tonic,
//! so that an offline verifier can link them without a server.

pub mod bundle;
mod chain;
mod error_code;
mod ids;
mod month;
mod request_log;
mod source_limits;
pub mod split;
pub mod text;
mod version_of;

pub use chain::chain;
pub use error_code::ErrorCode;
pub use ids::{
    ApprovalId, BackupId, ClusterId, GroupId, Incarnation, KeyId, NodeId, ReplicaId, RequestId,
    SessionId, SourceId, StreamKey,
};
pub use month::{DAY_US, LOCAL_OFFSET_US, Month, civil, local_day};
pub use request_log::{REQUEST_LOG, operation};
pub use version_of::version_of;

/// Greatest security status and greatest priority of a record; the least is 1.
pub const LABEL_MAX: u32 = 3;
/// Days that a key or a certificate of a source or an operator holds at most, and where nothing is
/// said.
pub const CALLER_DAYS_MAX: u32 = 365;
/// Ingest groups of one cluster at most. A node may hold a replica of each, and of meta.
pub const INGEST_GROUPS_MAX: u32 = 255;

/// Stored formats: headers, entries, leaves, rows (`dtm.format.v1`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod format {
    include!("generated/dtm.format.v1.rs");
}

/// Replicated commands and their outcomes (`dtm.command.v1`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod command {
    include!("generated/dtm.command.v1.rs");
}
