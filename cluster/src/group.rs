//! One replica of one group on this node, running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{RecordError, RecordStore, StateStore};
use dtm_types::{GroupId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ReadPolicy, ServerState};
use tokio_util::sync::CancellationToken;

use crate::applied::Applied;
use crate::bundler::{Bundler, BundlerParts};
use crate::config::{ClusterConfig, Deps};
use crate::convert;
use crate::error::Error;
use crate::log_store::{LogError, LogStore, ReplicaLog};
use crate::network::{Factory, Links};
use crate::raft::GroupRaft;
use crate::state_machine::StateMachine;
use crate::type_config::PeerNode;

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
        let in_log = |source| Error::Log { group: id, source };
        let log = deps.logs.open(id, replica).map_err(in_log)?;
        let marks = log.marks();
        if let Some(cause) = marks.recovering {
            return Err(Error::Recovering { group: id, replica, cause });
        }
        let store = deps.states.open(id)?;
        let applied = Arc::new(Applied::new());
        let failed = |cause: String| Error::Raft { group: id, cause };
        let machine = StateMachine::load(
            id,
            config.version_max,
            Arc::clone(&store),
            Arc::clone(&log),
            Arc::clone(&applied),
        )
        .map_err(|error| Error::Recovering {
            group: id,
            replica,
            cause: error.to_string(),
        })?;
        let purged = marks.purged.map_or(0, |purged| purged.index);
        if purged > applied.head().index {
            let cause =
                format!("rows end at {}, the log begins above {purged}", applied.head().index);
            return Err(Error::Recovering { group: id, replica, cause });
        }
        let log_store = LogStore::new(Arc::clone(&log), Arc::clone(&applied));
        let factory = Factory::new(id, Arc::clone(links));
        let raft = GroupRaft::new(replica.0, config.raft()?, factory, log_store, machine)
            .await
            .map_err(|error| failed(error.to_string()))?;
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
            clock: Arc::clone(&deps.clock),
        };
        let bundler = Bundler::start(parts, stop.clone());
        let links = Arc::clone(links);
        Ok(Arc::new(Self { id, replica, raft, log, store, applied, bundler, links, stop }))
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

    /// Confirms leadership with a quorum; the index that a current read must have applied.
    pub(crate) async fn read_index_here(&self, within: Duration) -> Result<u64, Error> {
        let confirmed = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let late = |_| Error::Timeout("confirming leadership".to_owned());
        let linearizer = tokio::time::timeout(within, confirmed).await.map_err(late)?;
        let linearizer = linearizer.map_err(|error| self.failed(error))?;
        Ok(linearizer.read_log_id().index())
    }

    /// Stops openraft and answers what is queued. The log and the rows stay as they are.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = self.id.0, %error, "group did not stop cleanly");
        }
    }

    pub(crate) fn records(&self) -> Arc<dyn RecordStore> {
        Arc::new(Records { log: Arc::clone(&self.log) })
    }
}

/// The log's segments as the record store.
struct Records {
    log: Arc<dyn ReplicaLog>,
}

impl RecordStore for Records {
    fn bundle(&self, index: u64) -> Result<Bytes, RecordError> {
        let entry = self.log.read_record(index).map_err(|error| match error {
            LogError::NotFound(index) => RecordError::NotHeld(index),
            LogError::Damaged(index) => {
                RecordError::Damaged { index, cause: "checksum of the log block".to_owned() }
            }
            other => RecordError::Io { index, cause: other.to_string() },
        })?;
        if convert::is_bundle(&entry.payload) {
            Ok(entry.payload)
        } else {
            Err(RecordError::NotHeld(index))
        }
    }
}
