//! A cluster of in-process nodes over memory or disk, with a CA of its own.

use std::sync::Arc;

use bytes::Bytes;
use dtm_cluster::{ClusterConfig, ClusterNode, Deps, Error, PeerNode, PeerTls};
use dtm_machine::seams::{Clock, ReadView};
use dtm_testkit::{Ca, TestClock, Wrapped, bind, fresh_address, node_row};
use dtm_types::command::{
    Admin, ClusterRow, Command, CountRefusals, NodeRow, RefusalCount, admin, command::Op,
};
use dtm_types::{ClusterId, GroupId, NodeId};
use prost::Message;
use tokio::net::TcpListener;

pub(crate) use dtm_testkit::{PATIENCE, propose, until, until_async};

use crate::outside::Outside;
use crate::proxy::Weather;
use crate::storage::{Faults, FaultyLogs, FaultyStates, Storage};

/// What every clock shows when a cluster is made.
pub(crate) const START_US: i64 = 1 << 50;

/// What a node keeps over a restart.
pub(crate) struct Disk {
    pub(crate) config: ClusterConfig,
    pub(crate) storage: Storage,
    pub(crate) tls: Arc<dyn PeerTls>,
    pub(crate) clock: Arc<TestClock>,
    /// Put between the node and its storage.
    pub(crate) faults: Arc<Faults>,
    /// Its side towards other sites.
    pub(crate) outside: Option<Outside>,
}

pub(crate) struct Cluster {
    pub(crate) disks: Vec<Disk>,
    pub(crate) nodes: Vec<Option<Arc<ClusterNode>>>,
}

impl Cluster {
    /// Nodes that know nothing of each other yet, in memory.
    pub(crate) async fn start(size: u8) -> Self {
        Self::start_with(size, |_| Storage::memory(), |_| {}).await
    }

    /// The same on files, with bounds that make snapshots and purges come soon.
    pub(crate) async fn start_on_disk(size: u8) -> Self {
        let soon = |config: &mut ClusterConfig| {
            config.flush_interval_ms = 200;
            config.log_entries_kept = 8;
        };
        Self::start_with(size, |_| Storage::disk(), soon).await
    }

    /// Nodes that know nothing of each other yet, stored and set up as told.
    pub(crate) async fn start_with(
        size: u8,
        storage: impl Fn(u8) -> Storage,
        configure: impl Fn(&mut ClusterConfig),
    ) -> Self {
        Self::start_where(size, async |_| None, storage, configure).await
    }

    /// The same, each node in the site that is named, reached by those of others as the weather is.
    pub(crate) async fn start_in_sites(
        sites: &[&'static str],
        weather: &Arc<Weather>,
        storage: impl Fn(u8) -> Storage,
        configure: impl Fn(&mut ClusterConfig),
    ) -> Self {
        let outside =
            async |byte: u8| Some(Outside::new(sites[usize::from(byte) - 1], byte, weather).await);
        Self::start_where(sites.len() as u8, outside, storage, configure).await
    }

    async fn start_where(
        size: u8,
        outside: impl AsyncFn(u8) -> Option<Outside>,
        storage: impl Fn(u8) -> Storage,
        configure: impl Fn(&mut ClusterConfig),
    ) -> Self {
        let ca = Ca::new();
        let clock = TestClock::starting_at(START_US);
        let mut cluster = Self { disks: Vec::new(), nodes: Vec::new() };
        for byte in 1..=size {
            let node = NodeId([byte; 16]);
            let listener = TcpListener::bind(fresh_address(byte)).await.expect("a port");
            let peer_address = listener.local_addr().expect("an address").to_string();
            let outside = outside(byte).await;
            let site = outside.as_ref().map_or("", |outside| outside.site).to_owned();
            let peer = PeerNode { node, site, peer_address, ..PeerNode::default() };
            let mut config = ClusterConfig::new(ClusterId([7; 16]), peer);
            // Replicas stay where a test has found them, unless it is about moves.
            config.rebalance = false;
            if let Some(outside) = &outside {
                config.sites_address = outside.front.clone();
            }
            configure(&mut config);
            let (tls, storage) = (ca.node(node), storage(byte));
            let clock = Arc::new(clock.beside());
            let faults = Arc::default();
            let disk = Disk { config, storage, tls, clock, faults, outside };
            cluster.disks.push(disk);
            cluster.nodes.push(None);
            cluster.run(usize::from(byte) - 1, listener).await;
        }
        cluster
    }

    async fn run(&mut self, at: usize, listener: TcpListener) {
        self.try_run(at, listener).await.expect("starts");
    }

    async fn try_run(&mut self, at: usize, listener: TcpListener) -> Result<(), Error> {
        let disk = &mut self.disks[at];
        let clock: Arc<dyn Clock> = Arc::clone(&disk.clock) as _;
        let sites = match &mut disk.outside {
            Some(outside) => Some(outside.open(disk.config.node.node, &disk.tls, &clock).await),
            None => None,
        };
        let (logs, states) = disk.storage.open(disk.config.node.node).await;
        let faults = &disk.faults;
        let deps = Deps {
            logs: Arc::new(Wrapped(FaultyLogs { inner: logs, faults: Arc::clone(faults) })),
            states: Arc::new(Wrapped(FaultyStates { inner: states, faults: Arc::clone(faults) })),
            tls: Arc::clone(&disk.tls),
            clock,
            sites,
            acceptor: None,
        };
        self.nodes[at] = Some(ClusterNode::start(disk.config.clone(), deps, listener).await?);
        Ok(())
    }

    /// Starts a node under this start counter.
    pub(crate) async fn start_as(&mut self, at: usize, boot_counter: u64) -> Result<(), Error> {
        self.disks[at].config.boot_counter = boot_counter;
        let listener = bind(&self.disks[at].config.node.peer_address).await;
        self.try_run(at, listener).await
    }

    pub(crate) async fn restart(&mut self, at: usize) {
        let next = self.disks[at].config.boot_counter + 1;
        self.start_as(at, next).await.expect("starts");
    }

    /// The node ends without handing anything over; rows that were not flushed are gone.
    pub(crate) async fn kill(&mut self, at: usize) {
        if let Some(node) = self.nodes[at].take() {
            node.stop().await;
            drop(node);
            if let Some(outside) = &mut self.disks[at].outside {
                outside.close().await;
            }
            self.disks[at].storage.crash();
        }
    }

    pub(crate) fn node(&self, at: usize) -> &Arc<ClusterNode> {
        self.nodes[at].as_ref().expect("runs")
    }

    /// A cluster of all nodes: the first makes it, the others are put into meta; returns when every
    /// group has a voter on three of them, and meta a replica on each.
    pub(crate) async fn form(&self, ingest_groups: u32) {
        let cluster = ClusterRow {
            cluster_id: vec![7; 16].into(),
            incarnation: 1,
            ingest_groups,
            ..ClusterRow::default()
        };
        self.node(0).bootstrap_single(cluster, self.row(0)).await.expect("bootstraps");
        for at in 1..self.nodes.len() {
            let command = admin_command(admin::Op::PutNode(self.row(at)));
            propose(self.node(0), GroupId::META, command).await.expect("joins");
        }
        until("every group has all voters", || {
            let status = self.nodes.iter().flatten().map(|node| node.status()).collect::<Vec<_>>();
            let nodes = self.nodes.len();
            let whole = (0..=ingest_groups).map(GroupId).all(|id| {
                let replicas = if id.is_meta() { nodes } else { nodes.min(3) };
                let here: Vec<_> =
                    status.iter().flatten().filter(|group| group.group == id).collect();
                let voters = |group: &dtm_cluster::GroupStatus| {
                    group.replicas.iter().filter(|replica| replica.is_voter).count()
                };
                here.len() == replicas && here.iter().all(|group| voters(group) == nodes.min(3))
            });
            whole.then_some(())
        })
        .await;
    }

    pub(crate) fn row(&self, at: usize) -> NodeRow {
        let own = &self.disks[at].config.node;
        NodeRow { site: own.site.clone(), ..node_row(own) }
    }

    /// Position of the node that leads the group and says so itself.
    pub(crate) async fn leader_of(&self, group: GroupId) -> usize {
        until("a leader", || {
            let running = self.nodes.iter().enumerate();
            running.filter_map(|(at, node)| node.as_ref().map(|node| (at, node))).find_map(
                |(at, node)| node.leader(group).is_some_and(|hint| hint.is_self).then_some(at),
            )
        })
        .await
    }
}

pub(crate) fn command(text: &str) -> Bytes {
    let count = RefusalCount { prefix: text.into(), code: "unauthenticated".into(), count: 1 };
    let op = Op::CountRefusals(CountRefusals { counts: vec![count] });
    let request_id = Bytes::copy_from_slice(&[1; 16]);
    Command { request_id, op: Some(op), ..Command::default() }.encode_to_vec().into()
}

pub(crate) fn admin_command(op: admin::Op) -> Bytes {
    let op = Op::Admin(Admin { op: Some(op), ..Admin::default() });
    Command { op: Some(op), ..Command::default() }.encode_to_vec().into()
}
