//! A cluster in one process: real groups, real TLS on loopback, the real log over disks in memory
//! that can be cut from power, and every seam below the cluster open to a faulty implementation.
//!
//! ```text
//!  Load ──▶ ClusterNode ──▶ [Seams::logs] ──▶ NodeLogs ──▶ [Seams::vfs] ──▶ MemVfs   one a node
//!                     └───▶ [Seams::states] ─▶ MemoryStates                           one a node
//!  Court ◀── images of every node
//! ```

pub mod commands;
mod court;
mod live;
mod load;
mod metered;
mod node;
mod seams;
pub mod session;
mod watched;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtm_cluster::{ClusterConfig, ClusterNode, GroupStatus, PeerNode};
use dtm_machine::seams::{Freshness, GroupView, ProposeError, ReadError, ReadView};
use dtm_storage::vfs::MemVfs;
use dtm_testkit::{Ca, TestClock, found_in_time, fresh_address, node_row, until};
use dtm_types::command::command::Op;
use dtm_types::command::{
    Actor, ActorKind, Admin, BootNode, ClusterRow, Command, NodeRow, Outcome, admin,
};
use dtm_types::{ClusterId, GroupId, NodeId};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;

use crate::checker::{Image, Promises};
use node::Node;

pub use court::{Court, Findings};
pub use dtm_testkit::PATIENCE;
pub use load::Load;
pub use metered::{Meter, metered};
pub use seams::{Seams, True};

/// The group that holds the streams.
pub const GROUP: GroupId = GroupId(1);
/// Tries of a current view, each as long as the node's own wait.
const VIEW_TRIES: usize = 3;
/// What the queue of a group may hold on each node, bytes: little, so that a scenario can fill it.
const QUEUE_BYTES_MAX: usize = 4 << 20;
const CLUSTER: ClusterId = ClusterId([7; 16]);

/// What differs between scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Nodes, 1 to 9.
    pub nodes: u8,
    /// How often rows are flushed and logs purged, milliseconds.
    pub flush_interval_ms: u64,
    /// Entries that stay in the log above the purge mark.
    pub log_entries_kept: u64,
}

impl Default for Settings {
    /// Three nodes that flush nothing by themselves.
    fn default() -> Self {
        Self { nodes: 3, flush_interval_ms: 3_600_000, log_entries_kept: 4_096 }
    }
}

impl Settings {
    /// Three nodes that flush and purge all the time.
    pub fn purging() -> Self {
        Self { flush_interval_ms: 200, log_entries_kept: 0, ..Self::default() }
    }
}

/// A cluster with group meta and one ingest group.
pub struct Sandbox {
    nodes: Vec<Node>,
    promises: Arc<Mutex<Promises>>,
}

impl Sandbox {
    /// Starts the nodes and waits until both groups have a voter on each.
    ///
    /// # Panics
    /// When they do not come together in time; here and below.
    pub async fn form(settings: Settings, seams: Arc<dyn Seams>) -> Self {
        let ca = Ca::new();
        let (promises, clock) =
            (Arc::default(), Arc::new(TestClock::starting_at(commands::TIME_US)));
        let mut nodes = Vec::new();
        for number in 1..=settings.nodes {
            let id = NodeId([number; 16]);
            let listener =
                TcpListener::bind(fresh_address(number)).await.expect("loopback is free");
            let peer_address = listener.local_addr().expect("it is bound").to_string();
            let peer = PeerNode { node: id, peer_address, ..PeerNode::default() };
            let config = ClusterConfig {
                flush_interval_ms: settings.flush_interval_ms,
                log_entries_kept: settings.log_entries_kept,
                control_interval_ms: 100,
                read_wait_ms: 3_000,
                leader_wait_ms: 3_000,
                queue_bytes_max: QUEUE_BYTES_MAX,
                // What faulty rows do is seen by the checkers, and not mended before.
                compare_bytes_per_second: 0,
                ..ClusterConfig::new(CLUSTER, peer)
            };
            let at = nodes.len();
            let (tls, seams) = (ca.node(id), Arc::clone(&seams));
            let mut node = Node::new(at, config, tls, &clock, seams, &promises);
            node.start(listener).await;
            nodes.push(node);
        }
        let sandbox = Self { nodes, promises };
        sandbox.join().await;
        seams.arm();
        sandbox
    }

    async fn join(&self) {
        let cluster = ClusterRow {
            cluster_id: Bytes::copy_from_slice(&CLUSTER.0),
            incarnation: 1,
            ingest_groups: 1,
            ..ClusterRow::default()
        };
        let first = self.node(0);
        first.bootstrap_single(cluster, self.row(0)).await.expect("founded once");
        for at in 1..self.nodes.len() {
            self.act(100 + at as u8, admin::Op::PutNode(self.row(at))).await;
        }
        let all = self.nodes.len();
        self.until("every group has all voters", |status| {
            status.len() == all
                && status.iter().all(|groups| {
                    groups.len() == 2
                        && groups.iter().all(|group| {
                            let voters = group.replicas.iter().filter(|replica| replica.is_voter);
                            voters.count() == all.min(3)
                        })
                })
        })
        .await;
    }

    /// An action of meta in the name of the first node.
    async fn act(&self, request: u8, op: admin::Op) {
        let command = self.action(request, op);
        self.propose(0, GroupId::META, command).await.expect("meta has a leader");
    }

    fn action(&self, request: u8, op: admin::Op) -> Bytes {
        let id = Bytes::copy_from_slice(&self.nodes[0].config.node.node.0);
        let actor = Actor { kind: ActorKind::Node.into(), id };
        let admin = Admin { op: Some(op), ..Admin::default() };
        let command = Command {
            request_id: Bytes::copy_from_slice(&[request; 16]),
            actor: Some(actor),
            op: Some(Op::Admin(admin)),
        };
        command.encode_to_vec().into()
    }

    /// Tells meta of a node's latest start.
    pub async fn note_boot(&self, at: usize) {
        self.act(200 + at as u8, self.boot(at)).await;
    }

    fn boot(&self, at: usize) -> admin::Op {
        let config = &self.nodes[at].config;
        let node = Bytes::copy_from_slice(&config.node.node.0);
        // The configuration holds the number of the next one.
        let boot_counter = config.boot_counter - 1;
        admin::Op::BootNode(BootNode { node, boot_counter, ..BootNode::default() })
    }

    fn row(&self, at: usize) -> NodeRow {
        node_row(&self.nodes[at].config.node)
    }

    /// A running node.
    pub fn node(&self, at: usize) -> &Arc<ClusterNode> {
        self.nodes[at].running.as_ref().expect("the scenario asks nodes that run")
    }

    /// Positions of the running nodes.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&at| self.nodes[at].running.is_some()).collect()
    }

    /// A node's disk.
    pub fn disk(&self, at: usize) -> &MemVfs {
        &self.nodes[at].disk
    }

    /// Cuts the power of nodes at the same moment: nothing that was not synced or flushed stays.
    pub async fn cut_power(&mut self, which: &[usize]) {
        which.iter().for_each(|&at| self.nodes[at].disk.crash(0));
        for &at in which {
            self.nodes[at].end().await;
        }
    }

    /// The disk of a node that is down is replaced by an empty one.
    pub fn replace_disk(&mut self, at: usize) {
        self.nodes[at].replace_disk();
    }

    /// Starts nodes again on what their disks hold.
    pub async fn restart(&mut self, which: &[usize]) {
        for &at in which {
            self.nodes[at].restart().await;
        }
    }

    /// Proposes one command through a node and waits for what became of it.
    pub async fn propose(
        &self,
        at: usize,
        group: GroupId,
        command: Bytes,
    ) -> Result<Outcome, ProposeError> {
        dtm_testkit::propose(self.node(at), group, command).await
    }

    /// Waits until what the running nodes say of their groups is as wanted.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&[Vec<GroupStatus>]) -> bool) {
        let mut status = Vec::new();
        let found = found_in_time(|| {
            let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
            status = running.map(|node| node.status()).collect();
            holds(&status).then_some(())
        });
        assert!(found.await.is_some(), "not in time: {what}; {status:#?}");
    }

    /// Position of the node that leads the group and says so itself.
    pub async fn leader_of(&self, group: GroupId) -> usize {
        let leads = |at: &usize| self.node(*at).leader(group).is_some_and(|hint| hint.is_self);
        let what = format!("leader of group {group}");
        until(&what, || self.running().into_iter().find(leads)).await
    }

    /// Waits until a node leads the group and says so itself.
    pub async fn until_led_by(&self, group: GroupId, at: usize) {
        let is_leader = || self.node(at).leader(group).is_some_and(|hint| hint.is_self);
        let what = format!("leadership of node {at} of group {group}");
        until(&what, || is_leader().then_some(())).await;
    }

    /// Starts that failed, and why: the node stayed down.
    pub fn refused_starts(&self) -> Vec<String> {
        self.nodes.iter().flat_map(|node| node.refused.clone()).collect()
    }

    /// True when some running node takes current reads of the group within `within`.
    pub async fn is_served(&self, group: GroupId, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            for at in self.running() {
                if self.node(at).view(group, Freshness::Current).await.is_ok() {
                    return true;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// What every node that serves current reads of the group holds of it; which nodes serve none
    /// of theirs, and why.
    pub async fn images(&self, group: GroupId) -> (Vec<Image>, Vec<String>) {
        let (mut images, mut unread) = (Vec::new(), Vec::new());
        for at in self.running() {
            let name = format!("node{at}");
            match self.view(at, group).await {
                Ok(view) => {
                    let image = Image::read(&name, &view);
                    images.push(image.expect("rows of a sandbox can be read"));
                }
                Err(ReadError::NotHere(_)) => {}
                Err(error) => unread.push(format!("{name}: {error}")),
            }
        }
        (images, unread)
    }

    /// A current view, tried again while the node only says that it cannot be had yet.
    async fn view(&self, at: usize, group: GroupId) -> Result<GroupView, ReadError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.node(at).view(group, Freshness::Current).await {
                Err(ReadError::Unavailable { .. }) if tries < VIEW_TRIES => {}
                viewed => return viewed,
            }
        }
    }

    /// Votes as they were given, over all lives of all nodes.
    pub fn promises(&self) -> &Mutex<Promises> {
        &self.promises
    }

    /// Stops every node.
    pub async fn stop(mut self) {
        for node in &mut self.nodes {
            node.end().await;
        }
    }
}
