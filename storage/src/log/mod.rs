//! The node-wide Raft log: one append-only log for all groups of a node.
//!
//! ```text
//!  GroupLog ──append, vote, truncate, purge, reset──▶ queue ──▶ writer thread ──▶ segment file
//!     │                                    (bounded by bytes)   one write, one      seg-N.log
//!     │                                                         fdatasync a round      │
//!     ├──read──▶ dense index + cached payloads ◀──places────────────┘                  │ sealed:
//!     └──read_record──▶ footer indexes of sealed segments ◀────────────────────────────┘ footer
//! ```
//!
//! Sealed segments are the record store: nothing is recycled, a purge only moves a mark, retention
//! removes whole segments. The damage contract (a torn tail is cut, damage inside is found, named
//! and repaired, never served) is in `scan` and `replay`; formats in docs/formats-log.md; the choice
//! in docs/adr/0001-own-segment-log.md.

mod block;
mod codec;
mod error;
mod group;
mod image;
mod index;
mod memory;
mod metrics;
mod node;
mod prepare;
mod queue;
mod read;
mod recover;
mod replay;
mod round;
mod scan;
mod sched;
mod segment;
mod slots;
mod state;
mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{Error, StopReason};
pub use group::{GroupLog, GroupLogState};
pub use metrics::{Histogram, LogMetrics};
pub use node::{GroupState, NodeLog, SegmentInfo};
pub use read::ScrubReport;
pub use recover::Recovery;
pub use types::{
    Callback, Health, IndexRange, LogConfig, LogEntry, LogIdentity, LogPosition, Prefill,
    ReplicaKey,
};
