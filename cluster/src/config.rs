//! What a node's cluster layer is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::Clock;
use dtm_peers::{PeerTls, SiteLines};
use dtm_types::{ClusterId, Incarnation, NodeId, bundle};

use crate::error::Error;
use crate::log_store::LogProvider;
use crate::queue::QueueConfig;
use crate::snapshot::StateProvider;
use crate::type_config::PeerNode;

/// Who this node is and how its groups behave.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node, with the addresses that it advertises.
    pub node: PeerNode,
    /// Which life of the cluster.
    pub incarnation: Incarnation,
    /// Start number of this node; rises with each start.
    pub boot_counter: u64,
    /// Where nodes of other sites reach this one, `host:port`; empty = over TCP. Told at each start.
    pub sites_address: String,
    /// Of the software, in words.
    pub software_version: String,
    /// Highest version of a bundle that this node applies; tests lower or raise it to play an
    /// earlier or a later release.
    pub version_max: u8,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// A node whose clock is further than this from the median of its peers' neither leads nor
    /// stamps, milliseconds.
    pub clock_offset_max_ms: u64,
    /// Commands waiting or in flight a group on this node, bytes; beyond it: overload. Openings of
    /// sessions and each priority have an eighth for themselves and share the other half.
    pub queue_bytes_max: usize,
    /// How long a command waits for a leader before it is refused as unavailable, milliseconds.
    pub leader_wait_ms: u64,
    /// How long a current read waits, milliseconds.
    pub read_wait_ms: u64,
    /// Voters a group, where there are so many nodes.
    pub voters_max: usize,
    /// How often rows are flushed and the log is purged behind them, milliseconds.
    pub flush_interval_ms: u64,
    /// Entries kept in the log above the purge mark for slow followers.
    pub log_entries_kept: u64,
    /// Rate at which stored blocks are read again to find damage; 0 turns it off.
    pub scrub_bytes_per_second: u64,
    /// How often the leader of a group compares the rows of its replicas, milliseconds.
    pub compare_every_ms: u64,
    /// Rate at which a node reads rows to compare those of the groups that it leads, and each replica
    /// of them reads its own; 0 turns it off.
    pub compare_bytes_per_second: u64,
    /// How often the controller of the meta leader looks at the cluster, milliseconds.
    pub control_interval_ms: u64,
    /// Whether replicas move from full nodes to empty ones, and apart over sites and zones.
    pub rebalance: bool,
    /// A node that was silent for so long is given up: its replicas are made anew on others,
    /// milliseconds; 0 = never.
    pub dead_after_ms: u64,
    /// Rate at which this node takes copies (bundles of snapshots, bundles it lacks), bytes over all
    /// groups; 0 = as fast as they come.
    pub copy_bytes_per_second: u64,
    /// File of the plan that this node's life began with, for nodes that missed it.
    pub plan: Option<PathBuf>,
    /// Replicas at another site that are behind by more than this are told, milliseconds.
    pub lag_alarm_ms: u64,
}

impl ClusterConfig {
    /// The defaults for a node.
    pub fn new(cluster: ClusterId, node: PeerNode) -> Self {
        Self {
            cluster,
            node,
            incarnation: Incarnation(1),
            boot_counter: 1,
            sites_address: String::new(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            version_max: bundle::VERSION_MAX,
            timing: Timing::default(),
            clock_offset_max_ms: 500,
            queue_bytes_max: 48 << 20,
            leader_wait_ms: 5_000,
            read_wait_ms: 5_000,
            voters_max: 3,
            flush_interval_ms: 10_000,
            log_entries_kept: 4_096,
            scrub_bytes_per_second: 4 << 20,
            compare_every_ms: 900_000,
            compare_bytes_per_second: 16 << 20,
            control_interval_ms: 1_000,
            rebalance: true,
            dead_after_ms: 1_800_000,
            copy_bytes_per_second: 64 << 20,
            plan: None,
            lag_alarm_ms: 5_000,
        }
    }

    pub(crate) fn queue(&self) -> QueueConfig {
        let leader_wait = Duration::from_millis(self.leader_wait_ms);
        QueueConfig { bytes_max: self.queue_bytes_max, leader_wait }
    }

    pub(crate) fn read_wait(&self) -> Duration {
        Duration::from_millis(self.read_wait_ms)
    }

    pub(crate) fn raft(&self) -> Result<Arc<openraft::Config>, Error> {
        let timing = self.timing;
        let config = openraft::Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: timing.heartbeat_ms,
            heartbeat_min_interval: Some(timing.heartbeat_ms),
            election_timeout_min: timing.election_min_ms,
            election_timeout_max: timing.election_max_ms,
            install_snapshot_timeout: 3_600_000,
            max_payload_entries: 64,
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // Purging is decided by `Group::maintain` alone.
            max_in_snapshot_log_to_keep: u64::MAX,
            backoff: "50ms 100ms 200ms ...500ms".to_owned(),
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            allow_log_reversion: None,
            ..openraft::Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| Error::Settings(error.to_string()))
    }
}

/// Heartbeats and elections. The shortest election must be longer than two heartbeats and a tick. A
/// silent leader is replaced after its lease (`election_max_ms`) and a drawn timeout; one whose
/// process ended, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats, milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest silence before an election, milliseconds.
    pub election_min_ms: u64,
    /// Longest, milliseconds; also the leader's lease.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 150, election_min_ms: 900, election_max_ms: 1_800 }
    }
}

/// What a node's cluster layer stands on.
#[derive(Clone)]
pub struct Deps {
    /// Logs of the replicas.
    pub logs: Arc<dyn LogProvider>,
    /// Rows of the replicas.
    pub states: Arc<dyn StateProvider>,
    /// Certificates.
    pub tls: Arc<dyn PeerTls>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Lines to nodes of other sites; without them all are reached over TCP.
    pub sites: Option<Arc<dyn SiteLines>>,
    /// This node's acceptor of the register, where it has one.
    pub acceptor: Option<Arc<dyn AcceptorPort>>,
}

/// Answers questions of the register; what they mean is not known here.
pub trait AcceptorPort: Send + Sync {
    /// Answers one, encoded. What it answers is on stable storage. Blocking.
    ///
    /// # Errors
    /// In words: nothing was promised or accepted then.
    fn answer(&self, from: NodeId, question: &[u8]) -> Result<Vec<u8>, String>;

    /// Whether the outcome of what others forward to this node may be told to them now.
    fn may_acknowledge(&self) -> bool;
}
