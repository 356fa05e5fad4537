//! Raft groups, network, membership, placement. The only crate that names openraft.
//!
//! ```text
//!  Proposer ──> bundler ──> raft ──> log_store ──> dtm_storage::log
//!                  │          └────> state_machine ──> dtm_machine ──> rows
//!                  └─ forward ─┐
//!  ReadView ──> group          ├──> network ──mTLS──> peers
//!  roots, membership ──────────┘
//! ```

mod adoption;
mod anchors;
mod applied;
mod arbiter;
mod backfill;
mod bundler;
mod clocks;
mod compare;
mod config;
mod convert;
mod copying;
mod elsewhere;
mod error;
mod forward;
mod group;
mod lag;
mod lane;
mod lifecycle;
mod log_store;
mod maintain;
mod membership;
mod missing;
mod network;
mod own_commands;
mod pace;
mod parts;
mod placement;
mod promotion;
mod queue;
mod raft;
mod ranges;
mod read_view;
mod rebuild;
mod registry;
mod rejoining;
mod removal;
mod repair;
mod repeats;
mod requests;
mod restoring;
mod roots;
mod runtime;
mod scrub;
mod shares;
pub mod sim;
mod snapshot;
mod standby;
mod starting;
mod state_machine;
mod states;
mod status;
mod steps;
mod supervise;
mod survey;
mod takeover;
mod transfers;
mod type_config;

#[cfg(test)]
mod suite_test;

pub use applied::Head;
pub use config::{AcceptorPort, ClusterConfig, Deps, Timing};
pub use copying::GroupCopy;
pub use dtm_clocks::ClockStatus;
pub use dtm_compare::RowsCompared;
pub use dtm_peers::{BoxIo, LineTls, PeerIo, PeerTls, QuicSites, SiteLines};
pub use error::Error;
pub use lag::ReplicaLag;
pub use lifecycle::{ClusterNode, Starting};
pub use log_store::{
    Flushed, Forebear, IndexRange, LeftCommand, LeftFile, LeftHead, LeftStream, LeftSummary,
    Lineage, LogDamage, LogEntry, LogError, LogMarks, LogPosition, LogProvider, MemoryLog,
    MemoryLogs, NodeLogs, ReplicaLog, Scrubbed,
};
pub use promotion::{Followed, KeepPlan, Order, Over, Waiting, follow, read_plan, write_plan};
pub use rejoining::{Agreement, Rejoined, rejoin};
pub use removal::HeldUp;
pub use restoring::{Opening, Restoring};
pub use snapshot::{StagedState, StateProvider};
pub use starting::{TRUSTED_AWAY, ask_first};
pub use states::{DbStates, MemoryStates};
pub use status::{GroupStatus, ReplicaStatus};
pub use type_config::PeerNode;
