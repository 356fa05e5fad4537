//! Client SDK: how a source sends records and knows for certain what was kept.
//!
//! ```text
//!  publish, agent        files, folders, standard input
//!      │
//!  Publisher ── Store    numbers records, keeps what is not acked (memory or sealed spool)
//!      │
//!  driver task           reconnects, resumes, rewinds, follows the leader
//!      │
//!  Session               one connection's right to write one stream
//!      │
//!  Endpoint              TLS 1.3 under the cluster CA, credential, seed addresses
//! ```
//!
//! What holds everywhere: a sequence names one record for good (nothing is renumbered); a record
//! leaves the store only after the ack that covers it, and where the cluster has a standby once that
//! has it too; an outcome that is not known is asked for
//! again and never reported as a failure.

mod backoff;
mod endpoint;
mod error;
mod frame;
mod publisher;
mod reader;
mod session;
mod status;
mod tls;

pub mod admin;
pub mod agent;
pub mod publish;
pub mod spool;

pub use endpoint::{Credential, Endpoint};
pub use error::Error;
pub use frame::{EncodedFrame, FrameBuilder};
pub use publisher::{Event, Progress, Publisher, PublisherConfig, Snapshot};
pub use reader::{Reader, RecordStream, stream_status};
pub use session::{Session, SessionEvent};
pub use spool::{Spool, SpoolConfig};
pub use tls::TlsFiles;

pub use dtm_proto::ingest::{AckLevel, Defaults, IdPolicy, Open, Record, Window};
pub use dtm_types::format::{Form, Mode};
