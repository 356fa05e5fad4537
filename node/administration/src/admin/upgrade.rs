//! `UpgradeCluster`: raises the version of every group, each by an entry in its own log, once every
//! node knows it.

use std::collections::BTreeMap;

use dtm_doors::audit::{Actor, propose};
use dtm_doors::status::{internal, status};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_proto::admin::upgrade_obstacle::Reason;
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{NodeRow, RaiseVersion};
use dtm_types::{ErrorCode, GroupId, RequestId};
use tonic::{Request, Status};

use super::AdminDoor;

impl AdminDoor {
    pub(crate) async fn upgrade_cluster(
        &self,
        request: Request<wire::UpgradeClusterRequest>,
    ) -> Result<wire::UpgradeClusterResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::UpgradeCluster, asked.context.as_ref()).await?;
        let shared = &self.0;
        let meta = shared.directory.meta_now(shared.view()).await?;
        let rows = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        let present: Vec<NodeRow> = rows.into_iter().filter(|row| !row.removed).collect();
        let answers = present.iter().map(|row| async {
            row.node == shared.node.0[..] || shared.peers.local_status(row).await.is_some()
        });
        let reachable = futures::future::join_all(answers).await;
        let nodes: Vec<(NodeRow, bool)> = present.into_iter().zip(reachable).collect();
        let groups = reads::groups(meta.state.as_ref()).map_err(internal)?;
        let here: BTreeMap<u32, u32> = shared
            .cluster
            .status()
            .iter()
            .map(|group| (group.group.0, u32::from(group.version)))
            .collect();
        let groups = groups.iter().map(|row| (row.group, here.get(&row.group).copied()));
        let mut plan = plan(&nodes, groups.collect());
        if asked.check || !plan.obstacles.is_empty() {
            return Ok(plan);
        }
        let actor = Actor::of(&asker.caller, asker.address);
        for group in &mut plan.groups {
            while group.version < plan.version {
                let version = group.version + 1;
                let op = Op::RaiseVersion(RaiseVersion { version });
                let id = RequestId(shared.entropy.id16());
                let outcome = propose(shared, GroupId(group.group), id, &actor, op).await?;
                match outcome.result {
                    Some(Answer::Done(_)) => group.version = version,
                    // Raised by another call in between: the next one sees it.
                    Some(Answer::Refusal(refusal)) => {
                        return Err(status(ErrorCode::VersionConflict, refusal.detail));
                    }
                    other => return Err(internal(format!("the group answered {other:?}"))),
                }
                plan.raised += 1;
            }
        }
        tracing::info!(version = plan.version, raised = plan.raised, "groups were raised");
        Ok(plan)
    }
}

/// What is to be done, and what stands against it. `groups`: with the version of each, where this
/// node has it.
fn plan(
    nodes: &[(NodeRow, bool)],
    groups: Vec<(u32, Option<u32>)>,
) -> wire::UpgradeClusterResponse {
    let version = nodes.iter().map(|(row, _)| row.version_max).min().unwrap_or(0);
    let highest = nodes.iter().map(|(row, _)| row.version_max).max().unwrap_or(0);
    let mut obstacles = Vec::new();
    for node in nodes {
        if !node.1 {
            obstacles.push(Reason::Silent(told(node)));
        }
        if node.0.version_max < highest {
            obstacles.push(Reason::Older(told(node)));
        }
    }
    let mut found = Vec::new();
    for (group, at) in groups {
        match at {
            Some(at) => found.push(wire::GroupVersion { group, version: at }),
            None => obstacles.push(Reason::GroupElsewhere(group)),
        }
    }
    wire::UpgradeClusterResponse {
        version,
        groups: found,
        nodes: nodes.iter().map(told).collect(),
        obstacles: obstacles
            .into_iter()
            .map(|reason| wire::UpgradeObstacle { reason: Some(reason) })
            .collect(),
        raised: 0,
    }
}

/// A node as the answer tells it.
fn told((row, reachable): &(NodeRow, bool)) -> wire::NodeVersion {
    wire::NodeVersion {
        node: row.node.clone(),
        name: row.name.clone(),
        software_version: row.software_version.clone(),
        version_max: row.version_max,
        reachable: *reachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, version_max: u32, reachable: bool) -> (NodeRow, bool) {
        (NodeRow { name: name.into(), version_max, ..NodeRow::default() }, reachable)
    }

    #[test]
    fn one_old_or_silent_node_stands_against_it() {
        let groups = || vec![(0, Some(1)), (1, Some(1))];
        let reasons = |plan: &wire::UpgradeClusterResponse| -> Vec<Reason> {
            plan.obstacles.iter().filter_map(|obstacle| obstacle.reason.clone()).collect()
        };
        let fine = plan(&[node("a", 2, true), node("b", 2, true)], groups());
        assert_eq!((fine.version, fine.obstacles.len(), fine.groups.len()), (2, 0, 2));
        let (b1, b2) = (node("b", 1, true), node("b", 2, false));
        let old = plan(&[node("a", 2, true), b1.clone()], groups());
        assert_eq!((old.version, reasons(&old)), (1, vec![Reason::Older(told(&b1))]));
        let silent = plan(&[node("a", 2, true), b2.clone()], groups());
        assert_eq!((silent.version, reasons(&silent)), (2, vec![Reason::Silent(told(&b2))]));
        let elsewhere = plan(&[node("a", 2, true)], vec![(7, None)]);
        assert_eq!(reasons(&elsewhere), [Reason::GroupElsewhere(7)]);
    }
}
