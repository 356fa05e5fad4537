//! A node's life in the cluster: start, bootstrap, stop.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::Clock;
use dtm_machine::seams::{Proposer, Reply};
use dtm_peers::{Incoming, OriginGuard, OtherSites, Presence, Way};
use dtm_proto::cluster as wire;
use dtm_types::command::command::Op;
use dtm_types::command::{
    Admin, ClusterRow, Genesis, GroupRow, NodeRow, RaiseVersion, ReplicaRow, admin,
};
use dtm_types::{GroupId, NodeId, ReplicaId, bundle, format};
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::arbiter;
use crate::backfill;
use crate::clocks::{self, ClockStatus, Clocks};
use crate::compare;
use crate::config::{ClusterConfig, Deps};
use crate::elsewhere::Elsewhere;
use crate::error::Error;
use crate::lag::{self, Lags};
use crate::maintain;
use crate::network::{self, Links, SignsOfLife, answered};
use crate::pace::Pace;
use crate::parts::Parts;
use crate::registry::Registry;
use crate::standby;
use crate::starting::{Condemned, Vetting, watch_roster};
use crate::supervise;
use crate::type_config::{PeerNode, peer_of};
use crate::{roots, scrub, takeover};

/// This node's groups, served to its peers.
pub struct ClusterNode {
    config: ClusterConfig,
    registry: Arc<Registry>,
    parts: Parts,
    requests: AtomicU64,
    elsewhere: Arc<Elsewhere>,
    condemned: Condemned,
    lags: Arc<Lags>,
}

/// A node whose peer port is open and whose groups do not run yet.
pub struct Starting {
    node: Arc<ClusterNode>,
    deps: Deps,
    /// Nodes to which a connection ended.
    lost: mpsc::Receiver<NodeId>,
    /// Every other node that is known on this disk, read at first use.
    peers: OnceLock<Vec<PeerNode>>,
}

impl Starting {
    /// Whether the log of this disk holds a replica: then it belongs to no new node.
    pub fn holds_replicas(&self) -> bool {
        !self.deps.logs.replicas().is_empty()
    }

    /// Asks the other voters what they know of this node; `away`: how long its disk was out of use,
    /// where that is known. Returns when it may vote; waits without a bound for a quorum's word
    /// where the disk was off for over [`TRUSTED_AWAY`](crate::TRUSTED_AWAY). Nothing is written.
    ///
    /// # Errors
    /// [`Error::OldCopy`], [`Error::WentBack`], [`Error::NodeRemoved`]: this node must not start.
    pub fn vet(&self, away: Option<Duration>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let node = &self.node;
            let vetting = Vetting::read(&node.config, &self.deps, node.registry.links())?;
            let vetted = vetting.finish(away).await;
            if vetted.is_err() {
                node.stop().await;
            }
            vetted
        })
    }

    /// The node, of which no group runs yet: for questions to its peers.
    pub fn node(&self) -> &ClusterNode {
        &self.node
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.node.config
    }

    /// Every other node that is known on this disk. Blocking at first use.
    pub(crate) fn peers(&self) -> &[PeerNode] {
        let own = self.config().node.node;
        self.peers.get_or_init(|| crate::rejoining::peers_on_disk(&self.deps, own))
    }

    pub(crate) fn deps(&self) -> &Deps {
        &self.deps
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.node.registry
    }

    /// Closes the peer port; nothing else runs yet.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        self.node.stop()
    }

    /// Starts every replica found on disk and the work beside them.
    pub fn start(self) -> BoxFuture<'static, Result<Arc<ClusterNode>, Error>> {
        Box::pin(async move {
            let node = self.node;
            node.registry.open_all().await?;
            // Before the first session asks whether there is one.
            node.registry.standby().read(&node.registry);
            node.parts.spawn("the watch for leaders", Arc::clone(&node.elsewhere).watch());
            node.parts.spawn("the controller", Arc::clone(&node).control());
            node.parts.spawn("the anchors", Arc::clone(&node).anchor());
            let flush_interval = Duration::from_millis(node.config.flush_interval_ms);
            let registry = || Arc::clone(&node.registry);
            node.parts.spawn("the comparison of clocks", clocks::run(registry()));
            node.parts.spawn("the comparison of ledgers", roots::watch(registry()));
            let alarm = Duration::from_millis(node.config.lag_alarm_ms);
            let measuring = lag::watch(registry(), Arc::clone(&node.lags), alarm);
            node.parts.spawn("the lag of other sites", measuring);
            node.parts.spawn("the look at the standby", standby::watch(registry()));
            node.parts.spawn("questions to copies", standby::ask_copies(registry()));
            let listening = standby::listen(registry(), Arc::clone(&node.elsewhere));
            node.parts.spawn("word of the standby", listening);
            let handing_over = arbiter::watch(registry(), node.config.node.site.clone());
            node.parts.spawn("handing over at a third site", handing_over);
            node.parts.spawn("fetching of missing bundles", backfill::run(registry()));
            node.parts.spawn("mending of replicas", supervise::run(registry()));
            node.parts.spawn("the rows", supervise::watch_rows(registry()));
            // What is turned off is not started: a part that returns ends the node.
            if let Some(rate) = NonZeroU64::new(node.config.scrub_bytes_per_second) {
                node.parts.spawn("reading through the log", scrub::run(registry(), rate));
            }
            node.parts.spawn("rows kept to compare", compare::sweep(registry()));
            if let Some(rate) = NonZeroU64::new(node.config.compare_bytes_per_second) {
                let every = Duration::from_millis(node.config.compare_every_ms);
                node.parts.spawn("the comparison of rows", compare::run(registry(), every, rate));
            }
            let maintaining =
                maintain::run(registry(), flush_interval, node.config.log_entries_kept);
            node.parts.spawn("flushing and purging", maintaining);
            node.parts.spawn("the watch for nodes", watch_roster(registry()));
            node.parts.spawn("the watch for dead leaders", takeover::watch(registry(), self.lost));
            let (vigil, own) = (Vetting::vigil(registry(), node.config.clone()), Arc::clone(&node));
            node.parts.spawn("the watch for later starts", async move {
                own.condemned.say(vigil.await);
                std::future::pending::<()>().await;
            });
            Ok(node)
        })
    }
}

impl ClusterNode {
    /// [`ClusterNode::listen`] and [`Starting::start`] for a disk that was in use a moment ago.
    pub fn start(
        config: ClusterConfig,
        deps: Deps,
        listener: TcpListener,
    ) -> BoxFuture<'static, Result<Arc<Self>, Error>> {
        Box::pin(async move {
            let starting = Self::listen(config, deps, listener)?;
            starting.vet(Some(Duration::ZERO)).await?;
            starting.start().await
        })
    }

    /// Opens the peer port. No group runs yet, nothing is voted.
    pub fn listen(
        config: ClusterConfig,
        deps: Deps,
        listener: TcpListener,
    ) -> Result<Starting, Error> {
        let (cluster, node) = (config.cluster, config.node.node);
        let guard = OriginGuard::new(cluster, node, config.incarnation, config.boot_counter);
        let (presence, lost) = Presence::new();
        let clocks = Clocks::new(node, Arc::clone(&deps.clock), config.clock_offset_max_ms);
        let sites = OtherSites::new(deps.sites.clone(), config.node.node, &config.node.site);
        let (tls, sites_too) = (Arc::clone(&deps.tls), Arc::clone(&sites));
        let way = Way { tls, presence: Arc::clone(&presence), sites };
        let copies = Pace::new(config.copy_bytes_per_second);
        let links = Links::new(way, Arc::clone(&guard), clocks, copies);
        let registry = Registry::new(config.clone(), deps.clone(), links);
        let stop = CancellationToken::new();
        let tls = Arc::clone(&deps.tls);
        let incoming = Incoming::start(listener, tls, Arc::clone(&guard), presence, stop.clone());
        let serve = |incoming, signs| {
            network::serve(Arc::clone(&registry), Arc::clone(&guard), incoming, signs)
        };
        let serving = serve(incoming, SignsOfLife::Asked);
        let lanes = sites_too.serve(&guard, &stop).map(|[others, copies]| {
            let copies = serve(copies, SignsOfLife::OfTheLine);
            futures::future::join(serve(others, SignsOfLife::Asked), copies)
        });
        let requests = AtomicU64::new(0);
        let elsewhere =
            Elsewhere::new(config.node.node, config.queue(), Arc::clone(&registry), stop.clone());
        let (parts, condemned) = (Parts::new(stop), Condemned::new());
        let lags = Arc::new(Lags::default());
        let node = Arc::new(Self { config, registry, parts, requests, elsewhere, condemned, lags });
        node.parts.spawn("the peer port", async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "peer port ended");
            }
        });
        if let Some(lanes) = lanes {
            node.parts.spawn("the lanes of other sites", async move {
                if let (Err(error), _) | (_, Err(error)) = lanes.await {
                    tracing::error!(%error, "lanes of other sites ended");
                }
            });
        }
        Ok(Starting { node, deps, lost, peers: OnceLock::new() })
    }

    /// Waits until it shows that this start must not go on: a later start of this node is known, or
    /// the node was removed. Given once.
    pub async fn condemned(&self) -> Option<Error> {
        self.condemned.heard().await
    }

    /// The time of this node for what it stamps beside the groups: its clock, and never ahead of what
    /// the clocks of the cluster agree on.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(clocks::GuardedClock(Arc::clone(self.registry.links().clocks())))
    }

    /// Returns when a part ended without which the node is half dead, with its name: the node must
    /// stop then. Cancel-safe.
    pub async fn part_ended(&self) -> &'static str {
        self.parts.ended().await
    }

    /// Makes a new cluster of this one node: group meta and the ingest groups with this node as
    /// their only voter, the genesis of each, raised to the newest version that this software knows,
    /// and the first rows of meta: cluster, node, groups.
    /// Once in a cluster's life. Other nodes are added by putting their rows into meta.
    pub fn bootstrap_single(
        &self,
        cluster: ClusterRow,
        node: NodeRow,
    ) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let replica = ReplicaId(1);
            let groups = (0..=cluster.ingest_groups).map(GroupId);
            for group in groups.clone() {
                let started = self.registry.create(group, replica).await?;
                if !started.is_initialized().await? {
                    started.initialize(self.config.node.clone()).await?;
                }
            }
            for group in groups.clone() {
                let genesis = format::Genesis {
                    cluster_id: Bytes::copy_from_slice(&self.config.cluster.0),
                    group: group.0,
                    incarnation: self.config.incarnation.0,
                    cause: "bootstrap".to_owned(),
                    ..format::Genesis::default()
                };
                self.submit(group, Op::Genesis(Genesis { genesis: Some(genesis) })).await?;
                // Nobody else is there yet who could know less. What an interrupted founding raised
                // before is refused or nothing.
                for version in bundle::VERSION..self.config.version_max {
                    let version = u32::from(version) + 1;
                    self.submit(group, Op::RaiseVersion(RaiseVersion { version })).await?;
                }
            }
            let node_id = node.node.clone();
            let admin = |op| Admin { op: Some(op), ..Admin::default() };
            // Refused only where an interrupted founding was here before: what is there stays.
            let again = |result: Result<(), Error>| match result {
                Err(Error::Refused(_)) => Ok(()),
                other => other,
            };
            again(self.act(admin(admin::Op::PutCluster(cluster))).await)?;
            again(self.act(admin(admin::Op::PutNode(node))).await)?;
            for group in groups {
                let (replica, node) = (replica.0, node_id.clone());
                let row = ReplicaRow { replica, node, confirmed: true, ..ReplicaRow::default() };
                let replicas = vec![row];
                let row = GroupRow { group: group.0, replicas, next_replica_id: 2 };
                again(self.act(admin(admin::Op::PutGroup(row))).await)?;
            }
            Ok(())
        })
    }

    /// Hands a group to a node that has a voter of it and nearly everything in its log.
    pub fn transfer(&self, group: GroupId, to: NodeId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let found = self.registry.group(group);
            let found = found.ok_or_else(|| Error::Unknown(format!("group {group}")))?;
            let (members, voters) = found.members();
            let mut on_node = members.iter().filter(|(_, peer)| peer.node == to);
            let target = on_node.find(|(id, _)| voters.iter().any(|set| set.contains(id)));
            let target = target.map(|(&replica, _)| replica);
            let target = target.ok_or_else(|| Error::Unknown(format!("voter on node {to}")))?;
            let late = || Error::Timeout(format!("finding the leader of group {group}"));
            let (_, leader) = found.leader().ok_or_else(late)?;
            let request = wire::ReconcileRequest {
                group: group.0,
                preferred_leader: target,
                ..Default::default()
            };
            self.ask_reconcile(&leader, request).await?;
            Ok(())
        })
    }

    /// Before a planned stop: this node takes no leadership from now on, whoever offers it.
    pub fn leave_soon(&self) {
        self.registry.links().leave();
        for group in self.registry.groups() {
            group.raft.runtime_config().elect(false);
        }
    }

    /// Hands over every group that this node leads and another can lead. Bounded: what could not
    /// be handed over in time is named in the error.
    pub fn drain(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let (groups, drained) = (self.registry.groups(), self.registry.drained());
            let given = groups.iter().map(|group| group.give_up_leadership(&drained));
            let failed: Vec<String> = futures::future::join_all(given)
                .await
                .into_iter()
                .filter_map(|given| given.err().map(|error| error.to_string()))
                .collect();
            if failed.is_empty() { Ok(()) } else { Err(Error::Timeout(failed.join("; "))) }
        })
    }

    /// A planned stop: leadership is handed over first, then [`ClusterNode::stop`].
    pub fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.leave_soon();
            if let Err(error) = self.drain().await {
                tracing::warn!(%error, "stopping with leadership in hand");
            }
            self.stop().await;
        })
    }

    /// Stops every group and the peer port at once. Logs and rows stay as they are.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.parts.stop();
            self.registry.stop().await;
            self.parts.wait().await;
        })
    }

    /// Another node as meta's rows here name it.
    pub fn peer(&self, node: NodeId) -> Option<PeerNode> {
        let meta = self.registry.group(GroupId::META)?;
        let row = reads::node(&*meta.store.freeze(), node).ok()??;
        peer_of(&row).filter(|_| !row.removed)
    }

    /// Asks another node's acceptor of the register, in whatever life that node lives.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Refused`]: what became of the question is not known.
    pub fn ask_acceptor<'a>(
        &'a self,
        peer: &'a PeerNode,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(async move {
            let link = self.registry.links().to(peer.node, &peer.peer_address);
            let request = link.guard().stamp(wire::RegisterRequest { question });
            let (what, mut client) = (|| format!("the acceptor on {}", peer.node), link.control());
            let answer = answered(within, what, client.register(request)).await?;
            Ok(answer.answer)
        })
    }

    /// This node's clock among those of its peers.
    pub fn clock_status(&self) -> ClockStatus {
        self.registry.links().clocks().status()
    }

    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.config
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn lags(&self) -> &Lags {
        &self.lags
    }

    pub(crate) fn elsewhere(&self) -> &Elsewhere {
        &self.elsewhere
    }

    /// Other nodes that hold a replica of a group, as meta says, its leader first where it is
    /// known. For reading groups of which this node holds none.
    pub fn holders(&self, group: GroupId) -> Vec<PeerNode> {
        self.elsewhere.holders(group)
    }

    /// Whether this node holds a replica of a group.
    pub fn is_here(&self, group: GroupId) -> bool {
        self.registry.group(group).is_some()
    }
}

impl Proposer for ClusterNode {
    fn propose(&self, group: GroupId, command: Bytes, reply: Reply) {
        match self.registry.group(group) {
            Some(group) => group.bundler.push(command, reply),
            None => self.elsewhere.push(group, command, reply),
        }
    }
}
