//! What this node knows of a peer that asks, before that peer's groups run or while they do.

use std::time::Duration;

use dtm_peers::OriginGuard;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};

use super::matched::WentBack;
use crate::registry::Registry;

/// How long leading meta is confirmed for an answer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// The answer to a peer's hello.
pub(super) async fn answer(
    registry: &Registry,
    guard: &OriginGuard,
    node: NodeId,
    asked: wire::HelloRequest,
) -> wire::HelloResponse {
    let went_back = went_back(registry, node, &asked).map(|found| wire::WentBack {
        target: Some(wire::Target { group: found.group, replica: found.replica }),
        through: found.through,
    });
    let (boot_counter, removed) = guard.roster().of(node);
    let leads_meta = match registry.group(GroupId::META) {
        Some(meta) if meta.is_leader() => meta.read_index_here(CONFIRM_TIMEOUT).await.is_ok(),
        _ => false,
    };
    let still_member = registry.groups().iter().any(|group| group.names(node));
    wire::HelloResponse { boot_counter, removed, leads_meta, still_member, went_back }
}

fn went_back(registry: &Registry, node: NodeId, asked: &wire::HelloRequest) -> Option<WentBack> {
    let matched = registry.links().matched();
    if asked.running { matched.found(node) } else { matched.compare(&asked.replicas) }
}
