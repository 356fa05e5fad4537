//! The controller: on the leader of meta it compares what meta says with what is, and takes small
//! steps. What it keeps between two rounds is what it saw with its own eyes (who refused to lead a
//! moment ago, who has been silent since when), so any leader of meta can go on.
//!
//! ```text
//!  nodes, groups (rows of meta) ──> too few replicas: allocate an id (compare-and-set)
//!                               ──> not confirmed:    create it there, then confirm it
//!                               ──> confirmed, and its node has none: the id is removed for good
//!                               ──> members differ:   ask the group's leader for one step
//!                               ──> leaders crowd:    ask for a few transfers a round
//!                               ──> all that is so:   one replica moves: it leaves, another comes
//!                               ──> left its group:   its node forgets it
//! ```
//! Only confirmed replicas become members, and a confirmed id is never created again, so no replica
//! that promised or held something comes back empty under its old id. A create names the start of
//! the node that meta knew when the id was seen unconfirmed: it is void after the node's next start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dtm_placement::{Members, Plan};
use dtm_proto::cluster as wire;
use dtm_types::command::{Admin, GroupRow, admin};
use dtm_types::{GroupId, NodeId};
use tokio::time::Instant;

use crate::convert;
use crate::error::Error;
use crate::lifecycle::ClusterNode;
use crate::repeats::Repeats;
use crate::survey::Survey;
use crate::transfers::Transfers;
use crate::type_config::peer_of;

/// Meta is confirmed and read within that.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Between rounds while rows or members change: a cluster takes shape in a second, not in ten.
const QUICK_PAUSE: Duration = Duration::from_millis(100);
/// Quick rounds in a row; then a usual pause, so that a step that never ends costs little.
const QUICK_ROUNDS_MAX: u32 = 30;

/// Steps that fail round after round: of a group, or of one of its replicas.
type Unsettled = BTreeMap<(u32, Option<u64>), Repeats>;

/// From this version of meta on replicas leave.
const MOVES_FROM: u8 = 2;
/// Steps that are remembered at most.
const UNSETTLED_MAX: usize = 16_384;

/// What a controller saw in earlier rounds.
#[derive(Default)]
struct Seen {
    transfers: Transfers,
    unsettled: Unsettled,
    /// Nodes that did not answer, and since when.
    silent: BTreeMap<NodeId, Instant>,
}

impl Seen {
    /// Takes a survey over; nodes that have been silent for so long.
    fn dead(&mut self, plan: &Plan, survey: &Survey, after: Duration) -> BTreeSet<NodeId> {
        let now = Instant::now();
        self.silent.retain(|node, _| plan.nodes().contains_key(node));
        for &node in plan.nodes().keys() {
            match survey.report(node) {
                Some(_) => drop(self.silent.remove(&node)),
                None => drop(self.silent.entry(node).or_insert(now)),
            }
        }
        let is_dead = |since: &Instant| !after.is_zero() && now.duration_since(*since) >= after;
        self.silent.iter().filter(|(_, since)| is_dead(since)).map(|(node, _)| *node).collect()
    }
}

/// Where a group stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// Its row or its members changed.
    Changed,
    /// As it should be.
    Settled,
    /// Neither: nobody leads it, or a leader moves.
    Waits,
}

impl ClusterNode {
    /// Runs until the node stops; acts only while this node leads meta.
    pub(crate) async fn control(self: Arc<Self>) {
        let pause = Duration::from_millis(self.config().control_interval_ms);
        let (mut quick, mut seen, mut rounds) = (0, Seen::default(), Repeats::default());
        loop {
            tokio::time::sleep(if quick > 0 { pause.min(QUICK_PAUSE) } else { pause }).await;
            // Leaders move in usual rounds only: so many a second.
            seen.transfers.begin_round(quick == 0, Instant::now());
            let changed = match self.control_once(&mut seen).await {
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
    async fn control_once(&self, seen: &mut Seen) -> Result<bool, Error> {
        let Some(meta) = self.registry().group(GroupId::META).filter(|meta| meta.is_leader())
        else {
            // What was seen as an earlier leader may be long past.
            (seen.unsettled, seen.silent) = Default::default();
            return Ok(false);
        };
        // A leader that was voted out without knowing it must not act on what it remembers.
        let index = meta.read_index_here(READ_TIMEOUT).await?;
        if !meta.applied.wait_for(index, READ_TIMEOUT).await {
            return Err(Error::Timeout(format!("applying meta through {index}")));
        }
        if seen.unsettled.len() > UNSETTLED_MAX {
            seen.unsettled.clear();
        }
        let plan = Plan::read(&*meta.store.freeze())?;
        let survey = self.survey(plan.nodes()).await;
        self.enter_starts(plan.nodes(), &survey).await?;
        let voters_max = self.config().voters_max;
        let (homes, mut changed, mut settled) = (plan.homes(voters_max), false, 0);
        for group in plan.groups() {
            if let Some(next) = plan.next_row(group, voters_max, survey.answers()) {
                self.write_group(next, group.next_replica_id).await?;
                changed = true;
                continue;
            }
            let home = homes.get(&group.group).copied();
            match self.reconcile_group(&plan, group, home, seen).await {
                Ok(stands) => {
                    changed |= stands == Stands::Changed;
                    settled += usize::from(stands == Stands::Settled);
                    seen.unsettled.remove(&(group.group, None));
                }
                Err(error) => {
                    let group = group.group;
                    let failing = seen.unsettled.entry((group, None)).or_default();
                    if let Some(count) = failing.failed(Instant::now()) {
                        tracing::info!(group, %error, count, "group not yet as it should be");
                    }
                }
            }
        }
        self.retire_left(&plan, &survey, seen).await;
        let dead = seen.dead(&plan, &survey, Duration::from_millis(self.config().dead_after_ms));
        if settled == plan.groups().len() {
            changed |= self.begin_move(&plan, &survey, &dead).await?;
        }
        Ok(changed)
    }

    /// Lets one replica leave its group, where that is worth it; whether there was one.
    async fn begin_move(
        &self,
        plan: &Plan,
        survey: &Survey,
        dead: &BTreeSet<NodeId>,
    ) -> Result<bool, Error> {
        let meta = self.registry().group(GroupId::META);
        let Some(version) = meta.map(|meta| meta.applied.version()) else { return Ok(false) };
        if version < MOVES_FROM {
            return Ok(false);
        }
        let evens_out = self.config().rebalance;
        let voters_max = self.config().voters_max;
        let Some(row) = plan.next_move(voters_max, survey.answers(), dead, evens_out) else {
            return Ok(false);
        };
        let leaves = row.replicas.iter().find(|replica| replica.leaving && !replica.removed);
        let from = leaves.and_then(|replica| NodeId::from_slice(&replica.node)).unwrap_or_default();
        let is_dead = dead.contains(&from);
        tracing::info!(group = row.group, %from, is_dead, "a replica moves to another node");
        metrics::counter!("dtm_cluster_moves_total").increment(1);
        let expected = row.next_replica_id;
        self.write_group(row, expected).await?;
        Ok(true)
    }

    /// Nodes forget the replicas that left their groups.
    async fn retire_left(&self, plan: &Plan, survey: &Survey, seen: &mut Seen) {
        for (group, replica, node) in plan.retired(survey.answers()) {
            let Some(row) = plan.nodes().get(&node) else { continue };
            if let Err(error) = self.retire_replica(group, replica, row).await {
                let failing = seen.unsettled.entry((group, Some(replica))).or_default();
                if let Some(count) = failing.failed(Instant::now()) {
                    tracing::info!(group, replica, %node, %error, count, "replica not retired yet");
                }
            }
        }
    }

    async fn write_group(&self, row: GroupRow, expected: u64) -> Result<(), Error> {
        let op = admin::Op::PutGroup(row);
        self.act(Admin { op: Some(op), expected_version: Some(expected), ..Admin::default() }).await
    }

    async fn reconcile_group(
        &self,
        plan: &Plan,
        group: &GroupRow,
        home: Option<NodeId>,
        seen: &mut Seen,
    ) -> Result<Stands, Error> {
        if self.create_allocated(plan, group, &mut seen.unsettled).await? {
            return Ok(Stands::Changed);
        }
        let voters_max = self.config().voters_max;
        let Members { voters, learners } = plan.members(group, voters_max);
        let Some(leader) = self.elsewhere().leader_of(GroupId(group.group)) else {
            return Ok(Stands::Waits);
        };
        let (links, transfers) = (self.registry().links(), &mut seen.transfers);
        let cannot_lead = |node| {
            links.presence().is_gone(node)
                || links.clocks().is_astray(node)
                || (node != leader.node && transfers.has_refused(group.group, node))
        };
        let preferred = plan.preferred_leader(group, leader.node, voters_max, home, cannot_lead);
        let preferred = preferred.filter(|_| transfers.may_ask());
        let target = preferred.and_then(|replica| voters.get(&replica)).copied();
        let to_wire = |members: BTreeMap<u64, NodeId>| {
            let member = |(replica, node): (u64, NodeId)| {
                let peer = plan.nodes().get(&node).and_then(peer_of)?;
                Some(wire::Member { replica, node: Some(convert::node_to_wire(&peer)) })
            };
            members.into_iter().filter_map(member).collect()
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
        match (answer?, target) {
            (_, Some(_)) => Ok(Stands::Waits),
            (false, None) => Ok(Stands::Changed),
            (true, None) => match plan.left(group, voters_max) {
                Some(row) => {
                    self.write_group(row, group.next_replica_id).await?;
                    Ok(Stands::Changed)
                }
                None => Ok(Stands::Settled),
            },
        }
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
}
