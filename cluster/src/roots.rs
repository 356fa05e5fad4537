//! RAFT-1, live: every second the leader of a group compares its ledger with each follower's at the
//! newest index that both keep. A difference is an alarm that never goes away by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_proto::cluster as wire;

use crate::applied::Head;
use crate::group::Group;
use crate::registry::Registry;
use crate::type_config::PeerNode;

const INTERVAL: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn head_to_wire(head: &Head) -> wire::Head {
    wire::Head {
        index: head.index,
        ledger_size: head.ledger_size,
        ledger_root: Bytes::copy_from_slice(&head.ledger_root),
    }
}

fn head_from_wire(head: &wire::Head) -> Option<Head> {
    let ledger_root = head.ledger_root[..].try_into().ok()?;
    Some(Head { index: head.index, ledger_size: head.ledger_size, ledger_root })
}

/// Runs until it is dropped.
pub(crate) async fn watch(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let groups = registry.groups();
        let led = groups.iter().filter(|group| group.is_leader());
        futures::future::join_all(led.map(compare_all)).await;
    }
}

async fn compare_all(group: &Arc<Group>) {
    let (members, _) = group.members();
    let others = members.iter().filter(|(replica, _)| **replica != group.replica.0);
    futures::future::join_all(others.map(|(&replica, peer)| compare(group, replica, peer))).await;
}

async fn compare(group: &Arc<Group>, replica: u64, peer: &PeerNode) {
    let link = group.links.to(peer.node, &peer.peer_address);
    let targets = vec![wire::Target { group: group.id.0, replica }];
    let request = link.guard().stamp(wire::HeadsRequest { targets });
    let mut client = link.control();
    let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_TIMEOUT, client.heads(request)).await else {
        return;
    };
    let theirs: Vec<Head> = answer
        .into_inner()
        .groups
        .iter()
        .flat_map(|group| group.heads.iter().filter_map(head_from_wire))
        .collect();
    if let Some((own, other)) = newest_difference(&group.applied.heads(), &theirs) {
        let (group_id, node, index) = (group.id.0, peer.node, own.index);
        tracing::error!(group = group_id, %node, replica, index, "RAFT-1: replicas differ");
        metrics::counter!("dtm_raft1_alarms_total", "group" => group_id.to_string()).increment(1);
        group.applied.flag(format!(
            "RAFT-1: at index {index} node {node} has {} leaves, this one {}, roots differ: {}",
            other.ledger_size,
            own.ledger_size,
            own.ledger_root != other.ledger_root
        ));
    } else {
        metrics::counter!("dtm_raft1_compared_total").increment(1);
    }
}

/// The newest index that both kept and at which they differ.
fn newest_difference(ours: &[Head], theirs: &[Head]) -> Option<(Head, Head)> {
    let common = ours.iter().rev().find_map(|own| {
        let other = theirs.iter().find(|other| other.index == own.index)?;
        Some((*own, *other))
    });
    common.filter(|(own, other)| own != other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(index: u64, root: u8) -> Head {
        Head { index, ledger_size: index, ledger_root: [root; 32] }
    }

    // holds: RAFT-1
    #[test]
    fn a_difference_is_found_at_the_newest_common_index() {
        let ours = [head(64, 1), head(128, 2), head(130, 3)];
        assert_eq!(newest_difference(&ours, &[head(64, 1), head(128, 2), head(131, 9)]), None);
        assert_eq!(newest_difference(&ours, &[head(65, 9)]), None, "nothing in common");
        let found = newest_difference(&ours, &[head(64, 1), head(128, 9)]);
        assert_eq!(found, Some((head(128, 2), head(128, 9))));
    }
}
