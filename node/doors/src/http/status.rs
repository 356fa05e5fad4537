//! What the pages ask of the cluster.

use async_trait::async_trait;
use dtm_types::command::OperatorRow;

/// Whether this node can commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Meta and every ingest group have a leader, and the node takes sessions.
    Ready,
    /// It can, but some replicas of this node are being mended.
    Degraded {
        /// Which and why, in words.
        reason: String,
    },
    /// Not now.
    NotReady {
        /// Why, in words.
        reason: String,
    },
}

/// The cluster for the live page. Bounded: lists are cut by whoever makes them.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the answering node.
    pub node: String,
    /// Every node.
    pub nodes: Vec<NodeLine>,
    /// Every group.
    pub groups: Vec<GroupLine>,
    /// Sources, at most a few hundred.
    pub sources: Vec<SourceLine>,
    /// Whether more sources are registered than are in the list.
    pub has_more_sources: bool,
    /// Records stored since the beginning.
    pub records: u64,
    /// Records refused since the beginning.
    pub refused: u64,
    /// The same of today, where it is known.
    pub today: Option<Today>,
    /// Median time to an acknowledgement on this node, milliseconds.
    pub ack_p50_ms: f64,
    /// 99th percentile of the same.
    pub ack_p99_ms: f64,
}

/// What was taken in since midnight, UTC+07:00, by the groups' own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Today {
    /// Records stored.
    pub records: u64,
    /// Records refused.
    pub refused: u64,
    /// Unix microseconds: since when, where the count began within the day; else 0.
    pub from_us: i64,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Its zone.
    pub zone: String,
    /// gRPC address.
    pub address: String,
    /// Whether it answers.
    pub reachable: bool,
    /// Whether it answers and serves nothing any more (docs/runbooks/node-stopped.md).
    pub stopped: bool,
    /// Whether it is being emptied.
    pub draining: bool,
    /// Groups that it leads.
    pub groups_led: u32,
    /// Open streams.
    pub sessions: u32,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub struct GroupLine {
    /// Its number; 0 is meta.
    pub group: u32,
    /// Name of the leading node, empty where there is none.
    pub leader: String,
    /// Term.
    pub term: u64,
    /// Replicas that keep up, of how many.
    pub replicas_healthy: u32,
    /// All replicas.
    pub replicas: u32,
    /// Committed index.
    pub committed: u64,
    /// Leaves in its ledger.
    pub ledger_size: u64,
}

/// One source.
#[derive(Clone, Debug, Default)]
pub struct SourceLine {
    /// Its code.
    pub source: String,
    /// Its title in Vietnamese.
    pub title_vi: String,
    /// Its title in English; may be empty.
    pub title_en: String,
    /// Names of streams that it ever used, at most 64 of them.
    pub streams: u32,
    /// Records stored since the beginning, on these streams.
    pub records: u64,
    /// Records refused since the beginning, on these streams.
    pub refused: u64,
    /// Records accepted with something to report.
    pub reported: u64,
    /// Records with a clear value in a field agreed as masked: an alarm.
    pub unmasked: u64,
}

/// How the pages see the cluster.
#[async_trait]
pub trait LiveStatus: Send + Sync + 'static {
    /// Whether this node can commit. Bounded in time.
    async fn readiness(&self) -> Readiness;
    /// Everything on the live page. Bounded in time; what is not known stays empty.
    async fn overview(&self) -> Overview;
    /// The row behind an operator's certificate.
    async fn operator(&self, name: &str) -> Option<OperatorRow>;
}
