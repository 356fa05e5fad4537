//! Waits on what the cluster says about itself: complete, settled, of one mind.

use std::time::Duration;

use anyhow::{Result, bail};
use dtm_client::admin::Admin;
use dtm_proto::admin::{ClusterStatusRequest, ClusterStatusResponse, GroupStatus};

use crate::clock;
use crate::cluster::{Cluster, NODES};
use crate::say::Say;

/// Pause between two looks.
const EVERY: Duration = Duration::from_millis(300);
/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for a state.
const WITHIN: Duration = Duration::from_secs(120);

/// One look.
///
/// # Errors
/// What the nodes said, or that none answered in time.
pub(crate) async fn look(admin: &Admin) -> Result<ClusterStatusResponse> {
    let call = admin
        .call(|mut client| async move { client.cluster_status(ClusterStatusRequest {}).await });
    Ok(tokio::time::timeout(ANSWER_WITHIN, call).await??)
}

/// Waits until `missing` finds nothing missing any more.
///
/// # Errors
/// What is missing after two minutes; a node that ended meanwhile.
async fn wait(
    cluster: &mut Cluster,
    say: Say,
    missing: impl Fn(&ClusterStatusResponse) -> Option<String>,
) -> Result<ClusterStatusResponse> {
    let until = clock::now() + WITHIN;
    let admin = cluster.admin()?;
    loop {
        cluster.check()?;
        let what = match look(&admin).await {
            Ok(status) => match missing(&status) {
                None => return Ok(status),
                Some(what) => what,
            },
            Err(error) => format!("{error:#}"),
        };
        if clock::now() >= until {
            let seconds = WITHIN.as_secs().to_string();
            bail!(say.text("waited", &[("seconds", &seconds), ("what", &what)]));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Waits until a node answers at all.
///
/// # Errors
/// As above.
pub(crate) async fn answering(cluster: &mut Cluster, say: Say) -> Result<()> {
    wait(cluster, say, |status| {
        let ready = status.meta_current && status.groups.iter().all(|g| !g.leader_node.is_empty());
        (!ready).then(|| "leaders".to_owned())
    })
    .await?;
    Ok(())
}

/// Waits until all nodes are there and every group has a leader and three healthy voters.
///
/// # Errors
/// As above.
pub(crate) async fn complete(cluster: &mut Cluster, say: Say) -> Result<ClusterStatusResponse> {
    wait(cluster, say, incomplete).await
}

fn incomplete(status: &ClusterStatusResponse) -> Option<String> {
    let reachable =
        status.nodes.iter().filter(|n| n.reachable && n.stopped_reason.is_empty()).count();
    if reachable < NODES {
        return Some(format!("{reachable}/{NODES} nodes"));
    }
    let lacking = status.groups.iter().find(|group| {
        let healthy = group.replicas.iter().filter(|r| r.voter && r.health == "healthy").count();
        group.leader_node.is_empty() || healthy < NODES
    });
    if let Some(group) = lacking {
        let replicas = group.replicas.iter();
        let shown: Vec<_> =
            replicas.map(|r| format!("{}{}", r.health, if r.voter { "" } else { "*" })).collect();
        return Some(format!("group {}: {}", group.group, shown.join(" ")));
    }
    status.groups.is_empty().then(|| "groups".to_owned())
}

/// Index of the node that leads most groups.
pub(crate) fn busiest(status: &ClusterStatusResponse, cluster: &Cluster) -> (usize, u32) {
    let led = |name: &str| {
        let named =
            status.nodes.iter().find(|n| n.node.as_ref().is_some_and(|row| row.name == name));
        named.map_or(0, |n| n.groups_led)
    };
    let nodes = cluster.nodes.iter().enumerate().filter(|(_, node)| node.is_running());
    let counted = nodes.map(|(at, node)| (at, led(&node.name)));
    counted.max_by_key(|(at, led)| (*led, NODES - at)).unwrap_or((0, 0))
}

/// What was found out about the ledgers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    /// Groups whose replicas all have the same root at the same size.
    pub(crate) agree: usize,
    /// Groups in which two roots differ at one size.
    pub(crate) differ: Vec<u32>,
    /// Groups whose replicas were never seen at one size.
    pub(crate) open: Vec<u32>,
}

impl Roots {
    /// Every group was compared and agrees.
    pub(crate) fn all_agree(&self) -> bool {
        self.agree > 0 && self.differ.is_empty() && self.open.is_empty()
    }
}

/// Compares the ledger roots of all replicas at equal size, group by group.
///
/// # Errors
/// What the nodes said last where none answered within two minutes.
pub(crate) async fn compare_roots(admin: &Admin) -> Result<Roots> {
    let until = clock::now() + WITHIN;
    let mut settled = std::collections::BTreeMap::new();
    loop {
        let status = look(admin).await;
        let late = clock::now() >= until;
        match status {
            Ok(status) => {
                for group in &status.groups {
                    let verdict = settled.entry(group.group).or_insert(None);
                    // A difference once seen stays one.
                    if *verdict != Some(false) {
                        *verdict = verdict_of(group).or(*verdict);
                    }
                }
                if late || (!settled.is_empty() && settled.values().all(Option::is_some)) {
                    break;
                }
            }
            Err(error) if late => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(EVERY).await;
    }
    let of =
        |wanted: Option<bool>| settled.iter().filter(move |(_, v)| **v == wanted).map(|(g, _)| *g);
    Ok(Roots {
        agree: of(Some(true)).count(),
        differ: of(Some(false)).collect(),
        open: of(None).collect(),
    })
}

/// Whether the replicas of a group agree; none = they are not all at one size.
fn verdict_of(group: &GroupStatus) -> Option<bool> {
    let replicas = &group.replicas;
    let differ = replicas.iter().enumerate().any(|(at, a)| {
        let known = |r: &dtm_proto::admin::ReplicaStatus| !r.ledger_root.is_empty();
        replicas[..at].iter().any(|b| {
            known(a) && known(b) && a.ledger_size == b.ledger_size && a.ledger_root != b.ledger_root
        })
    });
    if differ {
        return Some(false);
    }
    let first = replicas.first()?;
    let level = replicas.len() >= NODES
        && replicas
            .iter()
            .all(|r| r.ledger_size == first.ledger_size && r.ledger_root == first.ledger_root)
        && !first.ledger_root.is_empty();
    level.then_some(true)
}

#[cfg(test)]
mod tests {
    use dtm_proto::admin::ReplicaStatus;

    use super::*;

    fn group(replicas: &[(u64, u8)]) -> GroupStatus {
        let replicas = replicas.iter().map(|(size, root)| ReplicaStatus {
            ledger_size: *size,
            ledger_root: vec![*root; 32].into(),
            voter: true,
            health: "healthy".into(),
            ..ReplicaStatus::default()
        });
        GroupStatus {
            replicas: replicas.collect(),
            leader_node: vec![1; 16].into(),
            ..GroupStatus::default()
        }
    }

    #[test]
    fn roots_are_compared_at_one_size_only() {
        assert_eq!(verdict_of(&group(&[(5, 1), (5, 1), (5, 1)])), Some(true));
        assert_eq!(verdict_of(&group(&[(5, 1), (4, 2), (5, 1)])), None);
        assert_eq!(verdict_of(&group(&[(5, 1), (4, 2), (5, 3)])), Some(false));
        assert_eq!(verdict_of(&group(&[(5, 1), (5, 1)])), None, "a replica is missing");
        assert_eq!(verdict_of(&group(&[])), None);
    }

    #[test]
    fn a_cluster_without_its_third_voter_is_incomplete() {
        let node = dtm_proto::admin::NodeStatus { reachable: true, ..Default::default() };
        let mut status = ClusterStatusResponse {
            nodes: vec![node; 3],
            groups: vec![group(&[(1, 1), (1, 1), (1, 1)])],
            ..ClusterStatusResponse::default()
        };
        assert_eq!(incomplete(&status), None);
        status.groups[0].replicas[2].health = "recovering".into();
        assert!(incomplete(&status).is_some());
        status.nodes[1].reachable = false;
        assert!(incomplete(&status).is_some_and(|what| what.starts_with("2/3")));
    }
}
