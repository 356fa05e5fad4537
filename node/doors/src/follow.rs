//! Sessions follow the leader of their group: served elsewhere each of their bundles takes a detour
//! over another node's CPU. Also: how long an open waits for a leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::{LeaderHint, ReadView};
use dtm_types::{GroupId, NodeId};

use super::shared::Shared;

/// How often the leaders are looked at. A leader that was seen twice is taken to stay.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Sessions of a group that move do so over this long.
const MOVE_OVER: Duration = Duration::from_millis(1_500);
/// An election that goes well takes a part of this; a longer one is the client's to wait out.
const LEADER_WITHIN: Duration = Duration::from_secs(1);
const LEADER_PAUSE: Duration = Duration::from_millis(10);

/// Tells sessions where their group's leader is now. Runs as long as the node.
pub async fn follow_leaders(shared: Arc<Shared>) {
    let mut seen: BTreeMap<GroupId, NodeId> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for group in shared.cluster.ingest_groups() {
            let Some(leader) = shared.cluster.leader(group) else {
                seen.remove(&group);
                continue;
            };
            if seen.insert(group, leader.node) != Some(leader.node) {
                continue;
            }
            if leader.is_self {
                shared.sources.stay(group);
                continue;
            }
            let told = shared.sources.follow(group, &leader.address, MOVE_OVER);
            if told > 0 {
                metrics::counter!("dtm_sessions_moved_total").increment(told as u64);
                tracing::info!(group = group.0, leader = %leader.address, told, "sessions follow");
            }
        }
    }
}

impl Shared {
    /// Who leads a group, after a short wait where nobody does.
    pub async fn leader_soon(&self, group: GroupId) -> Option<LeaderHint> {
        let deadline = tokio::time::Instant::now() + LEADER_WITHIN;
        loop {
            let leader = self.cluster.leader(group);
            if leader.is_some() || tokio::time::Instant::now() >= deadline {
                return leader;
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    /// Where clients reach the leader of a group, where that is another node.
    pub fn leader_elsewhere(&self, group: GroupId) -> Option<String> {
        self.cluster.leader(group).filter(|leader| !leader.is_self).map(|leader| leader.address)
    }
}
