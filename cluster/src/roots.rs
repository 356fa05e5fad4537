//! RAFT-1, live: every second the leader of a group compares its ledger with each follower's at the
//! newest index that both keep. A difference is an alarm that never goes away by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_proto::cluster as wire;
use dtm_types::NodeId;

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
        group_time_us: head.group_time_us,
    }
}

pub(crate) fn head_from_wire(head: &wire::Head) -> Option<Head> {
    let ledger_root = head.ledger_root[..].try_into().ok()?;
    let (index, ledger_size) = (head.index, head.ledger_size);
    Some(Head { index, ledger_size, ledger_root, group_time_us: head.group_time_us })
}

/// Runs until it is dropped.
pub(crate) async fn watch(registry: Arc<Registry>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let led = registry.groups().into_iter().filter(|group| group.is_leader());
        let asked = questions(led).into_values();
        futures::future::join_all(asked.map(|question| compare_all(&registry, question))).await;
    }
}

/// What one node is asked: its replicas of the groups that are led here.
struct Question {
    peer: PeerNode,
    replicas: Vec<(Arc<Group>, u64)>,
}

fn questions(led: impl Iterator<Item = Arc<Group>>) -> BTreeMap<NodeId, Question> {
    let mut questions = BTreeMap::new();
    for group in led {
        let (members, _) = group.members();
        for (replica, peer) in members.into_iter().filter(|(id, _)| *id != group.replica.0) {
            let question = questions.entry(peer.node);
            let question = question.or_insert_with(|| Question { peer, replicas: Vec::new() });
            question.replicas.push((Arc::clone(&group), replica));
        }
    }
    questions
}

async fn compare_all(registry: &Registry, Question { peer, replicas }: Question) {
    let target = |group: &Group, replica| wire::Target { group: group.id.0, replica };
    let targets = replicas.iter().map(|(group, replica)| target(group, *replica)).collect();
    let link = registry.links().to(peer.node, &peer.peer_address);
    let request = link.guard().stamp(wire::HeadsRequest { targets, newest_only: false });
    let mut client = link.control();
    let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_TIMEOUT, client.heads(request)).await else {
        return;
    };
    let answered = answer.into_inner().groups;
    for (group, replica) in &replicas {
        let target = Some(target(group, *replica));
        let theirs = answered.iter().filter(|answer| answer.target == target);
        let theirs: Vec<Head> =
            theirs.flat_map(|answer| answer.heads.iter().filter_map(head_from_wire)).collect();
        compare(group, *replica, &peer, &theirs);
    }
}

fn compare(group: &Group, replica: u64, peer: &PeerNode, theirs: &[Head]) {
    if let Some((own, other)) = newest_difference(&group.applied.heads(), theirs) {
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
    // A peer of a release before does not say the time.
    common.filter(|(own, other)| {
        (own.ledger_size, own.ledger_root) != (other.ledger_size, other.ledger_root)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(index: u64, root: u8) -> Head {
        Head { index, ledger_size: index, ledger_root: [root; 32], group_time_us: 0 }
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
