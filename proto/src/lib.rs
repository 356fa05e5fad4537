//! Wire contracts: generated messages and services, with the file descriptors for reflection.
//!
//! Stored formats stand in `dtm-types`; these packages refer to them.

/// How sources send (`dtm.ingest.v1`).
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, unreachable_pub)]
pub mod ingest {
    include!("generated/dtm.ingest.v1.rs");
}

/// Reading back (`dtm.records.v1`).
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, unreachable_pub)]
pub mod records {
    include!("generated/dtm.records.v1.rs");
}

/// What operators do (`dtm.admin.v1`).
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, unreachable_pub)]
pub mod admin {
    include!("generated/dtm.admin.v1.rs");
}

/// What nodes say to each other (`dtm.cluster.v1`).
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, unreachable_pub)]
pub mod cluster {
    include!("generated/dtm.cluster.v1.rs");
}

/// Encoded `FileDescriptorSet` of every public contract, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
