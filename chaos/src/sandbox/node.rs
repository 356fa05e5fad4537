//! One node of a sandbox over all its lives.

use std::path::Path;
use std::sync::Arc;

use dtm_cluster::{
    ClusterConfig, ClusterNode, Deps, LogProvider, MemoryStates, NodeLogs, PeerTls, StateProvider,
};
use dtm_storage::log::{LogConfig, LogIdentity, NodeLog};
use dtm_storage::vfs::MemVfs;
use dtm_testkit::{TestClock, Wrapped};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::seams::Seams;
use super::watched::WatchedLogs;
use crate::checker::Promises;

const LOG_FOLDER: &str = "/log";

/// What stays of a node when it is down, and the node while it is up.
pub(super) struct Node {
    at: usize,
    pub(super) config: ClusterConfig,
    pub(super) disk: MemVfs,
    states: Arc<MemoryStates>,
    tls: Arc<dyn PeerTls>,
    /// One for all nodes and lives.
    clock: Arc<TestClock>,
    seams: Arc<dyn Seams>,
    promises: Arc<Mutex<Promises>>,
    pub(super) running: Option<Arc<ClusterNode>>,
    /// Why starts failed.
    pub(super) refused: Vec<String>,
}

impl Node {
    pub(super) fn new(
        at: usize,
        config: ClusterConfig,
        tls: Arc<dyn PeerTls>,
        clock: &Arc<TestClock>,
        seams: Arc<dyn Seams>,
        promises: &Arc<Mutex<Promises>>,
    ) -> Self {
        Self {
            at,
            config,
            disk: MemVfs::new(at as u64 + 1),
            states: Arc::default(),
            tls,
            clock: Arc::clone(clock),
            seams,
            promises: Arc::clone(promises),
            running: None,
            refused: Vec::new(),
        }
    }

    pub(super) async fn start(&mut self, listener: TcpListener) {
        let seams = &self.seams;
        let vfs = seams.vfs(self.at, Arc::new(self.disk.clone()));
        let incarnation = self.config.incarnation;
        let identity = LogIdentity {
            cluster: u128::from_be_bytes(self.config.cluster.0),
            node: u128::from_be_bytes(self.config.node.node.0),
        };
        let (log, _) = NodeLog::open(vfs, Path::new(LOG_FOLDER), log_config(), identity)
            .expect("a log that was cut from power opens");
        let logs: Arc<dyn LogProvider> = Arc::new(NodeLogs::new(Arc::new(log), incarnation));
        let inner = seams.logs(self.at, logs);
        let promises = Arc::clone(&self.promises);
        let logs =
            Arc::new(Wrapped(WatchedLogs { node: format!("node{}", self.at), inner, promises }));
        let states: Arc<dyn StateProvider> = Arc::clone(&self.states) as _;
        let deps = Deps {
            logs,
            states: seams.states(self.at, states),
            tls: Arc::clone(&self.tls),
            clock: Arc::clone(&self.clock) as _,
            sites: None,
            acceptor: None,
        };
        match ClusterNode::start(self.config.clone(), deps, listener).await {
            Ok(node) => self.running = Some(node),
            Err(error) => self.refused.push(format!("node{}: {error}", self.at)),
        }
        self.config.boot_counter += 1;
    }

    pub(super) async fn restart(&mut self) {
        let listener = dtm_testkit::bind(&self.config.node.peer_address).await;
        self.start(listener).await;
    }

    /// The process ends; rows that were not flushed are gone.
    pub(super) async fn end(&mut self) {
        if let Some(node) = self.running.take() {
            node.stop().await;
            self.states.crash();
        }
    }

    pub(super) fn replace_disk(&mut self) {
        assert!(self.running.is_none(), "disks are replaced while the node is down");
        self.disk = MemVfs::new(self.at as u64 + 100);
        self.states = Arc::default();
    }
}

/// Small, and without idle marks: the last round stays unproven, as after a real power cut.
fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 4 << 20,
        disk_reserve_bytes: 0,
        idle_mark_ms: 3_600_000,
        short_slice: false,
        ..LogConfig::default()
    }
}
