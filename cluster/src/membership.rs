//! Bringing a group to the members it should have, on its leader: a replica learns, then votes;
//! what left votes no more. One step a call, so that a call never waits long and may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dtm_proto::cluster as wire;
use dtm_types::{NodeId, ReplicaId};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;

use crate::error::Error;
use crate::group::Group;
use crate::network::answered;
use crate::type_config::PeerNode;

/// A learner this close to the leader may vote; a follower this close may lead.
const LAG_ENTRIES_MAX: u64 = 256;
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// A voter that does not answer so soon is no leader for now.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

impl Group {
    /// One step towards these voters and learners; true when nobody else is a member.
    pub(crate) async fn step_to_members(
        &self,
        voters: &BTreeMap<u64, PeerNode>,
        learners: &BTreeMap<u64, PeerNode>,
    ) -> Result<bool, Error> {
        let (members, configs) = self.members();
        let asked: BTreeSet<u64> = voters.keys().copied().collect();
        let all = || voters.iter().chain(learners);
        if let [_, .., agreed] = configs.as_slice() {
            // A change was left half way by an earlier leader: it is finished first, as it was
            // begun. What is asked now may name replicas that are no learners yet.
            self.change(ChangeMembers::ReplaceAllVoters(agreed.clone()), false).await?;
            return Ok(false);
        }
        if let Some((&replica, node)) = all().find(|(id, _)| !members.contains_key(id)) {
            let learning = self.raft.add_learner(replica, node.clone(), false);
            self.within(STEP_TIMEOUT, learning).await?;
            return Ok(false);
        }
        let readdressed: BTreeMap<u64, PeerNode> = all()
            .filter(|(id, node)| members.get(id).is_some_and(|known| known != *node))
            .map(|(&id, node)| (id, node.clone()))
            .collect();
        if !readdressed.is_empty() {
            self.change(ChangeMembers::SetNodes(readdressed), true).await?;
            return Ok(false);
        }
        let current = configs.into_iter().next().unwrap_or_default();
        if current == asked {
            let superfluous: BTreeSet<u64> =
                members.keys().copied().filter(|id| !all().any(|(asked, _)| asked == id)).collect();
            if superfluous.is_empty() {
                return Ok(true);
            }
            self.change(ChangeMembers::RemoveNodes(superfluous), false).await?;
            return Ok(false);
        }
        let lagging = asked.difference(&current).any(|id| !self.is_caught_up(*id));
        if lagging
            || !self.are_whole(asked.difference(&current), voters).await?
            || !self.are_enough(voters).await
        {
            return Ok(false);
        }
        if asked.contains(&self.replica.0) {
            // Who learns from now on stays a member, so that nothing is sent to it twice.
            let goes_on = current.difference(&asked).any(|id| learners.contains_key(id));
            self.change(ChangeMembers::ReplaceAllVoters(asked), goes_on).await?;
        } else if current.is_disjoint(&asked) {
            // Nobody could take over yet: this one votes beside those that are to, then hands over.
            let beside = asked.into_iter().chain([self.replica.0]).collect();
            self.change(ChangeMembers::ReplaceAllVoters(beside), true).await?;
        } else {
            // A leader that takes its own vote away leaves the group to an election timeout.
            let gone = current.difference(&asked).filter_map(|id| members.get(id));
            self.give_up_leadership(&gone.map(|peer| peer.node).collect()).await?;
        }
        Ok(false)
    }

    /// Whether a majority of these answers now and has the log. Voters that cannot commit without the
    /// present ones are not changed to: the change would hold every write up that they can still commit.
    async fn are_enough(&self, voters: &BTreeMap<u64, PeerNode>) -> bool {
        let asked = voters.keys().map(|&id| async move {
            let answers = async || self.ask(ReplicaId(id)).await.is_ok_and(|held| !held.leaving);
            id == self.replica.0 || (self.is_caught_up(id) && answers().await)
        });
        let answers = futures::future::join_all(asked).await;
        let answered = answers.iter().filter(|answered| **answered).count();
        let are_enough = 2 * answered > voters.len();
        if !are_enough {
            let (group, of) = (self.id.0, voters.len());
            tracing::warn!(
                group,
                answered,
                of,
                "voters stay as they are: too few of the new ones answer and have the log"
            );
        }
        are_enough
    }

    /// Whether these replicas hold every bundle that they should: a learner that waits for some
    /// does not count as a holder of records, and so does not vote.
    async fn are_whole(
        &self,
        replicas: impl Iterator<Item = &u64>,
        nodes: &BTreeMap<u64, PeerNode>,
    ) -> Result<bool, Error> {
        for replica in replicas.filter(|&&id| id != self.replica.0) {
            let Some(peer) = nodes.get(replica) else { return Ok(false) };
            let target = Some(wire::Target { group: self.id.0, replica: *replica });
            let link = self.links.to(peer.node, &peer.peer_address);
            let request = link.guard().stamp(wire::HeldRequest { target, through: 0 });
            let mut client = link.control();
            let held = self.within(ANSWER_TIMEOUT, client.held(request)).await?.into_inner();
            if !held.lacking.is_empty() {
                tracing::info!(group = self.id.0, replica, "learner lacks bundles, no voter yet");
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, PeerNode>,
        retain: bool,
    ) -> Result<(), Error> {
        self.within(STEP_TIMEOUT, self.raft.change_membership(change, retain)).await?;
        Ok(())
    }

    async fn within<T, E: std::fmt::Display>(
        &self,
        limit: Duration,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error> {
        let late = |_| Error::Timeout(format!("a membership step of group {}", self.id));
        tokio::time::timeout(limit, step).await.map_err(late)?.map_err(|error| self.failed(error))
    }

    /// Members with their nodes, and the voter sets in force.
    pub(crate) fn members(&self) -> (BTreeMap<u64, PeerNode>, Vec<BTreeSet<u64>>) {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let nodes = membership.nodes().map(|(&id, node)| (id, node.clone())).collect();
        (nodes, membership.get_joint_config().clone())
    }

    /// On the leader: whether a member holds nearly everything and answers.
    pub(crate) fn is_caught_up(&self, replica: u64) -> bool {
        if replica == self.replica.0 {
            return true;
        }
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log.map_or(0, |last| last.index);
        let matched =
            metrics.replication.as_ref().and_then(|all| all.get(&replica).copied().flatten());
        matched.is_some_and(|matched| matched.index + LAG_ENTRIES_MAX >= last)
    }

    /// Hands leadership to a voter and waits until this replica follows somebody. Must lead.
    pub(crate) async fn transfer_to(&self, to: ReplicaId) -> Result<(), Error> {
        if to == self.replica {
            return Ok(());
        }
        if !self.is_caught_up(to.0) {
            return Err(Error::Refused(format!("replica {to} of group {} lags", self.id)));
        }
        self.ask_to_lead(to).await?;
        let trigger = self.raft.trigger();
        trigger.transfer_leader(to.0).await.map_err(|error| self.failed(error))?;
        let mut metrics = self.raft.server_metrics();
        let followed = async {
            loop {
                let leader = metrics.borrow_watched().current_leader;
                if leader.is_some_and(|leader| leader != self.replica.0) {
                    return true;
                }
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
        };
        match tokio::time::timeout(TRANSFER_TIMEOUT, followed).await {
            Ok(true) => Ok(()),
            _ => Err(Error::Timeout(format!("leadership transfer of group {}", self.id))),
        }
    }

    /// What a voter's node says of itself, if it answers soon.
    async fn ask(&self, of: ReplicaId) -> Result<wire::HeldResponse, Error> {
        let (members, _) = self.members();
        let unknown = || Error::Unknown(format!("replica {of} of group {}", self.id));
        let node = members.get(&of.0).ok_or_else(unknown)?;
        let link = self.links.to(node.node, &node.peer_address);
        let target = Some(wire::Target { group: self.id.0, replica: of.0 });
        let request = link.guard().stamp(wire::HeldRequest { target, through: 0 });
        let mut client = link.control();
        let what = || format!("asking replica {of} of group {}", self.id);
        answered(ASK_TIMEOUT, what, client.held(request)).await
    }

    /// Asks before: a leader that hands over takes no more writes, so handing over to a dead or
    /// leaving node would stop the group until an election timeout.
    async fn ask_to_lead(&self, to: ReplicaId) -> Result<(), Error> {
        let held = self.ask(to).await?;
        if held.leaving {
            return Err(self.refuses(to, "its node stops"));
        }
        if held.astray {
            return Err(self.refuses(to, "the clock of its node is astray"));
        }
        Ok(())
    }

    fn refuses(&self, replica: ReplicaId, why: &str) -> Error {
        Error::Refused(format!("replica {replica} of group {}: {why}", self.id))
    }

    /// Hands leadership to any voter that is able to lead, one on an `avoided` node only where no
    /// other takes it; nothing to do where this one follows or votes alone.
    pub(crate) async fn give_up_leadership(&self, avoided: &BTreeSet<NodeId>) -> Result<(), Error> {
        if !self.is_leader() {
            return Ok(());
        }
        let (members, configs) = self.members();
        let is_avoided =
            |voter: &u64| members.get(voter).is_some_and(|peer| avoided.contains(&peer.node));
        let voters: BTreeSet<u64> = configs.into_iter().flatten().collect();
        let (last_resort, first): (Vec<u64>, Vec<u64>) = voters.into_iter().partition(is_avoided);
        let voters = first.into_iter().chain(last_resort);
        let mut last = Ok(());
        for voter in voters.filter(|&id| id != self.replica.0) {
            if !self.is_caught_up(voter) {
                continue;
            }
            last = self.transfer_to(ReplicaId(voter)).await;
            if last.is_ok() {
                return Ok(());
            }
        }
        last
    }
}
