//! The one node that draws the plan up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::reads;
use dtm_proto::cluster as wire;
use dtm_types::command::admin::Op as Action;
use dtm_types::command::command::Op;
use dtm_types::command::{
    Actor, ActorKind, Admin, ClusterRow, Command, Genesis, GroupRow, LayoutKind, LayoutRow,
    ReplicaRow,
};
use dtm_types::{GroupId, NodeId, chain, format};
use prost::Message;
use tokio::time::Instant;

use super::{ANSWER_WITHIN, PAUSE, Promotion};
use crate::convert;
use crate::error::Error;
use crate::network::answered;
use crate::type_config::{LogId, PeerNode};

/// With a majority of the site's nodes there, the others are waited for this long.
const GRACE: Duration = Duration::from_secs(10);
/// Bringing the replicas of one node to their ends; it is asked again then.
const LEVEL_WITHIN: Duration = Duration::from_secs(600);

/// What each node of the site holds of each group.
type Stands = BTreeMap<NodeId, (PeerNode, Vec<wire::ReplicaStand>)>;
/// The ledger of each group at its end, and the members that hold it.
type Levelled = BTreeMap<GroupId, (wire::Head, BTreeMap<NodeId, PeerNode>)>;

impl Promotion {
    /// Draws the plan up and keeps it. Waits for a majority of the site's nodes.
    pub(super) async fn coordinate(self: Arc<Self>) -> Result<(), Error> {
        let (mut majority_since, mut told) = (None, String::new());
        loop {
            match self.attempt(&mut majority_since).await {
                Ok(plan) => return self.keep_plan(plan).await,
                Err(error) => {
                    let cause = chain(&error);
                    if cause != told {
                        tracing::warn!(
                            life = self.order.next.0,
                            cause,
                            "no plan of the next life yet"
                        );
                        told = cause;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        majority_since: &mut Option<Instant>,
    ) -> Result<wire::PromotionPlan, Error> {
        let nodes = self.nodes()?;
        let stands = self.stands(&nodes).await;
        if stands.len() * 2 <= nodes.len() {
            *majority_since = None;
            let waiting = format!("{} of {} nodes of the site answer", stands.len(), nodes.len());
            return Err(Error::Refused(waiting));
        }
        let since = *majority_since.get_or_insert_with(Instant::now);
        if stands.len() < nodes.len() && since.elapsed() < GRACE {
            let waiting = format!("{} of {} nodes of the site are here", stands.len(), nodes.len());
            return Err(Error::Refused(waiting));
        }
        let ends = ends(&stands)?;
        let levelled = self.level_all(&stands, &ends).await?;
        self.plan(&ends, &levelled)
    }

    /// What the nodes say that they hold; who does not answer is left out.
    async fn stands(&self, nodes: &[PeerNode]) -> Stands {
        let incarnation = self.order.next.0;
        let asked = nodes.iter().map(async |peer| {
            let request = wire::StandRequest { incarnation };
            let answer = if peer.node == self.own.node {
                self.stand(&request).ok()
            } else {
                let link = self.links.to(peer.node, &peer.peer_address);
                let (mut client, request) = (link.control(), link.guard().stamp(request));
                let what = || format!("what {} holds", peer.node);
                answered(ANSWER_WITHIN, what, client.stand(request)).await.ok()
            };
            answer.map(|answer| (peer.node, (peer.clone(), answer.replicas)))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Brings every replica to its end. A node that cannot be is no member of what it lacks.
    async fn level_all(&self, stands: &Stands, ends: &Ends) -> Result<Levelled, Error> {
        let asked = stands.values().map(async |(peer, replicas)| {
            let fit = replicas.iter().filter(|replica| replica.unfit.is_empty());
            let fit: BTreeSet<u32> =
                fit.filter_map(|replica| Some(replica.target.as_ref()?.group)).collect();
            let of_groups = ends.iter().filter(|(group, _)| fit.contains(&group.0));
            let ends = of_groups.map(|(_, end)| end.clone()).collect();
            let request = wire::LevelRequest { incarnation: self.order.next.0, ends };
            let answer = if peer.node == self.own.node {
                self.level(request).await
            } else {
                let link = self.links.to(peer.node, &peer.peer_address);
                let (mut client, request) = (link.control(), link.guard().stamp(request));
                let answer = tokio::time::timeout(LEVEL_WITHIN, client.level(request)).await;
                let late = |_| tonic::Status::deadline_exceeded("no answer in time");
                answer.map_err(late).flatten().map(tonic::Response::into_inner)
            };
            (peer, answer)
        });
        let mut levelled = Levelled::new();
        for (peer, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(answer) => take_heads(&mut levelled, peer, answer.groups)?,
                Err(status) => {
                    let cause = status.message();
                    tracing::warn!(node = %peer.node, cause, "it does not go over now");
                }
            }
        }
        let of_own =
            |(_, members): &(_, BTreeMap<NodeId, PeerNode>)| members.contains_key(&self.own.node);
        if !levelled.get(&GroupId::META).is_some_and(of_own) {
            return Err(Error::Refused("meta is not whole on this node".to_owned()));
        }
        for (group, end) in ends {
            let holders = stands.values().filter(|(_, replicas)| {
                replicas.iter().any(|of| of.target.as_ref().is_some_and(|t| t.group == group.0))
            });
            let (holders, members) =
                (holders.count(), levelled.get(group).map_or(0, |(_, members)| members.len()));
            if members * 2 <= holders {
                let last = end.last.as_ref().map_or(0, |last| last.index);
                return Err(Error::Refused(format!(
                    "group {group}: {members} of {holders} replicas hold everything through {last}"
                )));
            }
        }
        Ok(levelled)
    }

    fn plan(&self, ends: &Ends, levelled: &Levelled) -> Result<wire::PromotionPlan, Error> {
        let survivor = self.survivors.get(&GroupId::META);
        let store = survivor.expect("it was just levelled").store();
        let unread = |error| Error::Refused(format!("meta is not read: {error}"));
        let cluster = reads::cluster(store).map_err(unread)?;
        let cluster = cluster.ok_or_else(|| Error::Refused("meta has no cluster".to_owned()))?;
        let rows = reads::groups(store).map_err(unread)?;
        let previous = self.links.guard().own().0;
        let mut rows: BTreeMap<u32, GroupRow> =
            rows.into_iter().map(|row| (row.group, row)).collect();
        if let Some(group) = rows.keys().find(|group| !levelled.contains_key(&GroupId(**group))) {
            return Err(Error::Refused(format!("no node of the site holds group {group}")));
        }
        let (mut groups, mut actions) = (Vec::new(), Vec::new());
        let layout = reads::layout(store).map_err(unread)?;
        let next = ClusterRow { incarnation: self.order.next.0, ..cluster.clone() };
        actions.push(Action::PutCluster(next));
        for (group, (head, nodes)) in levelled {
            let Some(row) = rows.get_mut(&group.0) else { continue };
            row.replicas.iter_mut().for_each(|replica| replica.removed = true);
            let mut members = Vec::new();
            for (node, peer) in nodes {
                let replica = row.next_replica_id;
                row.next_replica_id += 1;
                let node = Bytes::copy_from_slice(&node.0);
                let of = ReplicaRow { replica, node, confirmed: true, ..ReplicaRow::default() };
                row.replicas.push(of);
                members.push(wire::Member { replica, node: Some(convert::node_to_wire(peer)) });
            }
            actions.push(Action::PutGroup(row.clone()));
            let genesis = self.genesis(*group, &cluster, previous, head);
            groups.push(wire::PlannedGroup {
                group: group.0,
                last: ends.get(group).and_then(|end| end.last),
                leader: members.first().map_or(0, |member| member.replica),
                members,
                commands: vec![self.command(
                    *group,
                    0,
                    Op::Genesis(Genesis { genesis: Some(genesis) }),
                )],
            });
        }
        let meta = groups.iter_mut().find(|planned| GroupId(planned.group).is_meta());
        let meta = meta.ok_or_else(|| Error::Refused("no plan without meta".to_owned()))?;
        let of = |action| Admin { op: Some(action), ..Admin::default() };
        let mut admins: Vec<Admin> = actions.into_iter().map(of).collect();
        admins.extend(self.swapped(layout));
        let numbered = (1..).zip(admins);
        let command = |(at, admin)| self.command(GroupId::META, at, Op::Admin(admin));
        meta.commands.extend(numbered.map(command));
        Ok(wire::PromotionPlan {
            cluster_id: cluster.cluster_id,
            incarnation: self.order.next.0,
            previous,
            site: self.order.site.clone(),
            coordinator: Bytes::copy_from_slice(&self.own.node.0),
            stamp_us: self.order.stamp_us,
            groups,
        })
    }

    /// Primary and standby change places.
    fn swapped(&self, layout: LayoutRow) -> Option<Admin> {
        let expected_version = Some(layout.version);
        let swapped = LayoutRow {
            primary: layout.other.clone(),
            other: layout.primary.clone(),
            incarnation: self.order.next.0,
            ..layout
        };
        let has_standby = swapped.kind() == LayoutKind::Standby;
        let op = Some(Action::PutLayout(swapped));
        has_standby.then(|| Admin { op, expected_version, ..Admin::default() })
    }

    /// The leaf that opens the next life of a group's ledger, and names where the one before ended.
    fn genesis(
        &self,
        group: GroupId,
        cluster: &ClusterRow,
        previous: u64,
        head: &wire::Head,
    ) -> format::Genesis {
        format::Genesis {
            cluster_id: cluster.cluster_id.clone(),
            group: group.0,
            incarnation: self.order.next.0,
            cause: self.order.cause.clone(),
            previous_incarnation: previous,
            previous_size: head.ledger_size,
            previous_root: head.ledger_root.clone(),
        }
    }

    /// Encoded. Its request id is of life, group and place, so that it needs no chance.
    fn command(&self, group: GroupId, at: u32, op: Op) -> Bytes {
        let id = Bytes::copy_from_slice(&self.own.node.0);
        let actor = Actor { kind: ActorKind::Node.into(), id };
        let mut request_id = self.order.next.0.to_be_bytes().to_vec();
        request_id.extend_from_slice(&group.0.to_be_bytes());
        request_id.extend_from_slice(&at.to_be_bytes());
        let command = Command { request_id: request_id.into(), actor: Some(actor), op: Some(op) };
        command.encode_to_vec().into()
    }
}

/// Where each group ends, and who holds all of it.
type Ends = BTreeMap<GroupId, wire::GroupEnd>;

/// The highest last entry of each group among those that are here.
fn ends(stands: &Stands) -> Result<Ends, Error> {
    let mut ends: BTreeMap<GroupId, (LogId, wire::GroupEnd)> = BTreeMap::new();
    let mut unfit = BTreeMap::new();
    for (peer, replicas) in stands.values() {
        for replica in replicas {
            let Some(target) = &replica.target else { continue };
            let group = GroupId(target.group);
            if !replica.unfit.is_empty() {
                unfit.insert(group, format!("node {}: {}", peer.node, replica.unfit));
                continue;
            }
            let Some(last) = replica.last.map(convert::log_id_from_wire) else { continue };
            if ends.get(&group).is_none_or(|(known, _)| *known < last) {
                let node = Some(convert::node_to_wire(peer));
                let source = Some(wire::Member { replica: target.replica, node });
                let end = wire::GroupEnd { group: group.0, last: replica.last, source };
                ends.insert(group, (last, end));
            }
        }
    }
    match unfit.into_iter().find(|(group, _)| !ends.contains_key(group)) {
        Some((group, cause)) => Err(Error::Refused(format!("group {group}: {cause}"))),
        None => Ok(ends.into_iter().map(|(group, (_, end))| (group, end)).collect()),
    }
}

/// A node holds these groups to their ends. RAFT-1: the same entries make the same ledger.
fn take_heads(
    levelled: &mut Levelled,
    peer: &PeerNode,
    groups: Vec<wire::GroupHeads>,
) -> Result<(), Error> {
    for of in groups {
        let Some((target, head)) = of.target.zip(of.heads.into_iter().next()) else { continue };
        let group = GroupId(target.group);
        let (known, members) =
            levelled.entry(group).or_insert_with(|| (head.clone(), BTreeMap::new()));
        let same = (known.index, known.ledger_size, &known.ledger_root)
            == (head.index, head.ledger_size, &head.ledger_root);
        if !same {
            metrics::counter!("dtm_raft1_alarms_total", "group" => group.to_string()).increment(1);
            return Err(Error::Refused(format!(
                "RAFT-1: group {group} has another ledger on node {} at entry {}",
                peer.node, head.index
            )));
        }
        members.insert(peer.node, peer.clone());
    }
    Ok(())
}
