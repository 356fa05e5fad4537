//! The replicas that run on this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use dtm_proto::cluster as wire;
use dtm_types::{GroupId, ReplicaId};
use parking_lot::RwLock;

use crate::config::{ClusterConfig, Deps};
use crate::convert;
use crate::error::Error;
use crate::group::Group;
use crate::network::Links;
use crate::snapshot::StateProvider;
use crate::type_config::PeerNode;

/// The replicas that run here, one a group.
pub(crate) struct Registry {
    config: ClusterConfig,
    deps: Deps,
    links: Arc<Links>,
    groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    /// One replica starts at a time.
    starting: tokio::sync::Mutex<()>,
}

impl Registry {
    pub(crate) fn new(config: ClusterConfig, deps: Deps, links: Arc<Links>) -> Arc<Self> {
        let groups = RwLock::new(BTreeMap::new());
        Arc::new(Self { config, deps, links, groups, starting: tokio::sync::Mutex::new(()) })
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups.read().get(&group).cloned()
    }

    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().cloned().collect()
    }

    pub(crate) fn states(&self) -> &Arc<dyn StateProvider> {
        &self.deps.states
    }

    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Starts a replica, an empty one when it is new here. Idempotent for the same replica id; a
    /// higher id replaces the old replica and everything it held.
    pub(crate) async fn create(
        &self,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<Arc<Group>, Error> {
        let _one_at_a_time = self.starting.lock().await;
        if let Some(present) = self.group(group) {
            if present.replica == replica {
                return Ok(present);
            }
            if present.replica > replica {
                let present = present.replica;
                return Err(Error::OtherReplica { group, present, asked: replica });
            }
            self.remove_locked(group).await?;
        }
        if !self.deps.logs.replicas().contains(&(group, replica)) {
            // Rows of an earlier replica of the group must not pass for this one's.
            self.deps.states.clear(group)?;
        }
        let started = Group::start(group, replica, &self.config, &self.deps, &self.links).await?;
        self.groups.write().insert(group, Arc::clone(&started));
        Ok(started)
    }

    /// Starts every replica that the log holds; of several of one group the newest.
    pub(crate) async fn open_all(&self) -> Result<(), Error> {
        let newest: BTreeMap<GroupId, ReplicaId> = self.deps.logs.replicas().into_iter().collect();
        for (group, replica) in newest {
            match self.create(group, replica).await {
                Ok(_) => {}
                Err(error @ Error::Recovering { .. }) => {
                    tracing::error!(group = group.0, %error, "replica neither votes nor serves");
                    metrics::counter!("dtm_cluster_replicas_recovering_total").increment(1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stops a replica and forgets its log and rows for ever.
    async fn remove_locked(&self, group: GroupId) -> Result<(), Error> {
        let Some(present) = self.groups.write().remove(&group) else {
            return Ok(());
        };
        present.stop().await;
        let in_log = |source| Error::Log { group, source };
        self.deps.logs.drop_replica(group, present.replica).map_err(in_log)?;
        Ok(self.deps.states.clear(group)?)
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
