//! What the nodes say of themselves, asked by the controller each round and before a node is removed:
//! the start they run under, the versions they know, the replicas that their logs hold, the groups
//! that they lead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dtm_placement::Answers;
use dtm_proto::cluster as wire;
use dtm_types::command::{Admin, BootNode, NodeRow, admin};
use dtm_types::{GroupId, NodeId};

use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::type_config::peer_of;

/// A node that hangs holds a round up for no longer.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// Meta at this version takes the address for other sites from a start.
const STARTS_TELL_ADDRESSES: u8 = 2;

/// The answers of one round; who did not answer is not in it.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    reports: BTreeMap<NodeId, wire::ReportResponse>,
    answers: Answers,
}

impl Survey {
    fn of(reports: BTreeMap<NodeId, wire::ReportResponse>) -> Self {
        let mut answers = Answers::default();
        for (node, report) in &reports {
            let held = report.held.iter().map(|target| (target.group, target.replica));
            answers.enter(*node, held.collect::<BTreeSet<_>>());
        }
        Self { reports, answers }
    }

    /// What the nodes said of their replicas.
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// What a node said.
    pub(crate) fn report(&self, node: NodeId) -> Option<&wire::ReportResponse> {
        self.reports.get(&node)
    }

    /// Whether the node runs the replica, and so may vote in its group.
    pub(crate) fn runs(&self, node: NodeId, group: u32, replica: u64) -> bool {
        let has_stopped = |report: &wire::ReportResponse| {
            report.stopped.iter().any(|stopped| stopped.group == group)
        };
        self.answers.holds(node, group, replica) == Some(true)
            && self.reports.get(&node).is_some_and(|report| !has_stopped(report))
    }

    /// What the leader of a group says of it; of several who take themselves for it, the latest.
    pub(crate) fn led(&self, group: u32) -> Option<&wire::LedGroup> {
        let led = self.reports.values().flat_map(|report| &report.led);
        led.filter(|led| led.group == group).max_by_key(|led| led.term)
    }

    #[cfg(test)]
    pub(crate) fn of_held(nodes: &[(NodeId, &[(u32, u64)])]) -> Self {
        let target = |&(group, replica): &(u32, u64)| wire::Target { group, replica };
        let report = |held: &[(u32, u64)]| wire::ReportResponse {
            held: held.iter().map(target).collect(),
            ..wire::ReportResponse::default()
        };
        Self::of(nodes.iter().map(|(node, held)| (*node, report(held))).collect())
    }
}

impl ClusterNode {
    /// Asks these nodes at once.
    pub(crate) async fn survey(&self, nodes: &BTreeMap<NodeId, NodeRow>) -> Survey {
        let asked = nodes.values().map(|row| self.report_of(row));
        let reports = futures::future::join_all(asked).await;
        Survey::of(reports.into_iter().flatten().collect())
    }

    async fn report_of(&self, row: &NodeRow) -> Option<(NodeId, wire::ReportResponse)> {
        let peer = peer_of(row)?;
        if peer.node == self.config().node.node {
            return Some((peer.node, self.registry().report().ok()?));
        }
        let link = self.registry().links().to(peer.node, &peer.peer_address);
        let request = link.guard().stamp(wire::ReportRequest {});
        let mut client = link.control();
        let answer = tokio::time::timeout(REPORT_TIMEOUT, client.report(request)).await.ok()?;
        Some((peer.node, answer.ok()?.into_inner()))
    }

    /// Enters each start of a node that meta does not know yet: from then on an older one is an old
    /// copy wherever meta is.
    pub(crate) async fn enter_starts(
        &self,
        nodes: &BTreeMap<NodeId, NodeRow>,
        survey: &Survey,
    ) -> Result<(), Error> {
        let meta = self.registry().group(GroupId::META);
        let tells_addresses =
            meta.is_some_and(|meta| meta.applied.version() >= STARTS_TELL_ADDRESSES);
        for (&node, row) in nodes {
            let Some(report) = survey.report(node) else { continue };
            if report.boot_counter <= row.boot_counter {
                continue;
            }
            let op = admin::Op::BootNode(BootNode {
                node: Bytes::copy_from_slice(&node.0),
                boot_counter: report.boot_counter,
                software_version: report.software_version.clone(),
                version_max: report.version_max,
                sites_address: if tells_addresses {
                    report.sites_address.clone()
                } else {
                    String::new()
                },
            });
            self.act(Admin { op: Some(op), ..Admin::default() }).await?;
        }
        Ok(())
    }
}
