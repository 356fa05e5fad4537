//! One replica of one group on this node, running.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{RecordError, RecordStore, StateStore};
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::LinearizableReadError;
use openraft::{ReadPolicy, ServerState};
use tokio_util::sync::CancellationToken;

use crate::applied::Applied;
use crate::backfill::Backfill;
use crate::bundler::{Bundler, BundlerParts};
use crate::clocks::Standing;
use crate::config::{ClusterConfig, Deps};
use crate::convert;
use crate::error::{Error, no_majority};
use crate::log_store::{LogError, LogStore, ReplicaLog, wait_flushed};
use crate::missing::Missing;
use crate::network::{Factory, Links};
use crate::raft::GroupRaft;
use crate::state_machine::StateMachine;
use crate::type_config::{PeerNode, StoredMembership, TypeConfig};

/// One replica, running.
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: GroupRaft,
    pub(crate) log: Arc<dyn ReplicaLog>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) bundler: Arc<Bundler>,
    pub(crate) links: Arc<Links>,
    pub(crate) backfill: Arc<Backfill>,
    has_recovered: AtomicBool,
    /// Last index of the log when this replica started.
    last_at_start: u64,
    stop: CancellationToken,
}

impl Group {
    /// Starts a replica on what log and state hold.
    pub(crate) async fn start(
        id: GroupId,
        replica: ReplicaId,
        config: &ClusterConfig,
        deps: &Deps,
        links: &Arc<Links>,
    ) -> Result<Arc<Self>, Error> {
        let OnDisk { log, store, applied, missing, machine, last_at_start } =
            OnDisk::open(id, replica, config, deps)?;
        // openraft takes what it finds for durable and answers for it at once. A replica that is
        // started again in a running process may still have entries and a vote on their way to disk.
        let synced = wait_flushed(|done| log.append(Vec::new(), done)).await;
        synced.map_err(|error| Error::Raft { group: id, cause: dtm_types::chain(&error) })?;
        let log_store = LogStore::new(Arc::clone(&log), Arc::clone(&applied), Arc::clone(&missing));
        let factory = Factory::new(id, Arc::clone(links));
        let raft = GroupRaft::new(replica.0, config.raft()?, factory, log_store, machine)
            .await
            .map_err(|error| Error::Raft { group: id, cause: error.to_string() })?;
        let stop = CancellationToken::new();
        let parts = BundlerParts {
            group: id,
            replica,
            node: config.node.node,
            config: config.queue(),
            raft: raft.clone(),
            log: Arc::clone(&log),
            applied: Arc::clone(&applied),
            links: Arc::clone(links),
        };
        let bundler = Bundler::start(parts, stop.clone());
        let links = Arc::clone(links);
        let backfill = Arc::new(Backfill {
            group: id,
            replica,
            raft: raft.clone(),
            log: Arc::clone(&log),
            applied: Arc::clone(&applied),
            missing,
            links: Arc::clone(&links),
            runtime: tokio::runtime::Handle::current(),
        });
        let has_recovered = AtomicBool::new(false);
        Ok(Arc::new(Self {
            id,
            replica,
            raft,
            log,
            store,
            applied,
            bundler,
            links,
            backfill,
            has_recovered,
            last_at_start,
            stop,
        }))
    }

    /// Makes this replica the only voter of a new group. Once in a group's life.
    pub(crate) async fn initialize(&self, node: PeerNode) -> Result<(), Error> {
        let members = BTreeMap::from([(self.replica.0, node)]);
        self.raft.initialize(members).await.map_err(|error| self.failed(error))
    }

    /// Whether the group has members: a founding that was interrupted goes on from here.
    pub(crate) async fn is_initialized(&self) -> Result<bool, Error> {
        self.raft.is_initialized().await.map_err(|error| self.failed(error))
    }

    pub(crate) fn failed(&self, error: impl std::fmt::Display) -> Error {
        Error::Raft { group: self.id, cause: error.to_string() }
    }

    /// True when this replica leads, as far as it knows.
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.server_metrics().borrow_watched().state == ServerState::Leader
    }

    /// Replica and node of the leader, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<(ReplicaId, PeerNode)> {
        self.leader_of_term().map(|(_, replica, node)| (replica, node))
    }

    /// As [`Group::leader`], with the term that it leads in.
    pub(crate) fn leader_of_term(&self) -> Option<(u64, ReplicaId, PeerNode)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.get_node(&leader)?;
        Some((metrics.vote.leader_id.term, ReplicaId(leader), node.clone()))
    }

    /// Voters and term of a group that this replica leads, as far as it knows.
    pub(crate) fn led(&self) -> Option<wire::LedGroup> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let membership = metrics.membership_config.membership();
        let voter = |&replica: &u64| {
            let node = membership.get_node(&replica).map(|peer| peer.node).unwrap_or_default();
            let (node, lags) = (Bytes::copy_from_slice(&node.0), !self.is_caught_up(replica));
            wire::LedVoter { replica, node, lags }
        };
        let sets = membership.get_joint_config().iter();
        let voters = sets.map(|set| wire::LedVoters { voters: set.iter().map(voter).collect() });
        let term = metrics.vote.leader_id.term;
        Some(wire::LedGroup { group: self.id.0, term, voters: voters.collect() })
    }

    /// Whether a replica of the node is a member, by the membership in force here.
    pub(crate) fn names(&self, node: NodeId) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().any(|(_, peer)| peer.node == node)
    }

    /// Whether the node may lead and stamp here: what its clock is worth, unless the group waits in
    /// vain for another.
    pub(crate) fn standing(&self) -> Standing {
        match self.clock_standing() {
            Standing::Astray if self.bundler.insists() => Standing::Sound,
            standing => standing,
        }
    }

    /// The group goes on under this node although its clock is astray: nobody else can lead it.
    pub(crate) fn insist(&self, insists: bool) {
        self.bundler.insist(insists);
    }

    /// What the clock of this node is worth to this group.
    pub(crate) fn clock_standing(&self) -> Standing {
        let metrics = self.raft.server_metrics();
        let voters = voter_nodes(&metrics.borrow_watched().membership_config);
        self.links.clocks().standing(&voters)
    }

    /// Whether this replica stands for election by itself when its leader is silent; never where the
    /// node is about to stop.
    pub(crate) fn let_stand(&self, may_lead: bool) {
        let config = self.raft.runtime_config();
        config.elect(may_lead);
        if self.links.is_leaving() {
            config.elect(false);
        }
    }

    /// Confirms leadership with a quorum; the index that a current read must have applied.
    pub(crate) async fn read_index_here(&self, within: Duration) -> Result<u64, Error> {
        let confirmed = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let late = |_| Error::Timeout("confirming leadership".to_owned());
        let linearizer = tokio::time::timeout(within, confirmed).await.map_err(late)?;
        let linearizer = linearizer.map_err(|error| self.unconfirmed(error.api_error()))?;
        Ok(linearizer.read_log_id().index())
    }

    /// Why leadership was not confirmed, in words that a source may read: openraft's own name every
    /// member with its addresses.
    fn unconfirmed(&self, error: Option<&LinearizableReadError<TypeConfig>>) -> Error {
        let group = self.id;
        match error {
            Some(LinearizableReadError::QuorumNotEnough(lack)) => {
                Error::NoMajority { group, answering: lack.got.len(), voters: self.voters().len() }
            }
            Some(LinearizableReadError::ForwardToLeader(_)) => Error::Moved { group },
            None => Error::Raft { group, cause: "this replica has stopped".to_owned() },
        }
    }

    /// Whether this replica votes, under either configuration while it changes.
    pub(crate) fn votes(&self) -> bool {
        self.voters().contains(&self.replica.0)
    }

    /// Replicas that vote, under either configuration while it changes.
    fn voters(&self) -> BTreeSet<u64> {
        self.members().1.into_iter().flatten().collect()
    }

    /// A group without a known leader, with the replicas that are not known to be away.
    pub(crate) fn leaderless(&self) -> String {
        let (members, voters) = (self.members().0, self.voters());
        let presence = self.links.presence();
        let is_away =
            |voter: &u64| members.get(voter).is_some_and(|peer| presence.is_gone(peer.node));
        let answering = voters.iter().filter(|voter| !is_away(voter)).count();
        if 2 * answering > voters.len() {
            return "no leader now".to_owned();
        }
        format!("no leader now: {}", no_majority(&answering, &voters.len()))
    }

    /// Stops openraft and answers what is queued. The log and the rows stay as they are.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.applied.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = self.id.0, %error, "group did not stop cleanly");
        }
    }

    /// After a start rows may be older than what was served before it: waits, bounded, until a
    /// commit of the cluster that covers our log is applied. False when that did not happen in time.
    pub(crate) async fn wait_for_recovery(&self, within: Duration) -> bool {
        if self.has_recovered.load(Ordering::Acquire) {
            return true;
        }
        // Under load the second is met sooner: the log keeps growing ahead of the commits.
        let recovered = tokio::select! {
            Ok(_) = self.raft.wait_for_recovery(Some(within)) => true,
            true = self.applied.wait_for(self.last_at_start, within) => true,
            else => false,
        };
        if recovered {
            self.has_recovered.store(true, Ordering::Release);
        }
        recovered
    }

    pub(crate) fn records(&self) -> Arc<dyn RecordStore> {
        Arc::new(Records { backfill: Arc::clone(&self.backfill) })
    }
}

/// The nodes whose replicas vote, under either configuration while it changes.
pub(crate) fn voter_nodes(stored: &StoredMembership) -> BTreeSet<NodeId> {
    let membership = stored.membership();
    let nodes = membership.voter_ids().filter_map(|voter| membership.get_node(&voter));
    nodes.map(|peer| peer.node).collect()
}

/// What a replica has on disk, open.
struct OnDisk {
    log: Arc<dyn ReplicaLog>,
    store: Arc<dyn StateStore>,
    applied: Arc<Applied>,
    missing: Arc<Missing>,
    machine: StateMachine,
    last_at_start: u64,
}

impl OnDisk {
    /// Opens log and rows and holds them against each other. [`Error::Recovering`] where one of
    /// them is damaged, or the rows end before the log begins.
    fn open(
        id: GroupId,
        replica: ReplicaId,
        config: &ClusterConfig,
        deps: &Deps,
    ) -> Result<Self, Error> {
        let recovering = |cause: String| Error::Recovering { group: id, replica, cause };
        let log = deps.logs.open(id, replica).map_err(|source| Error::Log { group: id, source })?;
        let marks = log.marks();
        if let Some(damage) = marks.recovering {
            return Err(recovering(damage.to_string()));
        }
        let store = deps.states.open(id)?;
        let applied = Arc::new(Applied::new());
        let missing = Missing::load(id, Arc::clone(&store), Arc::clone(&applied))
            .map_err(|error| Error::Raft { group: id, cause: error.to_string() })?;
        let (rows, note) = (Arc::clone(&store), Arc::clone(&missing));
        let (entries, head) = (Arc::clone(&log), Arc::clone(&applied));
        let machine = StateMachine::load(id, config.version_max, rows, entries, head, note)
            .map_err(|error| recovering(error.to_string()))?;
        let last_at_start = marks.last.map_or(0, |last| last.index);
        let purged = marks.purged.map_or(0, |purged| purged.index);
        let end = applied.head().index;
        if purged > end {
            return Err(recovering(format!("rows end at {end}, the log begins above {purged}")));
        }
        Ok(Self { log, store, applied, missing, machine, last_at_start })
    }
}

/// The log's segments as the record store; what they lack comes from a peer.
struct Records {
    backfill: Arc<Backfill>,
}

impl RecordStore for Records {
    fn bundle(&self, index: u64) -> Result<Bytes, RecordError> {
        let entry = match self.backfill.held(index) {
            Ok(entry) => entry,
            Err(LogError::NotFound(_) | LogError::Damaged(_)) if self.backfill.is_due(index) => {
                self.backfill.one(index).ok_or(RecordError::Missing(index))?
            }
            Err(LogError::NotFound(index)) => return Err(RecordError::NotHeld(index)),
            Err(LogError::Damaged(index)) => {
                let cause = "checksum of the log block".to_owned();
                return Err(RecordError::Damaged { index, cause });
            }
            Err(other) => return Err(RecordError::Io { index, cause: other.to_string() }),
        };
        if convert::is_bundle(&entry.payload) {
            Ok(entry.payload)
        } else {
            Err(RecordError::NotHeld(index))
        }
    }
}
