//! The replicas that run on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dtm_machine::reads;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId, ReplicaId, chain};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tonic::Status;

use crate::config::{ClusterConfig, Deps};
use crate::convert;
use crate::error::Error;
use crate::group::Group;
use crate::log_store::{LogError, ReplicaLog, wait_flushed};
use crate::network::Links;
use crate::promotion::{Kept, Promotion};
use crate::snapshot::StateProvider;
use crate::standby::Standby;
use crate::supervise::{Down, SOON};
use crate::type_config::{PeerNode, Vote};

/// The replicas that run here, one a group.
pub(crate) struct Registry {
    config: ClusterConfig,
    deps: Deps,
    links: Arc<Links>,
    groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    /// Replicas that are here and do not run: they are mended (`supervise`).
    down: Mutex<BTreeMap<GroupId, Down>>,
    /// When a group's replica went down last, and how long it was then left alone.
    falls: Mutex<BTreeMap<GroupId, (Instant, Duration)>>,
    /// One replica starts at a time.
    starting: tokio::sync::Mutex<()>,
    /// While a replica is mended none of its group is replaced: its rows would get into the next
    /// one's. One lock a group, taken before `starting`.
    mending: Mutex<BTreeMap<GroupId, Arc<tokio::sync::Mutex<()>>>>,
    /// Groups whose rows here are not those of the others, and nodes whose rows are right.
    distrusted: Mutex<BTreeMap<GroupId, BTreeSet<NodeId>>>,
    /// Replicas on disk were started: from then on this node reports and takes new ones.
    is_open: AtomicBool,
    /// No group runs: the node takes part in going over to the next life.
    promotion: OnceLock<Arc<Promotion>>,
    standby: Standby,
    /// The plan that this node keeps.
    kept: Arc<Kept>,
}

impl Registry {
    pub(crate) fn new(config: ClusterConfig, deps: Deps, links: Arc<Links>) -> Arc<Self> {
        let groups = RwLock::new(BTreeMap::new());
        let standby = Standby::new(config.voters_max);
        let kept = Arc::new(Kept::open(config.plan.as_deref()));
        Arc::new(Self {
            config,
            deps,
            links,
            groups,
            down: Mutex::default(),
            falls: Mutex::default(),
            starting: tokio::sync::Mutex::new(()),
            mending: Mutex::default(),
            distrusted: Mutex::default(),
            is_open: AtomicBool::new(false),
            promotion: OnceLock::new(),
            standby,
            kept,
        })
    }

    /// Once, before any group runs.
    pub(crate) fn set_promotion(&self, promotion: Arc<Promotion>) {
        assert!(self.promotion.set(promotion).is_ok(), "a start goes over once");
    }

    pub(crate) fn promotion(&self) -> Result<&Arc<Promotion>, Status> {
        let cause = "this node does not go over to another life now";
        self.promotion.get().ok_or_else(|| Status::unavailable(cause))
    }

    /// The plan of a life, where this node keeps it for good.
    pub(crate) fn plan_of(&self, incarnation: u64) -> Option<wire::PromotionPlan> {
        self.kept.of(incarnation)
    }

    /// The plan that this node keeps.
    pub(crate) fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups.read().get(&group).cloned()
    }

    /// The log of a replica, and through which index its entries are known to be committed.
    pub(crate) fn log_of(
        &self,
        target: Option<wire::Target>,
    ) -> Result<(Arc<dyn ReplicaLog>, u64), Status> {
        let target = target.ok_or_else(|| Status::invalid_argument("no target"))?;
        let (id, replica) = (GroupId(target.group), ReplicaId(target.replica));
        if let Some(group) = self.group(id).filter(|group| group.replica == replica) {
            let applied = group.applied.head().index;
            let committed = group.backfill.missing.believed(&*group.log, applied);
            return Ok((Arc::clone(&group.log), committed));
        }
        if let Some(found) = self.promotion.get().and_then(|promotion| promotion.log_of(&target)) {
            return Ok(found);
        }
        let down = self.down.lock().get(&id).filter(|down| down.replica == replica).cloned();
        let log = down.and_then(|down| down.log);
        log.map(|log| (log, 0))
            .ok_or_else(|| Status::not_found(format!("no replica {replica} of group {id}")))
    }

    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().cloned().collect()
    }

    /// Nodes that an operator drained, as far as meta is applied here; none where it does not read.
    pub(crate) fn drained(&self) -> BTreeSet<NodeId> {
        let meta = self.group(GroupId::META);
        let rows = meta.and_then(|meta| reads::nodes(&*meta.store.freeze()).ok());
        let drained = rows.into_iter().flatten().filter(|row| row.draining && !row.removed);
        drained.filter_map(|row| NodeId::from_slice(&row.node)).collect()
    }

    pub(crate) fn states(&self) -> &Arc<dyn StateProvider> {
        &self.deps.states
    }

    pub(crate) fn deps(&self) -> &Deps {
        &self.deps
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// What is known of the site that stands by.
    pub(crate) fn standby(&self) -> &Standby {
        &self.standby
    }

    /// Replicas that are here and do not run.
    pub(crate) fn down(&self) -> Vec<(GroupId, Down)> {
        self.down.lock().iter().map(|(group, down)| (*group, down.clone())).collect()
    }

    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Creates the replica under an id that meta has just given, or goes on with what an earlier
    /// call began. Durable when it returns: from then on the id is known here and meta may confirm
    /// it. Lower ids of the group that are still here are forgotten with all they held.
    ///
    /// # Errors
    /// [`Error::Mending`] while one of them is mended, which may take long: to be asked for again.
    pub(crate) async fn create(
        &self,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<Arc<Group>, Error> {
        let mending = self.mending(group);
        let Ok(_none_is_mended) = mending.try_lock() else {
            return Err(Error::Mending { group });
        };
        let _one_at_a_time = self.starting.lock().await;
        if let Some(present) = self.group(group)
            && present.replica == replica
        {
            return Ok(present);
        }
        let held = self.held(group);
        if let Some(&present) = held.last().filter(|&&present| present > replica) {
            return Err(Error::OtherReplica { group, present, asked: replica });
        }
        let down = self.down.lock().get(&group).cloned();
        if let Some(down) = down.filter(|down| down.replica == replica) {
            return Err(Error::Recovering { group, replica, cause: down.cause });
        }
        if !held.contains(&replica) {
            self.forget(group, &held).await?;
            self.begin(group, replica).await?;
        }
        let started = self.start(group, replica).await;
        if let Err(error) = &started {
            // It is held here from now on and meta may confirm it: it is started later.
            self.set_down(group, replica, chain(error));
        }
        started
    }

    /// [`Registry::create`] at the word of the controller: for the start of this node that it means,
    /// and only what meta, where it runs here, says is this node's and not confirmed.
    pub(crate) async fn create_allocated(
        &self,
        group: GroupId,
        replica: ReplicaId,
        boot_counter: u64,
    ) -> Result<(), Error> {
        self.opened()?;
        if boot_counter != self.config.boot_counter {
            let own = self.config.boot_counter;
            return Err(Error::Refused(format!(
                "start {boot_counter} is meant, this one is {own}"
            )));
        }
        if let Some(meta) = self.group(GroupId::META) {
            let row = reads::group(&*meta.store.freeze(), group.0)?;
            let ours = row.iter().flat_map(|row| &row.replicas).any(|row| {
                row.replica == replica.0
                    && row.node == self.config.node.node.0[..]
                    && !row.removed
                    && !row.confirmed
            });
            if !ours {
                let what = format!("meta does not give replica {replica} of group {group} here");
                return Err(Error::Refused(what));
            }
        }
        self.create(group, replica).await.map(|_| ())
    }

    /// Forgets a replica that left its group, with all it holds. What is not here is forgotten already.
    ///
    /// # Errors
    /// [`Error::Refused`] where meta, as applied here, does not say that it left; [`Error::Mending`]
    /// while it is mended.
    pub(crate) async fn retire(&self, group: GroupId, replica: ReplicaId) -> Result<(), Error> {
        self.opened()?;
        let rows = self.group(GroupId::META);
        let row = rows.map(|meta| reads::group(&*meta.store.freeze(), group.0)).transpose()?;
        let has_left = row.flatten().iter().flat_map(|row| &row.replicas).any(|row| {
            row.replica == replica.0
                && row.node == self.config.node.node.0[..]
                && row.leaving
                && row.removed
        });
        if !has_left {
            let what = format!("meta does not say that replica {replica} of group {group} left");
            return Err(Error::Refused(what));
        }
        let mending = self.mending(group);
        let Ok(_none_is_mended) = mending.try_lock() else {
            return Err(Error::Mending { group });
        };
        let _one_at_a_time = self.starting.lock().await;
        // A newer one forgot it when it came.
        if self.held(group) != [replica] {
            return Ok(());
        }
        tracing::info!(
            group = group.0,
            replica = replica.0,
            "replica left its group and is forgotten"
        );
        self.forget(group, &[replica]).await
    }

    /// What the controller wants to know of this node.
    pub(crate) fn report(&self) -> Result<wire::ReportResponse, Error> {
        self.opened()?;
        let down = self.down();
        // A replica whose vote is lost is as good as not held: only another id helps.
        let is_lost = |of: &(GroupId, ReplicaId)| {
            let here = down.iter().find(|(group, down)| (*group, down.replica) == *of);
            let log = here.and_then(|(_, down)| down.log.as_ref());
            log.and_then(|log| log.marks().recovering).is_some_and(|damage| damage.vote_lost)
        };
        let held = self.deps.logs.replicas().into_iter().filter(|of| !is_lost(of));
        let failed = self.groups().into_iter().filter_map(|group| {
            let reason = group.applied.failure()?;
            Some(wire::StoppedGroup { group: group.id.0, reason })
        });
        let stopped = failed.chain(down.iter().map(|(group, down)| wire::StoppedGroup {
            group: group.0,
            reason: down.cause.clone(),
        }));
        Ok(wire::ReportResponse {
            boot_counter: self.config.boot_counter,
            software_version: self.config.software_version.clone(),
            sites_address: self.config.sites_address.clone(),
            version_max: u32::from(self.config.version_max),
            held: held
                .map(|(group, replica)| wire::Target { group: group.0, replica: replica.0 })
                .collect(),
            stopped: stopped.collect(),
            led: self.groups().iter().filter_map(|group| group.led()).collect(),
        })
    }

    pub(crate) fn opened(&self) -> Result<(), Error> {
        if self.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::Starting)
    }

    /// Starts every replica that the log holds; of several of one group the newest. One that cannot
    /// be started is mended later and holds up no other.
    pub(crate) async fn open_all(&self) -> Result<(), Error> {
        self.config.raft()?;
        let newest: BTreeMap<GroupId, ReplicaId> = self.deps.logs.replicas().into_iter().collect();
        for (group, replica) in newest {
            let _one_at_a_time = self.starting.lock().await;
            if let Err(error) = self.start(group, replica).await {
                self.set_down(group, replica, chain(&error));
            }
        }
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    fn set_down(&self, group: GroupId, replica: ReplicaId, cause: String) {
        tracing::error!(group = group.0, cause, "replica neither votes nor serves");
        metrics::counter!("dtm_cluster_replicas_recovering_total").increment(1);
        let log = self.deps.logs.open(group, replica).ok();
        let mut down = Down::new(replica, cause, log);
        let mut falls = self.falls.lock();
        if let Some((at, pause)) = falls.get(&group).filter(|(at, _)| at.elapsed() < SOON) {
            tracing::warn!(group = group.0, after = ?at.elapsed(), "replica went down again soon");
            down = down.again(*pause);
        }
        falls.insert(group, (Instant::now(), down.pause));
        self.down.lock().insert(group, down);
    }

    /// Stops a replica that must not go on as it is; whether it ran.
    pub(crate) async fn take_down(&self, group: &Arc<Group>, cause: String) -> bool {
        let _one_at_a_time = self.starting.lock().await;
        let is_in_force = self.group(group.id).is_some_and(|known| Arc::ptr_eq(&known, group));
        if !is_in_force {
            return false;
        }
        self.groups.write().remove(&group.id);
        group.stop().await;
        self.set_down(group.id, group.replica, cause);
        true
    }

    /// The rows of a group here are rebuilt when its replica is mended next.
    pub(crate) fn distrust(&self, group: GroupId, sources: BTreeSet<NodeId>) {
        self.distrusted.lock().insert(group, sources);
    }

    /// From which nodes rows must be rebuilt; `None` where those here are believed.
    pub(crate) fn distrusted(&self, group: GroupId) -> Option<BTreeSet<NodeId>> {
        self.distrusted.lock().get(&group).cloned()
    }

    /// The rows of a group here were replaced as a whole.
    pub(crate) fn trust(&self, group: GroupId) {
        self.distrusted.lock().remove(&group);
    }

    fn mending(&self, group: GroupId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.mending.lock().entry(group).or_default())
    }

    /// Mends a replica and starts it; where that is not possible yet it is tried again later.
    pub(crate) async fn try_up(&self, group: GroupId) {
        let mending = self.mending(group);
        let _one_is_mended = mending.lock().await;
        let Some(replica) = self.down.lock().get(&group).map(|down| down.replica) else { return };
        let mended = self.mend(group, replica).await;
        let _one_at_a_time = self.starting.lock().await;
        let started = match mended {
            Ok(()) => self.start(group, replica).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let mut down = self.down.lock();
        match started {
            Ok(()) => {
                down.remove(&group);
                tracing::warn!(group = group.0, "replica is mended and runs again");
                metrics::counter!("dtm_cluster_replicas_mended_total").increment(1);
            }
            Err(error) => {
                let cause = chain(&error);
                tracing::warn!(group = group.0, cause, "replica cannot be mended yet");
                if let Some(down) = down.get_mut(&group) {
                    down.put_off(cause);
                }
            }
        }
    }

    /// Replicas of a group in the log of this node, ascending.
    fn held(&self, group: GroupId) -> Vec<ReplicaId> {
        let all = self.deps.logs.replicas().into_iter();
        all.filter(|(of, _)| *of == group).map(|(_, replica)| replica).collect()
    }

    async fn start(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<Group>, Error> {
        let started = Group::start(group, replica, &self.config, &self.deps, &self.links).await?;
        self.groups.write().insert(group, Arc::clone(&started));
        Ok(started)
    }

    /// Writes the first block of a replica: the vote of term 0. Returns after fsync.
    async fn begin(&self, group: GroupId, replica: ReplicaId) -> Result<(), Error> {
        let in_log = |source| Error::Log { group, source };
        let newest = self.held(group).last().copied();
        assert!(
            newest.is_none_or(|newest| newest < replica),
            "a replica id is never used twice: {replica} of group {group} after {newest:?}"
        );
        let log = self.deps.logs.open(group, replica).map_err(in_log)?;
        // What openraft takes for no vote at all.
        let vote = convert::vote_to_bytes(&Vote::new(0, replica.0));
        let written = wait_flushed(|flushed| log.save_vote(vote, flushed)).await;
        written.map_err(|error| Error::Raft { group, cause: error.to_string() })
    }

    /// Stops what runs of a group and forgets logs and rows of these replicas for ever.
    async fn forget(&self, group: GroupId, held: &[ReplicaId]) -> Result<(), Error> {
        let running = self.groups.write().remove(&group);
        if let Some(running) = running {
            running.stop().await;
        }
        self.down.lock().remove(&group);
        self.trust(group);
        let (logs, states) = (Arc::clone(&self.deps.logs), Arc::clone(&self.deps.states));
        let held = held.to_vec();
        let forgotten = tokio::task::spawn_blocking(move || {
            for replica in held {
                let in_log = |source| Error::Log { group, source };
                logs.drop_replica(group, replica).map_err(in_log)?;
            }
            // Rows of an earlier replica of the group must not pass for the next one's.
            Ok(states.clear(group)?)
        });
        let ended = |error: tokio::task::JoinError| LogError::Engine(error.to_string());
        forgotten.await.map_err(|error| Error::Log { group, source: ended(error) })?
    }

    /// One step of a group that is led here towards what was asked; true when nothing is left to do.
    pub(crate) async fn reconcile(&self, request: wire::ReconcileRequest) -> Result<bool, Error> {
        let id = GroupId(request.group);
        let group = self.group(id).ok_or_else(|| Error::Unknown(format!("group {id}")))?;
        if !group.is_leader() {
            return Err(Error::Refused(format!("group {id} is led elsewhere")));
        }
        let (voters, learners) = (members(request.voters)?, members(request.learners)?);
        if !voters.is_empty() && !group.step_to_members(&voters, &learners).await? {
            return Ok(false);
        }
        let preferred = ReplicaId(request.preferred_leader);
        if preferred == ReplicaId(0) || preferred == group.replica {
            return Ok(true);
        }
        group.transfer_to(preferred).await?;
        Ok(false)
    }

    /// Stops every replica; logs and rows stay.
    pub(crate) async fn stop(&self) {
        let groups = std::mem::take(&mut *self.groups.write());
        futures::future::join_all(groups.values().map(|group| group.stop())).await;
    }
}

fn members(of: Vec<wire::Member>) -> Result<BTreeMap<u64, PeerNode>, Error> {
    let member = |member: wire::Member| {
        let node = member.node.ok_or_else(|| Error::Refused("member without node".to_owned()))?;
        let node = convert::node_from_wire(node).map_err(|e| Error::Refused(e.to_string()))?;
        Ok((member.replica, node))
    };
    of.into_iter().map(member).collect()
}
