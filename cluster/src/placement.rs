//! The controller: on the leader of meta it compares what meta says with what is, and takes small
//! steps. It keeps nothing between two rounds but a counter and who refused to lead a moment ago, so
//! any leader of meta can go on.
//!
//! ```text
//!  nodes, groups (rows of meta) ──> too few replicas: allocate an id (compare-and-set)
//!                               ──> not confirmed:    create it there, then confirm it
//!                               ──> confirmed, and its node has none: the id is removed for good
//!                               ──> members differ:   ask the group's leader for one step
//!                               ──> leaders crowd:    ask for a few transfers a round
//! ```
//! Only confirmed replicas become members, and a confirmed id is never created again, so no replica
//! that promised or held something comes back empty under its old id. A create names the start of
//! the node that meta knew when the id was seen unconfirmed: it is void after the node's next start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_proto::cluster as wire;
use dtm_types::command::{Admin, GroupRow, NodeRow, admin};
use dtm_types::{GroupId, NodeId};
use tokio::time::Instant;

use crate::convert;
use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::network::answered;
use crate::plan::{Plan, peer_of};
use crate::repeats::Repeats;
use crate::transfers::Transfers;
use crate::type_config::PeerNode;

const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// Between rounds while rows or members change: a cluster takes shape in a second, not in ten.
const QUICK_PAUSE: Duration = Duration::from_millis(100);
/// Quick rounds in a row; then a usual pause, so that a step that never ends costs little.
const QUICK_ROUNDS_MAX: u32 = 30;

/// Steps that fail round after round: of a group, or of one of its replicas.
type Unsettled = BTreeMap<(u32, Option<u64>), Repeats>;

/// Steps that are remembered at most.
const UNSETTLED_MAX: usize = 16_384;

impl ClusterNode {
    /// Runs until the node stops; acts only while this node leads meta.
    pub(crate) async fn control(self: Arc<Self>) {
        let pause = Duration::from_millis(self.config().control_interval_ms);
        let (mut quick, mut transfers) = (0, Transfers::default());
        let (mut rounds, mut unsettled) = (Repeats::default(), Unsettled::new());
        loop {
            tokio::time::sleep(if quick > 0 { pause.min(QUICK_PAUSE) } else { pause }).await;
            // Leaders move in usual rounds only: so many a second.
            transfers.begin_round(quick == 0, Instant::now());
            let changed = match self.control_once(&mut transfers, &mut unsettled).await {
                Ok(changed) => {
                    if let Some(count) = rounds.worked() {
                        tracing::warn!(count, "controller rounds no longer end early");
                    }
                    changed
                }
                Err(error) => {
                    if let Some(count) = rounds.failed(Instant::now()) {
                        tracing::warn!(%error, count, "controller rounds end early");
                    }
                    false
                }
            };
            quick = if changed && quick < QUICK_ROUNDS_MAX { quick + 1 } else { 0 };
        }
    }

    /// Whether rows or members changed.
    async fn control_once(
        &self,
        transfers: &mut Transfers,
        unsettled: &mut Unsettled,
    ) -> Result<bool, Error> {
        let Some(meta) = self.registry().group(GroupId::META).filter(|meta| meta.is_leader())
        else {
            unsettled.clear();
            return Ok(false);
        };
        // A leader that was voted out without knowing it must not act on what it remembers.
        let index = meta.read_index_here(STEP_TIMEOUT).await?;
        if !meta.applied.wait_for(index, STEP_TIMEOUT).await {
            return Err(Error::Timeout(format!("applying meta through {index}")));
        }
        if unsettled.len() > UNSETTLED_MAX {
            unsettled.clear();
        }
        let plan = Plan::read(&*meta.store.freeze())?;
        let survey = self.survey(plan.nodes()).await;
        self.enter_starts(plan.nodes(), &survey).await?;
        let mut changed = false;
        for group in plan.groups() {
            if let Some(next) = plan.next_row(group, self.config().voters_max, &survey) {
                self.write_group(next, group.next_replica_id).await?;
                changed = true;
                continue;
            }
            match self.reconcile_group(&plan, group, transfers, unsettled).await {
                Ok(has_changed) => {
                    changed |= has_changed;
                    unsettled.remove(&(group.group, None));
                }
                Err(error) => {
                    let group = group.group;
                    let failing = unsettled.entry((group, None)).or_default();
                    if let Some(count) = failing.failed(Instant::now()) {
                        tracing::info!(group, %error, count, "group not yet as it should be");
                    }
                }
            }
        }
        Ok(changed)
    }

    async fn write_group(&self, row: GroupRow, expected: u64) -> Result<(), Error> {
        let op = admin::Op::PutGroup(row);
        self.act(Admin { op: Some(op), expected_version: Some(expected), ..Admin::default() }).await
    }

    /// Whether its row or its members changed.
    async fn reconcile_group(
        &self,
        plan: &Plan,
        group: &GroupRow,
        transfers: &mut Transfers,
        unsettled: &mut Unsettled,
    ) -> Result<bool, Error> {
        if self.create_allocated(plan, group, unsettled).await? {
            return Ok(true);
        }
        let voters_max = self.config().voters_max;
        let (voters, learners) = plan.members(group, voters_max);
        let Some(leader) = self.elsewhere().leader_of(GroupId(group.group)) else {
            return Ok(false);
        };
        let links = self.registry().links();
        let cannot_lead = |node| {
            links.presence().is_gone(node)
                || links.clocks().is_astray(node)
                || (node != leader.node && transfers.has_refused(group.group, node))
        };
        let preferred = plan.preferred_leader(group, leader.node, voters_max, cannot_lead);
        let preferred = preferred.filter(|_| transfers.may_ask());
        let target = preferred.and_then(|replica| voters.get(&replica)).map(|peer| peer.node);
        let to_wire = |members: BTreeMap<u64, PeerNode>| {
            let member = |(replica, node): (u64, PeerNode)| wire::Member {
                replica,
                node: Some(convert::node_to_wire(&node)),
            };
            members.into_iter().map(member).collect()
        };
        let request = wire::ReconcileRequest {
            group: group.group,
            voters: to_wire(voters),
            learners: to_wire(learners),
            preferred_leader: preferred.unwrap_or(0),
        };
        let answer = self.ask_reconcile(&leader, request).await;
        if let Some(target) = target {
            // A step of its members that came first counts too: the transfer follows in its own time.
            transfers.answered(group.group, target, answer.is_ok(), Instant::now());
        }
        // Without a transfer it was a step of its members.
        Ok(!answer? && target.is_none())
    }

    /// Creates what is allocated and not confirmed; true when something was, and is confirmed in
    /// meta.
    async fn create_allocated(
        &self,
        plan: &Plan,
        group: &GroupRow,
        unsettled: &mut Unsettled,
    ) -> Result<bool, Error> {
        let mut row = group.clone();
        for replica in row.replicas.iter_mut().filter(|row| !row.removed && !row.confirmed) {
            let node = NodeId::from_slice(&replica.node).unwrap_or_default();
            let Some(known) = plan.nodes().get(&node) else { continue };
            match self.create_replica(group.group, replica.replica, known).await {
                Ok(()) => {
                    replica.confirmed = true;
                    unsettled.remove(&(group.group, Some(replica.replica)));
                }
                Err(error) => {
                    let (group, replica) = (group.group, replica.replica);
                    let failing = unsettled.entry((group, Some(replica))).or_default();
                    if let Some(count) = failing.failed(Instant::now()) {
                        tracing::info!(group, replica, %node, %error, count, "replica not created yet");
                    }
                }
            }
        }
        let changed = row != *group;
        if changed {
            self.write_group(row, group.next_replica_id).await?;
        }
        Ok(changed)
    }

    async fn create_replica(&self, group: u32, replica: u64, row: &NodeRow) -> Result<(), Error> {
        let peer = peer_of(row);
        let peer = peer.ok_or_else(|| Error::Unknown(format!("node {:02x?}", &row.node[..])))?;
        if peer.node == self.config().node.node {
            let replica = dtm_types::ReplicaId(replica);
            let (group, start) = (GroupId(group), row.boot_counter);
            return self.registry().create_allocated(group, replica, start).await;
        }
        let link = self.registry().links().to(peer.node, &peer.peer_address);
        let target = Some(wire::Target { group, replica });
        let boot_counter = row.boot_counter;
        let request = link.guard().stamp(wire::CreateReplicaRequest { target, boot_counter });
        let mut client = link.control();
        let what = || format!("creating replica {replica} of group {group} on node {}", peer.node);
        answered(STEP_TIMEOUT, what, client.create_replica(request)).await?;
        Ok(())
    }

    pub(crate) async fn ask_reconcile(
        &self,
        leader: &PeerNode,
        request: wire::ReconcileRequest,
    ) -> Result<bool, Error> {
        if leader.node == self.config().node.node {
            return self.registry().reconcile(request).await;
        }
        let link = self.registry().links().to(leader.node, &leader.peer_address);
        let group = request.group;
        let what = || format!("a membership step of group {group}, asked of node {}", leader.node);
        let request = link.guard().stamp(request);
        let mut client = link.control();
        Ok(answered(STEP_TIMEOUT, what, client.reconcile(request)).await?.settled)
    }
}
