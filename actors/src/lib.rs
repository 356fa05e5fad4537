//! Supervised actors: one per source connection.
//!
//! ```text
//!  Sources (root supervisor, one a node)
//!    ├─ Session tinh-01/main        one actor a connection: check, mask, hash, seal, propose, ack
//!    ├─ Session tinh-01/nightly
//!    └─ Session bo-y-te/main
//! ```
//! A session's crash is its own: the supervisor counts it and forgets it; the client reconnects and
//! resumes. Actors own session and flow state only; whatever must last is in a group.

mod ack_times;
mod admission;
mod batch;
mod bounds;
mod contract;
mod error;
mod labels;
mod limits;
mod opener;
mod outbox;
mod roll;
mod security;
mod session;
mod slots;
mod sources;
mod treatment;
mod vault;

pub use ack_times::AckTimes;
pub use admission::{Admission, Permit};
pub use batch::{OpenedBatch, open_batch};
pub use bounds::{Bound, BoundOf, Bounds};
pub use contract::{Contract, ContractRequest, Contracts, Defaults};
pub use error::Error;
pub use limits::Limits;
pub use opener::propose;
pub use outbox::Outbox;
pub use security::SecurityStatus;
pub use session::{SessionHandle, in_session};
pub use sources::{Deps, OpenRequest, Sources, SourcesHandle};
pub use treatment::{Full, Treatment};
pub use vault::{KeyVault, VaultError};
