//! A node whose life is over goes on in the one that is in force: of the site that was primary, or of
//! one that was away while the cluster went over.
//!
//! ```text
//!  a voter of meta in a later life lists this node        (it was neither removed nor restored away)
//!  the node starts without its groups
//!    of each replica: the last entry that the later life has as well    (search, Positions)
//!    the agreement, on its own disk
//!  at its next start and before anything else runs: follow the agreement        (offline)
//!    what lies above stays in a file until an operator has decided              (dtm_logs, left)
//!    lineage: what lies below is the beginning of the replica that it is given
//!    no rows, no replica of the later life
//!  then it starts in the later life as a node without groups, and is given replicas
//! ```
//!
//! Positions are compared with the replica that led their term: replica ids are never used again, so
//! that an entry of one life is never taken for one of another.

mod answer;
mod offline;
mod search;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::reads;
use dtm_proto::cluster as wire;
use dtm_types::{ClusterId, GroupId, Incarnation, NodeId, ReplicaId};

use crate::config::Deps;
use crate::convert;
use crate::error::Error;
use crate::lifecycle::{ClusterNode, Starting};
use crate::log_store::{LogPosition, ReplicaLog};
use crate::network::{Links, answered, entries};
use crate::rebuild;
use crate::snapshot::StateProvider;
use crate::starting::members_on_disk;
use crate::type_config::{PeerNode, peer_of};
use search::Search;

pub use offline::{Rejoined, rejoin};

/// A node answers within that.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_secs(1);

/// How far the replicas of a node go with a later life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The cluster.
    pub cluster: ClusterId,
    /// The life that the node goes on in.
    pub next: Incarnation,
    /// The life that its replicas are of.
    pub previous: Incarnation,
    /// Its replicas, each with the last entry that the later life has as well.
    pub replicas: Vec<(GroupId, ReplicaId, Option<LogPosition>)>,
}

impl Agreement {
    /// Reads it; none where there is no file.
    ///
    /// # Errors
    /// `InvalidData` where it is damaged, with its path and what to do.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let message: Option<wire::Agreement> = crate::promotion::file::read(
            path,
            "take it away, this node then asks the others again",
        )?;
        Ok(message.map(|message| {
            let replicas = message.replicas.into_iter().map(|agreed| {
                let target = agreed.target.unwrap_or_default();
                let last =
                    agreed.last.map(|last| convert::position(&convert::log_id_from_wire(last)));
                (GroupId(target.group), ReplicaId(target.replica), last)
            });
            Self {
                cluster: ClusterId::from_slice(&message.cluster_id).unwrap_or_default(),
                next: Incarnation(message.incarnation),
                previous: Incarnation(message.previous),
                replicas: replicas.collect(),
            }
        }))
    }

    /// Writes it. Durable when it returns.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let replicas = self.replicas.iter().map(|(group, replica, last)| wire::AgreedReplica {
            target: Some(wire::Target { group: group.0, replica: replica.0 }),
            last: last.map(|last| convert::log_id_to_wire(&convert::log_id_of(last))),
        });
        let message = wire::Agreement {
            cluster_id: Bytes::copy_from_slice(&self.cluster.0),
            incarnation: self.next.0,
            previous: self.previous.0,
            replicas: replicas.collect(),
        };
        crate::promotion::file::write(path, &message)
    }
}

/// Why no agreement was found.
enum Unagreed {
    /// Nobody who knows answers: asked again later.
    Waiting(String),
    /// A life came after the one that was asked about.
    Changed,
}

impl Starting {
    /// The life that is in force, where it is later than this node's and counts on this node: asked
    /// of every node that is known here, once.
    pub async fn later_life(&self) -> Option<Incarnation> {
        later_life(self.registry().links(), self.peers()).await
    }

    /// Finds how far the replicas on this disk go with a later life. No group runs meanwhile. Waits
    /// without a bound for the voters of that life: the caller may drop it.
    ///
    /// # Errors
    /// Of the log.
    pub async fn agree(&self, life: Incarnation) -> Result<Agreement, Error> {
        let (deps, links, mut life) = (self.deps(), self.registry().links(), life);
        // How nodes are reached, those of other sites too.
        if let Ok(rows) = deps.states.open(GroupId::META).and_then(|meta| reads::nodes(&*meta)) {
            links.learn(&rows);
        }
        let peers = self.peers();
        let (cluster, previous) = (self.config().cluster, links.guard().own());
        let mut replicas = Vec::new();
        let mut pending = deps.logs.replicas();
        let mut told = String::new();
        while let Some((group, replica)) = pending.last().copied() {
            let opened = deps.logs.open(group, replica);
            let log = opened.map_err(|source| Error::Log { group, source })?;
            match agree_on(links, peers, life, group, &log).await {
                Ok(last) => {
                    pending.pop();
                    replicas.push((group, replica, last));
                    continue;
                }
                Err(Unagreed::Changed) => {
                    life = later_life(links, peers).await.map_or(life, |later| later.max(life));
                    (replicas, pending) = (Vec::new(), deps.logs.replicas());
                }
                Err(Unagreed::Waiting(cause)) if cause != told => {
                    tracing::warn!(%life, cause, "what this node holds is not compared yet");
                    told = cause;
                }
                Err(Unagreed::Waiting(_)) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Agreement { cluster, next: life, previous, replicas })
    }
}

impl ClusterNode {
    /// As [`Starting::later_life`], of a node whose groups run.
    pub async fn later_life(&self) -> Option<Incarnation> {
        let (registry, own) = (self.registry(), self.config().node.node);
        let peers = known(registry.known_peers(), registry.states().as_ref(), own);
        later_life(registry.links(), &peers).await
    }

    /// The same of the nodes of one site only.
    pub async fn later_life_at(&self, site: &str) -> Option<Incarnation> {
        let (registry, own) = (self.registry(), self.config().node.node);
        let mut peers = known(registry.known_peers(), registry.states().as_ref(), own);
        peers.retain(|peer| peer.site == site);
        later_life(registry.links(), &peers).await
    }

    /// Puts down how the other nodes are reached, for a start that runs no groups: rows are not on
    /// disk as soon as they are applied. Durable when it returns.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn keep_way(&self) -> io::Result<()> {
        crate::maintain::keep_way(self.registry()).await
    }
}

/// Every other node that is known on a disk where no group runs. Blocking.
pub(crate) fn peers_on_disk(deps: &Deps, own: NodeId) -> Vec<PeerNode> {
    known(members_on_disk(deps), deps.states.as_ref(), own)
}

/// Members of groups, and the nodes that are noted and listed; of what they say of one the newest.
fn known(members: Vec<PeerNode>, states: &dyn StateProvider, own: NodeId) -> Vec<PeerNode> {
    let noted = rebuild::decode_peers(&states.noted_peers());
    let rows = states.open(GroupId::META).and_then(|meta| reads::nodes(&*meta));
    let rows = rows.unwrap_or_default();
    let listed = rows.iter().filter(|row| !row.removed).filter_map(peer_of);
    let known: BTreeMap<NodeId, PeerNode> =
        members.into_iter().chain(noted).chain(listed).map(|peer| (peer.node, peer)).collect();
    known.into_values().filter(|peer| peer.node != own).collect()
}

async fn later_life(links: &Arc<Links>, peers: &[PeerNode]) -> Option<Incarnation> {
    let own = links.guard().own();
    let answers = ask_all(links, peers, &wire::PositionsRequest::default()).await;
    let counted = answers.into_iter().filter(|told| told.votes_in_meta && told.lists_caller);
    counted.map(|told| Incarnation(told.incarnation)).filter(|life| *life > own).max()
}

async fn ask_all(
    links: &Arc<Links>,
    peers: &[PeerNode],
    request: &wire::PositionsRequest,
) -> Vec<wire::PositionsResponse> {
    let asked = peers.iter().map(|peer| {
        let link = links.to(peer.node, &peer.peer_address);
        let request = link.guard().stamp(request.clone());
        async move {
            let mut client = link.control();
            let what = || format!("positions from {}", peer.node);
            let told = answered(ANSWER_WITHIN, what, client.positions(request)).await;
            told.inspect_err(|error| tracing::debug!(%error, "a node does not tell its life")).ok()
        }
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// The last entry of one log that the group has in that life as well.
async fn agree_on(
    links: &Arc<Links>,
    peers: &[PeerNode],
    life: Incarnation,
    group: GroupId,
    log: &Arc<dyn ReplicaLog>,
) -> Result<Option<LogPosition>, Unagreed> {
    let last = log.marks().last.map_or(0, |last| last.index);
    let mut search = Search::new(last);
    loop {
        let probes = search.probes();
        if probes.is_empty() {
            let found = positions(log, vec![search.found()]).await;
            return Ok(found.into_values().next());
        }
        let request = wire::PositionsRequest { group: group.0, indexes: probes.clone() };
        let answers = ask_all(links, peers, &request).await;
        if answers.iter().any(|told| told.votes_in_meta && told.incarnation > life.0) {
            return Err(Unagreed::Changed);
        }
        let of_life = || answers.iter().filter(|told| told.incarnation == life.0);
        if of_life().any(|told| told.votes_in_meta && !told.lists_group) {
            return Ok(None);
        }
        // Who does not vote may hold less than what went over.
        if !of_life().any(|told| told.votes) {
            let (asked, answered) = (peers.len(), answers.len());
            let cause = format!(
                "no voter of group {group} answers in life {life}: {answered} of {asked} known nodes \
                 answer"
            );
            return Err(Unagreed::Waiting(cause));
        }
        let told = of_life().flat_map(|told| told.positions.iter().copied());
        let theirs = told.map(|told| convert::position(&convert::log_id_from_wire(told)));
        let theirs = theirs.map(|position| (position.index, position)).collect();
        let own = positions(log, probes.clone()).await;
        search.narrow(&probes, &own, &theirs);
    }
}

/// What a log holds at these indexes.
async fn positions(log: &Arc<dyn ReplicaLog>, indexes: Vec<u64>) -> BTreeMap<u64, LogPosition> {
    let log = Arc::clone(log);
    let read = tokio::task::spawn_blocking(move || {
        let held = indexes.into_iter().filter_map(|index| entries::position_at(&*log, index));
        held.map(|position| (position.index, position)).collect()
    });
    read.await.unwrap_or_default()
}
