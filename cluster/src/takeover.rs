//! Groups whose leader's process died get a new leader within tens of milliseconds, without waiting
//! for heartbeats to be missed.
//!
//! ```text
//!  connection ended ──> port refuses? ──no──> nothing: lease and election timeout decide
//!                            │yes
//!                            ▼
//!  every group that the dead node led: forget its lease here, then pre-vote; voters take turns
//! ```
//!
//! Safe because nothing rests on the lease: votes are granted by term and log as ever, writes need a
//! quorum, reads confirm their leader with one. Harmless when wrong: a voter that still hears the
//! leader keeps its own lease and grants no pre-vote, so no term rises.

use std::sync::Arc;
use std::time::Duration;

use dtm_placement::stand_in;
use dtm_types::NodeId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;

use crate::clocks::Standing;
use crate::group::Group;
use crate::registry::Registry;

/// The first in turn waits so long, so that the other voters have seen the end too.
const FIRST_MS: u64 = 5;
/// The next in turn stands so much later: two at once would split the votes.
const TURN_MS: u64 = 120;
/// Between two tries of one voter.
const ROUND_MS: u64 = 250;
/// Then the election timeout has taken over.
const ROUNDS_MAX: u32 = 8;

/// Runs until the node stops.
pub(crate) async fn watch(registry: Arc<Registry>, mut ended: mpsc::Receiver<NodeId>) {
    while let Some(node) = ended.recv().await {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { look_after(&registry, node).await });
    }
}

async fn look_after(registry: &Registry, node: NodeId) {
    let groups = registry.groups();
    let address = groups.iter().find_map(|group| {
        let (members, _) = group.members();
        members.into_values().find(|peer| peer.node == node).map(|peer| peer.peer_address)
    });
    let Some(address) = address else { return };
    if !registry.links().presence().look(node, &address).await {
        return;
    }
    let led: Vec<_> = groups.into_iter().filter(|group| group.is_led_by(node)).collect();
    if !led.is_empty() {
        tracing::info!(%node, groups = led.len(), "the groups of a node that is gone elect at once");
    }
    for group in led {
        metrics::counter!("dtm_cluster_takeovers_total").increment(1);
        tokio::spawn(async move { group.take_over(node).await });
    }
}

impl Group {
    fn is_led_by(&self, node: NodeId) -> bool {
        self.leader().is_some_and(|(_, peer)| peer.node == node)
    }

    async fn take_over(&self, dead: NodeId) {
        self.forget_lease().await;
        let pause = FIRST_MS + TURN_MS * self.turn_without(dead);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mut metrics = self.raft.server_metrics();
        for _ in 0..ROUNDS_MAX {
            if self.leader().is_some_and(|(_, peer)| peer.node != dead) {
                return;
            }
            // It came back before anybody followed: its own heartbeats or timeouts decide.
            if !self.links.presence().is_gone(dead) || !self.may_lead() {
                return;
            }
            if self.raft.trigger().elect(true).await.is_err() {
                return;
            }
            let elected = async {
                while self.leader().is_none_or(|(_, peer)| peer.node == dead) {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_millis(ROUND_MS), elected).await.ok();
        }
    }

    /// Whether this replica may stand: a node that leaves does not, nor one whose clock is astray.
    fn may_lead(&self) -> bool {
        !self.links.is_leaving() && self.standing() != Standing::Astray
    }

    /// As if the leader had offered its place to nobody in particular: this replica no longer
    /// refuses votes on the leader's behalf.
    async fn forget_lease(&self) {
        let (vote, leader) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, metrics.current_leader)
        };
        if let Some(leader) = leader.filter(|leader| *leader != self.replica.0) {
            let request = TransferLeaderRequest::new(vote, leader, None);
            if let Err(error) = self.raft.handle_transfer_leader(request).await {
                tracing::debug!(group = self.id.0, %error, "group has stopped");
            }
        }
    }

    /// 0 for the voter that should lead now, then one more for each.
    fn turn_without(&self, dead: NodeId) -> u64 {
        let (members, configs) = self.members();
        let voters: std::collections::BTreeSet<u64> = configs.into_iter().flatten().collect();
        let mut others: Vec<(NodeId, u64)> = members
            .iter()
            .filter(|(id, peer)| voters.contains(id) && peer.node != dead)
            .map(|(&id, peer)| (peer.node, id))
            .collect();
        others.sort_unstable();
        let first = stand_in(self.id.0, voters.len(), &others);
        let at = |wanted| others.iter().position(|other| Some(other.1) == wanted).unwrap_or(0);
        let (first, own) = (at(first.map(|first| first.1)), at(Some(self.replica.0)));
        let count = others.len().max(1);
        ((own + count - first) % count) as u64
    }
}
