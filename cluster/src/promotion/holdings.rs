//! What the nodes of the site hold, weighed against the replicas that meta's rows give them. Pure.
//!
//! ```text
//!  of each group   due     replicas of the site by meta's rows
//!                  here    those of them that answer, and can go over     a majority of what is due
//!                  end     the highest last entry among them
//!                  whole   those of them that hold everything through it  a majority of what is due
//!                  every entry is held by one of the whole ones at least
//! ```

use std::collections::{BTreeMap, BTreeSet};

use dtm_proto::cluster as wire;
use dtm_types::command::GroupRow;
use dtm_types::{GroupId, NodeId};

use crate::convert;
use crate::error::Error;
use crate::type_config::{LogId, PeerNode};

/// What each node of the site holds of each group.
pub(super) type Stands = BTreeMap<NodeId, (PeerNode, Vec<wire::ReplicaStand>)>;
/// Where each group ends, and who holds all of it.
pub(super) type Ends = BTreeMap<GroupId, wire::GroupEnd>;

/// What nodes answered, but for those that live in another life than `own`, which are named: what they
/// hold is of another history.
pub(super) fn of_life(
    answers: Vec<(PeerNode, wire::StandResponse)>,
    own: u64,
) -> (Stands, Vec<(NodeId, u64)>) {
    let (ours, strangers): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(_, answer)| answer.life == own);
    let stand =
        |(peer, answer): (PeerNode, wire::StandResponse)| (peer.node, (peer, answer.replicas));
    let strangers = strangers.into_iter().map(|(peer, answer)| (peer.node, answer.life));
    (ours.into_iter().map(stand).collect(), strangers.collect())
}

/// A replica, and where it is.
type Seat = (NodeId, u64);

/// The replicas of each group that meta's rows give to nodes of the site.
#[derive(Debug)]
pub(super) struct Due {
    /// Of which a majority is needed: they are members, and stay.
    counted: BTreeMap<GroupId, BTreeSet<Seat>>,
    /// These are of the group too.
    known: BTreeMap<GroupId, BTreeSet<Seat>>,
}

impl Due {
    /// # Errors
    /// [`Error::Refused`] where the site has no replica of a group: nothing of it would go over.
    pub(super) fn read(site: &str, rows: &[GroupRow], nodes: &[PeerNode]) -> Result<Self, Error> {
        let nodes: BTreeSet<NodeId> = nodes.iter().map(|peer| peer.node).collect();
        let (mut counted, mut known) = (BTreeMap::new(), BTreeMap::new());
        for row in rows {
            let here = row.replicas.iter().filter(|replica| !replica.removed);
            let here = here.filter_map(|replica| {
                let node = NodeId::from_slice(&replica.node).filter(|node| nodes.contains(node))?;
                let stays = replica.confirmed && !replica.leaving;
                Some(((node, replica.replica), stays))
            });
            let here: BTreeMap<Seat, bool> = here.collect();
            let all: BTreeSet<Seat> = here.keys().copied().collect();
            let stay: BTreeSet<Seat> =
                here.iter().filter(|(_, stays)| **stays).map(|(seat, _)| *seat).collect();
            let group = GroupId(row.group);
            counted.insert(group, if stay.is_empty() { all.clone() } else { stay });
            known.insert(group, all);
        }
        let elsewhere = known.iter().filter(|(_, seats)| seats.is_empty());
        let elsewhere: Vec<String> = elsewhere.map(|(group, _)| group.to_string()).collect();
        if elsewhere.is_empty() {
            return Ok(Self { counted, known });
        }
        Err(Error::Refused(format!(
            "site {site} was never given a replica of groups {}: what they hold is at other sites only, \
             and this site cannot go on without them",
            elsewhere.join(", ")
        )))
    }

    /// Whether meta's rows give this replica of a group to this node.
    pub(super) fn knows(&self, node: NodeId, target: &wire::Target) -> bool {
        let seats = self.known.get(&GroupId(target.group));
        seats.is_some_and(|seats| seats.contains(&(node, target.replica)))
    }

    /// Refuses where too few of a group's replicas answer and can go over.
    pub(super) fn are_here(&self, stands: &Stands) -> Result<(), Error> {
        for (group, counted) in &self.counted {
            let (mut here, mut unfit) = (0, Vec::new());
            for (node, replica) in counted {
                match stand_of(stands, *node, *group, Some(*replica)) {
                    Some(stand) if stand.unfit.is_empty() => here += 1,
                    Some(stand) => unfit.push(format!("node {node}: {}", stand.unfit)),
                    None => unfit.push(format!("node {node} does not show replica {replica}")),
                }
            }
            if here * 2 <= counted.len() {
                return Err(Error::Refused(format!(
                    "group {group}: {here} of {} replicas of the site can go over; {}",
                    counted.len(),
                    unfit.join("; ")
                )));
            }
        }
        Ok(())
    }

    /// Refuses where too few of a group's replicas hold everything, or all of them lack the same.
    pub(super) fn are_whole(&self, stands: &Stands, levelled: &Levelled) -> Result<(), Error> {
        for (group, counted) in &self.counted {
            let members = levelled.members(*group);
            let holding = counted.iter().filter(|(node, _)| members.contains(node)).count();
            if holding * 2 <= counted.len() {
                return Err(Error::Refused(format!(
                    "group {group}: {holding} of {} replicas of the site hold everything; {}",
                    counted.len(),
                    levelled.causes(*group)
                )));
            }
            let mut absent = members.iter().map(|node| {
                let stand = stand_of(stands, *node, *group, None);
                stand.map(|stand| stand.absent.clone()).unwrap_or_default()
            });
            let first = absent.next().unwrap_or_default();
            if let Some(range) = absent.fold(first, |all, more| both(&all, &more)).first() {
                return Err(Error::Refused(format!(
                    "group {group}: entries {} to {} are on no node of the site that is here: wait for \
                     one that holds them",
                    range.from, range.to
                )));
            }
        }
        Ok(())
    }
}

fn stand_of(
    stands: &Stands,
    node: NodeId,
    group: GroupId,
    replica: Option<u64>,
) -> Option<&wire::ReplicaStand> {
    let (_, of_node) = stands.get(&node)?;
    of_node.iter().find(|stand| {
        let target = stand.target.as_ref();
        target.is_some_and(|t| t.group == group.0 && replica.is_none_or(|id| t.replica == id))
    })
}

/// What is in both lists of ranges.
fn both(one: &[wire::IndexRange], other: &[wire::IndexRange]) -> Vec<wire::IndexRange> {
    let common = |one: &wire::IndexRange, other: &wire::IndexRange| {
        let (from, to) = (one.from.max(other.from), one.to.min(other.to));
        (from <= to).then_some(wire::IndexRange { from, to })
    };
    one.iter().flat_map(|one| other.iter().filter_map(move |other| common(one, other))).collect()
}

/// Its last entry, whether it is whole, and who it is.
type Holder = ((LogId, bool), wire::Member);

/// Where groups end: at the highest last entry among the replicas that count. Of several that hold it
/// one that is whole is the source.
pub(super) fn ends(stands: &Stands, counts: impl Fn(NodeId, &wire::Target) -> bool) -> Ends {
    let mut holders: BTreeMap<GroupId, Vec<Holder>> = BTreeMap::new();
    for (peer, replicas) in stands.values() {
        for replica in replicas.iter().filter(|replica| replica.unfit.is_empty()) {
            let target = replica.target.filter(|target| counts(peer.node, target));
            let Some((target, last)) = target.zip(replica.last) else { continue };
            let node = Some(convert::node_to_wire(peer));
            let member = wire::Member { replica: target.replica, node };
            let worth = (convert::log_id_from_wire(last), !replica.damaged);
            holders.entry(GroupId(target.group)).or_default().push((worth, member));
        }
    }
    let end = |(group, mut holders): (GroupId, Vec<Holder>)| {
        holders.sort_by(|(one, _), (other, _)| other.cmp(one));
        let mut holders = holders.into_iter();
        let ((last, _), source) = holders.next()?;
        let (last, source) = (Some(convert::log_id_to_wire(&last)), Some(source));
        let others = holders.map(|(_, member)| member).collect();
        Some((group, wire::GroupEnd { group: group.0, last, source, others }))
    };
    holders.into_iter().filter_map(end).collect()
}

/// Whether the source of a group's end is to be mended before others fetch from it.
pub(super) fn is_damaged(stands: &Stands, end: &wire::GroupEnd) -> bool {
    let source = end.source.as_ref().and_then(|source| {
        let node = NodeId::from_slice(&source.node.as_ref()?.node)?;
        stand_of(stands, node, GroupId(end.group), Some(source.replica))
    });
    source.is_some_and(|stand| stand.damaged)
}

/// The ledger of each group at its end, and the members that hold it.
#[derive(Debug, Default)]
pub(super) struct Levelled {
    heads: BTreeMap<GroupId, (wire::Head, BTreeMap<NodeId, PeerNode>)>,
    /// Why others do not.
    causes: BTreeMap<GroupId, Vec<String>>,
}

impl Levelled {
    /// What a node answered of groups. RAFT-1: the same entries make the same ledger.
    ///
    /// # Errors
    /// [`Error::Refused`] where they do not.
    pub(super) fn take(
        &mut self,
        peer: &PeerNode,
        groups: Vec<wire::GroupHeads>,
    ) -> Result<(), Error> {
        for of in groups {
            let Some(target) = of.target else { continue };
            let group = GroupId(target.group);
            let Some(head) = of.heads.into_iter().next() else {
                self.refused(peer, group, &of.cause);
                continue;
            };
            let new = || (head.clone(), BTreeMap::new());
            let (known, members) = self.heads.entry(group).or_insert_with(new);
            let same = (known.index, known.ledger_size, &known.ledger_root)
                == (head.index, head.ledger_size, &head.ledger_root);
            if !same {
                metrics::counter!("dtm_raft1_alarms_total", "group" => group.to_string())
                    .increment(1);
                return Err(Error::Refused(format!(
                    "RAFT-1: group {group} has another ledger on node {} at entry {}",
                    peer.node, head.index
                )));
            }
            members.insert(peer.node, peer.clone());
        }
        Ok(())
    }

    /// A node does not go over with this group.
    pub(super) fn refused(&mut self, peer: &PeerNode, group: GroupId, cause: &str) {
        self.causes.entry(group).or_default().push(format!("node {}: {cause}", peer.node));
    }

    /// Who stays behind.
    pub(super) fn tell(&self) {
        for (group, causes) in &self.causes {
            tracing::warn!(%group, causes = causes.join("; "), "not every replica goes over");
        }
    }

    /// What was levelled later.
    pub(super) fn extend(&mut self, more: Self) {
        self.heads.extend(more.heads);
        self.causes.extend(more.causes);
    }

    /// Nodes that hold a group to its end.
    pub(super) fn members(&self, group: GroupId) -> BTreeSet<NodeId> {
        let members = self.heads.get(&group).map(|(_, members)| members.keys().copied().collect());
        members.unwrap_or_default()
    }

    /// Every group, with its ledger and its members.
    pub(super) fn groups(
        &self,
    ) -> impl Iterator<Item = (GroupId, &wire::Head, &BTreeMap<NodeId, PeerNode>)> {
        self.heads.iter().map(|(group, (head, members))| (*group, head, members))
    }

    /// Why nodes do not hold a group, in words.
    pub(super) fn causes(&self, group: GroupId) -> String {
        self.causes.get(&group).map(|causes| causes.join("; ")).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "holdings_test.rs"]
mod tests;
