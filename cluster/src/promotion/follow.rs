//! A plan followed on one node, before anything runs there: of each group its old replica ends, and a
//! new one begins behind it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dtm_proto::cluster as wire;
use dtm_storage::log::NodeLog;
use dtm_types::{GroupId, Incarnation, NodeId, ReplicaId};

use super::survivor::Survivor;
use crate::convert;
use crate::error::Error;
use crate::log_store::{Forebear, Lineage, LogPosition, LogProvider, NodeLogs};
use crate::restoring::{Opening, Restoring};
use crate::snapshot::StateProvider;
use crate::type_config::PeerNode;

/// What became of a node's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// It is a member of these.
    pub members: Vec<GroupId>,
    /// It held these and is no member: what it held does not count any more.
    pub left: Vec<GroupId>,
}

/// Follows a plan on the disk of `node`: `log` and `states` are open, no group runs. `lineage` is the
/// file of [`Lineage`]. After a crash it is called again; it is done when it returns, and the node's
/// incarnation is to be written then.
///
/// # Errors
/// [`Error::Refused`] where a replica that is to go over does not hold everything: nothing of its group
/// was changed.
pub async fn follow(
    plan: &wire::PromotionPlan,
    node: NodeId,
    log: &Arc<NodeLog>,
    states: &dyn StateProvider,
    lineage: &Path,
) -> Result<Followed, Error> {
    let (next, previous) = (Incarnation(plan.incarnation), Incarnation(plan.previous));
    let before = NodeLogs::new(Arc::clone(log), previous);
    let groups = plan.groups.iter().map(Planned::parse).collect::<Result<Vec<_>, _>>()?;
    let failed = |error: std::io::Error| Error::Refused(error.to_string());
    let mut line = Lineage::read(lineage).map_err(failed)?;
    let (mut steps, mut followed) = (Vec::new(), Followed::default());
    for (group, replica) in before.replicas() {
        let Some(planned) = groups.iter().find(|planned| planned.group == group) else { continue };
        let survivor = Survivor::open(&before, states, (group, replica), u8::MAX)?;
        let own = planned.members.iter().find(|(_, peer)| peer.node == node);
        // Of a group that goes over without this node's replica nobody said how far it agrees, and what
        // it applied may be another tail than the one that went over: it is copied anew.
        let through = own.map_or(0, |_| planned.last.index);
        line.add(Forebear { group, incarnation: previous, replica, through });
        steps.push((planned, survivor, own.map(|(id, _)| ReplicaId(*id))));
    }
    // Names what a replica of the new life stands on before there is one.
    line.write(lineage).map_err(failed)?;
    let after = NodeLogs::new(Arc::clone(log), next).with_lineage(line);
    for (planned, survivor, own) in steps {
        let group = planned.group;
        let Some(replica) = own else {
            states.clear(group)?;
            followed.left.push(group);
            continue;
        };
        survivor.end(planned.last).await?;
        let ids = (replica, planned.leader);
        let restoring = Restoring::go_on(&after, states, group, ids, planned.last).await?;
        restoring.finish(&planned.opening(plan)).await?;
        followed.members.push(group);
    }
    Ok(followed)
}

/// A group of a plan.
struct Planned {
    group: GroupId,
    last: LogPosition,
    members: BTreeMap<u64, PeerNode>,
    leader: ReplicaId,
    commands: Vec<Bytes>,
}

impl Planned {
    fn parse(message: &wire::PlannedGroup) -> Result<Self, Error> {
        let lacking = |what: &str| {
            Error::Refused(format!("the plan names no {what} of group {}", message.group))
        };
        let last = message.last.ok_or_else(|| lacking("end"))?;
        let mut members = BTreeMap::new();
        for member in &message.members {
            let node = member.node.clone().ok_or_else(|| lacking("member"))?;
            let node = convert::node_from_wire(node).map_err(|_| lacking("member"))?;
            members.insert(member.replica, node);
        }
        if !members.contains_key(&message.leader) {
            return Err(lacking("leader"));
        }
        Ok(Self {
            group: GroupId(message.group),
            last: convert::position(&convert::log_id_from_wire(last)),
            members,
            leader: ReplicaId(message.leader),
            commands: message.commands.clone(),
        })
    }

    fn opening(&self, plan: &wire::PromotionPlan) -> Opening {
        Opening {
            members: self.members.clone(),
            author: NodeId::from_slice(&plan.coordinator).unwrap_or_default(),
            stamp_us: plan.stamp_us,
            commands: self.commands.clone(),
        }
    }
}
