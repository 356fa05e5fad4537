//! One bad group never stops the others: a replica that fails is taken down, mended and started
//! again, with growing pauses, for as long as the node runs.
//!
//! ```text
//!  running ──damage, failure──▶ down ──rows rebuilt, log repaired──▶ running
//!                               (visible: status, readiness, metrics; peers may read its log)
//! ```
//!
//! A log that stopped (a failed write or sync) is not mended here: that is fail-stop for the node.
//! Rows that can no longer be written end the node: the next start looks at them anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dtm_types::{GroupId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::Error;
use crate::group::Group;
use crate::log_store::ReplicaLog;
use crate::rebuild;
use crate::registry::Registry;
use crate::repair::{self, Repair};
use crate::state_machine::check_rows;
use crate::type_config::PeerNode;

const INTERVAL: Duration = Duration::from_millis(500);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Replicas that are mended at a time.
const MENDS_MAX: usize = 4;
/// A replica that fails again within this time was not helped by what was done.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A replica that does not run.
#[derive(Clone)]
pub(crate) struct Down {
    pub(crate) replica: ReplicaId,
    pub(crate) cause: String,
    /// For peers that repair theirs.
    pub(crate) log: Option<Arc<dyn ReplicaLog>>,
    pub(crate) pause: Duration,
    pub(crate) next_try: Instant,
}

impl Down {
    pub(crate) fn new(replica: ReplicaId, cause: String, log: Option<Arc<dyn ReplicaLog>>) -> Self {
        Self { replica, cause, log, pause: PAUSE_MIN, next_try: Instant::now() }
    }

    /// One that went down a moment ago: it is not tried at once again.
    pub(crate) fn again(mut self, pause: Duration) -> Self {
        self.pause = (pause * 2).min(PAUSE_MAX);
        self.next_try = Instant::now() + self.pause;
        self
    }

    pub(crate) fn put_off(&mut self, cause: String) {
        self.cause = cause;
        self.next_try = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// Ends when no row of this node can be written any more (an IO error, damage that background work
/// met): no group could go on, and none be mended, before the store is opened anew.
pub(crate) async fn watch_rows(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Some(fault) = registry.states().fault() {
            tracing::error!(fault, "rows can no longer be written: the node ends, start it again");
            return;
        }
    }
}

/// Runs until it is dropped. Several replicas are mended at a time: one may wait long for a peer.
pub(crate) async fn run(registry: Arc<Registry>) {
    let mut mends = JoinSet::new();
    let mut mended = BTreeSet::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        while let Some(ended) = mends.try_join_next() {
            match ended {
                Ok(group) => mended.remove(&group),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
        }
        if registry.deps().logs.stopped().is_some() {
            continue;
        }
        for group in registry.groups() {
            if let Some(cause) = sickness(&registry, &group) {
                registry.take_down(&group, cause).await;
            }
        }
        for (group, down) in registry.down() {
            let is_due = down.next_try <= Instant::now() && mended.len() < MENDS_MAX;
            if is_due && mended.insert(group) {
                let registry = Arc::clone(&registry);
                mends.spawn(async move {
                    registry.try_up(group).await;
                    group
                });
            }
        }
        metrics::gauge!("dtm_cluster_replicas_down").set(registry.down().len() as f64);
    }
}

/// Why a replica that runs must not go on as it is.
fn sickness(registry: &Registry, group: &Group) -> Option<String> {
    if let Some(damage) = registry.states().damage(group.id) {
        return Some(format!("rows: {damage}"));
    }
    if let Some(damage) = group.log.marks().recovering {
        return Some(format!("log: {damage}"));
    }
    if let Some(failure) = group.applied.failure() {
        return Some(failure);
    }
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.running_state.as_ref().err().map(ToString::to_string)
}

impl Registry {
    /// Brings rows and log of a replica into order, as far as that is possible now.
    pub(crate) async fn mend(&self, group: GroupId, replica: ReplicaId) -> Result<(), Error> {
        let in_log = |source| Error::Log { group, source };
        let log = self.deps().logs.open(group, replica).map_err(in_log)?;
        let store = self.deps().states.open(group)?;
        let recovering =
            |error: repair::Error| Error::Recovering { group, replica, cause: error.to_string() };
        let purged = log.marks().purged.map_or(0, |purged| purged.index);
        let rows = check_rows(group, &*store);
        let distrusted = self.distrusted(group);
        let is_whole = rows.as_ref().is_ok_and(|applied| *applied >= purged)
            && self.states().damage(group).is_none()
            && distrusted.is_none();
        if !is_whole {
            let known = if distrusted.is_some() { "not those of others" } else { "behind the log" };
            let why = rows.err().map_or_else(|| known.to_owned(), |e| e.to_string());
            tracing::error!(group = group.0, why, "rows of a replica must be rebuilt");
            let mut peers = self.peers_of(group);
            let sources = distrusted.unwrap_or_default();
            // Where all of them left meanwhile any other will do.
            if peers.iter().any(|peer| sources.contains(&peer.node)) {
                peers.retain(|peer| sources.contains(&peer.node));
            }
            let links = self.links();
            rebuild::run(group, &log, self.deps(), links, &peers).await.map_err(recovering)?;
            self.trust(group);
        }
        rebuild::follow_rows(group, &log, &store).await.map_err(recovering)?;
        let links = self.links();
        let repair = Repair { group, replica, log: &log, store: &store, links };
        repair.run().await.map_err(recovering)
    }

    /// Every other node that may have a replica of a group: by its rows, by other groups, by the
    /// note beside the rows.
    fn peers_of(&self, group: GroupId) -> Vec<PeerNode> {
        let mut peers: Vec<PeerNode> = Vec::new();
        if let Ok(store) = self.deps().states.open(group)
            && let Ok((_, membership)) = crate::state_machine::read_applied(&*store)
        {
            peers.extend(membership.membership().nodes().map(|(_, peer)| peer.clone()));
        }
        peers.extend(self.known_peers());
        peers.extend(rebuild::decode_peers(&self.states().noted_peers()));
        let mut seen = BTreeSet::from([self.config().node.node]);
        peers.retain(|peer| seen.insert(peer.node));
        peers
    }

    /// Members of the groups that run here.
    pub(crate) fn known_peers(&self) -> Vec<PeerNode> {
        let mut seen = BTreeSet::new();
        let groups = self.groups();
        let members = groups.iter().flat_map(|group| group.members().0.into_values());
        members.filter(|peer| seen.insert(peer.node)).collect()
    }
}
