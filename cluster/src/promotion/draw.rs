//! The plan itself, from what was levelled; and that apply takes what it opens the life with.

use std::collections::BTreeMap;

use bytes::Bytes;
use dtm_machine::reads;
use dtm_machine::seams::StateStore;
use dtm_proto::cluster as wire;
use dtm_types::command::admin::Op as Action;
use dtm_types::command::command::Op;
use dtm_types::command::{
    Actor, ActorKind, Admin, ClusterRow, Command, Genesis, GroupRow, LayoutKind, LayoutRow,
    ReplicaRow,
};
use dtm_types::{GroupId, NodeId, format};
use prost::Message;

use super::Promotion;
use super::holdings::{Ends, Levelled};
use crate::convert;
use crate::error::Error;
use crate::restoring::{self, Opening};

impl Promotion {
    /// Meta's rows here.
    pub(super) fn meta(&self) -> Result<&dyn StateStore, Error> {
        let meta = self.survivors.get(&GroupId::META);
        let none = || Error::Refused("this node holds nothing of meta".to_owned());
        Ok(meta.ok_or_else(none)?.store())
    }

    /// The plan of the life that was ordered.
    ///
    /// # Errors
    /// [`Error::Refused`] where meta's rows do not go with the order.
    pub(super) fn draw(
        &self,
        ends: &Ends,
        levelled: &Levelled,
    ) -> Result<wire::PromotionPlan, Error> {
        let store = self.meta()?;
        let unread = |error| Error::Refused(format!("meta is not read: {error}"));
        let cluster = reads::cluster(store).map_err(unread)?;
        let cluster = cluster.ok_or_else(|| Error::Refused("meta has no cluster".to_owned()))?;
        let rows = reads::groups(store).map_err(unread)?;
        let previous = self.links.guard().own().0;
        let mut rows: BTreeMap<u32, GroupRow> =
            rows.into_iter().map(|row| (row.group, row)).collect();
        let (mut groups, mut actions) = (Vec::new(), Vec::new());
        let layout = reads::layout(store).map_err(unread)?;
        let next = ClusterRow { incarnation: self.order.next.0, ..cluster.clone() };
        actions.push(Action::PutCluster(next));
        for (group, head, nodes) in levelled.groups() {
            let Some(row) = rows.get_mut(&group.0) else { continue };
            row.replicas.iter_mut().for_each(|replica| replica.removed = true);
            // The life that ends may have given out ids that are not in the rows here.
            row.next_replica_id = row.next_replica_id.max(self.order.next.first_replica_id());
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
            let genesis = Some(self.genesis(group, &cluster, previous, head));
            let genesis = Op::Genesis(Genesis { genesis });
            groups.push(wire::PlannedGroup {
                group: group.0,
                last: ends.get(&group).and_then(|end| end.last),
                leader: members.first().map_or(0, |member| member.replica),
                members,
                commands: vec![self.command(group, 0, genesis)],
            });
        }
        let meta = groups.iter_mut().find(|planned| GroupId(planned.group).is_meta());
        let meta = meta.ok_or_else(|| Error::Refused("no plan without meta".to_owned()))?;
        let of = |action| Admin { op: Some(action), ..Admin::default() };
        let mut admins: Vec<Admin> = actions.into_iter().map(of).collect();
        admins.extend(self.layout(layout)?);
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

    /// What the rows say of sites, made to say what was decided: the site of the order is primary, and
    /// the other one of the two stands by. Nothing where they say so already. Without the places that decide
    /// there is one site.
    fn layout(&self, row: LayoutRow) -> Result<Option<Admin>, Error> {
        let site = &self.order.site;
        if self.order.is_split && row.kind() == LayoutKind::Standby {
            let single = LayoutRow { kind: LayoutKind::Single.into(), ..LayoutRow::default() };
            let (op, expected_version) = (Some(Action::PutLayout(single)), Some(row.version));
            return Ok(Some(Admin { op, expected_version, ..Admin::default() }));
        }
        if row.kind() != LayoutKind::Standby || row.primary == *site {
            return Ok(None);
        }
        if row.other != *site {
            let (primary, other) = (&row.primary, &row.other);
            return Err(Error::Refused(format!(
                "site {site} was promoted, and the layout is of sites {primary} and {other}"
            )));
        }
        let expected_version = Some(row.version);
        let decided = LayoutRow {
            primary: site.clone(),
            other: row.primary.clone(),
            incarnation: self.order.next.0,
            ..row
        };
        let op = Some(Action::PutLayout(decided));
        Ok(Some(Admin { op, expected_version, ..Admin::default() }))
    }

    /// Applies what opens each group to its rows here, and throws that away: a plan is followed by every
    /// node at its start, and one that apply refuses would end them all. Other groups than meta are
    /// opened by their genesis alone, which all members take as one does.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is refused.
    pub(super) fn try_out(&self, plan: &wire::PromotionPlan) -> Result<(), Error> {
        for planned in &plan.groups {
            let Some(survivor) = self.survivors.get(&GroupId(planned.group)) else { continue };
            let last = planned.last.map_or(0, |last| last.index);
            let opening = opening_of(plan, planned)?;
            restoring::try_out(&**survivor.log(), survivor.store(), last, &opening)?;
        }
        Ok(())
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

/// What opens the life of a group, as each of its members reads it from the plan.
fn opening_of(plan: &wire::PromotionPlan, of: &wire::PlannedGroup) -> Result<Opening, Error> {
    let lacking = || Error::Refused(format!("the plan names no member of group {}", of.group));
    let mut members = BTreeMap::new();
    for member in &of.members {
        let node = member.node.clone().ok_or_else(lacking)?;
        members.insert(member.replica, convert::node_from_wire(node).map_err(|_| lacking())?);
    }
    Ok(Opening {
        members,
        author: NodeId::from_slice(&plan.coordinator).unwrap_or_default(),
        stamp_us: plan.stamp_us,
        commands: of.commands.clone(),
    })
}
