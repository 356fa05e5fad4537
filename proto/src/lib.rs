//! Wire contracts: generated messages and services, with the file descriptors for reflection.
//!
//! Stored formats stand in `dtm-types`; these packages refer to them.

/// As the packages are nested, so that one refers to another as generated code does.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, unreachable_pub)]
mod dtm {
    pub mod ingest {
        pub mod v1 {
            include!("generated/dtm.ingest.v1.rs");
        }
    }
    pub mod records {
        pub mod v1 {
            include!("generated/dtm.records.v1.rs");
        }
    }
    pub mod admin {
        pub mod v1 {
            include!("generated/dtm.admin.v1.rs");
        }
    }
    pub mod cluster {
        pub mod v1 {
            include!("generated/dtm.cluster.v1.rs");
        }
    }
}

/// What operators do (`dtm.admin.v1`).
pub use dtm::admin::v1 as admin;
/// What nodes say to each other (`dtm.cluster.v1`).
pub use dtm::cluster::v1 as cluster;
/// How sources send (`dtm.ingest.v1`).
pub use dtm::ingest::v1 as ingest;
/// Reading back (`dtm.records.v1`).
pub use dtm::records::v1 as records;

/// Encoded `FileDescriptorSet` of every public contract, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
