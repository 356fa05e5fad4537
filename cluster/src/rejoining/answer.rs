//! What a node of the life in force tells of its history.

use dtm_machine::reads;
use dtm_proto::cluster as wire;
use dtm_types::{GroupId, NodeId};
use tonic::Status;

use super::search::PROBES_MAX;
use crate::convert;
use crate::network::entries;
use crate::registry::Registry;

impl Registry {
    /// Positions of a group's entries, and whether they count for the node that asks. Blocking.
    pub(crate) fn positions(
        &self,
        caller: NodeId,
        asked: &wire::PositionsRequest,
    ) -> Result<wire::PositionsResponse, Status> {
        let starting = || Status::unavailable("the groups of this node do not run");
        self.opened().map_err(|_| starting())?;
        let mut told = wire::PositionsResponse {
            incarnation: self.links().guard().own().0,
            ..wire::PositionsResponse::default()
        };
        if let Some(meta) = self.group(GroupId::META).filter(|meta| meta.votes()) {
            let unread =
                |error: dtm_machine::seams::StateError| Status::internal(error.to_string());
            let rows = meta.store.freeze();
            let nodes = reads::nodes(&*rows).map_err(unread)?;
            let groups = reads::groups(&*rows).map_err(unread)?;
            told.votes_in_meta = true;
            told.lists_caller =
                nodes.iter().any(|row| !row.removed && row.node[..] == caller.0[..]);
            told.lists_group = groups.iter().any(|row| row.group == asked.group);
        }
        let Some(group) = self.group(GroupId(asked.group)) else { return Ok(told) };
        told.votes = group.votes();
        let indexes = asked.indexes.iter().take(PROBES_MAX as usize);
        let held = indexes.filter_map(|index| entries::position_at(&*group.log, *index));
        told.positions = held.map(|at| convert::log_id_to_wire(&convert::log_id_of(at))).collect();
        Ok(told)
    }
}
