//! `RemoveNode`: a node leaves only where every group can go on without it, and empty.
//!
//! ```text
//!  can every group go on without it? ──▶ approved, where it takes two people
//!     ──▶ drained: it leads nothing, its sources are elsewhere
//!     ──▶ can they still? ──▶ its row says removed; the groups change their members
//! ```
//! A node that does not answer has nothing to be emptied of.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use dtm_cluster::HeldUp;
use dtm_doors::primacy::has_register;
use dtm_doors::status::{internal, status, status_with, told};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_register::Seat;
use dtm_types::command::admin::Op;
use dtm_types::command::{LayoutRow, NodeRow, RemoveNode};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, NodeId};
use serde_json::json;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::approvals::{APPROVALS, Deed};
use super::cluster::node_id;
use super::{AdminDoor, Asker};

/// A group may be electing when it is looked at: so often it is looked again.
const LOOKS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);
/// Leaderships are given up again and again for so long.
const EMPTY_WITHIN: Duration = Duration::from_secs(15);
/// Sources that have not left by then reconnect when the node is gone: nothing of theirs is lost.
const SESSIONS_WITHIN: Duration = Duration::from_secs(8);

impl AdminDoor {
    pub(crate) async fn remove_node(
        &self,
        request: Request<wire::RemoveNodeRequest>,
    ) -> Result<wire::RemoveNodeResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::RemoveNode, asked.context.as_ref()).await?;
        let node = node_id(&asked.node)?;
        if node == self.0.node {
            return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.removes_itself")));
        }
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = reads::node(meta.state.as_ref(), node).map_err(internal)?;
        let row = row.ok_or_else(|| {
            told(ErrorCode::NotFound, &Told::new("refused.no_node").with("node", node))
        })?;
        if row.removed {
            let op = RemoveNode { node: asked.node.clone(), ..RemoveNode::default() };
            self.act(asker, Op::RemoveNode(op), None, json!({"node": node.to_string()})).await?;
            return Ok(wire::RemoveNodeResponse {});
        }
        let layout = reads::layout(meta.state.as_ref()).map_err(internal)?;
        self.holds_no_place(&row, &layout)?;
        self.can_do_without(node).await?;
        let (op, detail) = self.with_approval(&asker, &row, &asked.approval).await?;
        self.empty(&asker, &row, node).await?;
        if let Err(refused) = self.can_do_without(node).await {
            self.take_back(&asker, &row).await;
            return Err(refused);
        }
        let removed = self.act(asker.clone(), Op::RemoveNode(op), None, detail).await;
        // Refused by apply: nothing was entered.
        if removed.as_ref().is_err_and(|refused| refused.code() == Code::FailedPrecondition) {
            self.take_back(&asker, &row).await;
        }
        removed.map(|_| wire::RemoveNodeResponse {})
    }

    /// The removal with the approval that it needs: where the cluster is marked production and has
    /// fewer nodes then than a group is to have replicas. Else nothing is asked for.
    async fn with_approval(
        &self,
        asker: &Asker,
        row: &NodeRow,
        approval: &Bytes,
    ) -> Result<(RemoveNode, serde_json::Value), Status> {
        let id = node_id(&row.node)?.to_string();
        let mut op = RemoveNode { node: row.node.clone(), ..RemoveNode::default() };
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let state = meta.state.as_ref();
        let cluster = reads::cluster(state).map_err(internal)?;
        if !cluster.is_some_and(|cluster| cluster.production) {
            return Ok((op, json!({"node": id})));
        }
        let replicas_min = self.0.cluster.voters_max();
        let nodes = reads::nodes(state).map_err(internal)?;
        let left = nodes.iter().filter(|other| !other.removed && other.node != row.node).count();
        if left >= replicas_min && reads::head(state).map_err(internal)?.format_version < APPROVALS
        {
            return Ok((op, json!({"node": id})));
        }
        op.replicas_min = u32::try_from(replicas_min).unwrap_or(u32::MAX);
        if left >= replicas_min {
            // Of two removals at once, each of which leaves enough, apply refuses the second.
            return Ok((op, json!({"node": id})));
        }
        let object = dtm_machine::approval::remove_node(row);
        let deed = Deed { kind: dtm_machine::approval::REMOVE_NODE, object };
        let approved = self.approved(asker, deed, approval).await?;
        let detail = json!({
            "node": id, "approval": node_id(&approved.id)?.to_string(),
            "requested_by": approved.requested_by, "granted_by": approved.granted_by,
        });
        op.approval = approved.id;
        Ok((op, detail))
    }

    /// Refuses where the node has a seat in the decision which site is primary: with it gone, one more
    /// place that is lost would be one too many, and no command gives its seat to another node.
    fn holds_no_place(&self, row: &NodeRow, layout: &LayoutRow) -> Result<(), Status> {
        let decided = self.0.primacy.decision().map(|decision| decision.seats).unwrap_or_default();
        let Some(place) = place_of(row, layout, &decided) else { return Ok(()) };
        let what = Told::new("refused.removes_place").with("node", &row.name);
        Err(told(ErrorCode::InvalidArgument, &what.with("site", place)))
    }

    /// Refuses where a group would lose its majority.
    async fn can_do_without(&self, node: NodeId) -> Result<(), Status> {
        let mut held_up = Vec::new();
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let asked = self.0.cluster.held_up_without(node).await;
            held_up = asked.map_err(|error| status(ErrorCode::Unavailable, error))?;
            if held_up.is_empty() {
                return Ok(());
            }
        }
        let meta = self.0.directory.meta(self.0.view()).await?;
        let rows = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        let (groups, silent) = listed(&held_up, &rows);
        let detail = format!("node {node}");
        let values = [("groups", groups), ("silent", silent)];
        Err(status_with(ErrorCode::QuorumNeeded, detail, &values))
    }

    /// A node that was emptied and is not to be removed serves as before.
    async fn take_back(&self, asker: &Asker, row: &NodeRow) {
        if row.draining {
            return;
        }
        let again = self.put_draining(of_its_own(asker), row, false).await;
        let request = wire::DrainLocalRequest { resume: true };
        if let Err(error) = again.and(self.0.peers.drain(row, request).await) {
            tracing::warn!(node = row.name, %error, "the node stays draining");
        }
    }

    /// Moves what the node leads and the sources that are connected to it elsewhere.
    async fn empty(&self, asker: &Asker, row: &NodeRow, node: NodeId) -> Result<(), Status> {
        if self.0.peers.local_status(row).await.is_none() {
            tracing::info!(%node, "the node to be removed does not answer: it is not drained");
            return Ok(());
        }
        if !row.draining {
            self.put_draining(of_its_own(asker), row, true).await?;
        }
        let (begun, mut led) = (Instant::now(), Vec::new());
        while begun.elapsed() < EMPTY_WITHIN {
            if begun.elapsed() < SESSIONS_WITHIN || !led.is_empty() {
                // One that died meanwhile is found by the next look.
                self.0.peers.drain(row, wire::DrainLocalRequest { resume: false }).await.ok();
            }
            let Some(said) = self.0.peers.local_status(row).await else { return Ok(()) };
            led =
                said.groups.iter().filter(|g| g.leader_node == row.node).map(|g| g.group).collect();
            let sessions = said.node.map_or(0, |node| node.sessions);
            if led.is_empty() && (sessions == 0 || begun.elapsed() >= SESSIONS_WITHIN) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        let led = led.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let name = &row.name;
        let cause = format!("node {name} still leads groups {led}; it stays draining, try again");
        Err(status(ErrorCode::Unavailable, cause))
    }
}

/// The place whose acceptor runs on a node, in the layout in force or in what was decided under it.
fn place_of(row: &NodeRow, layout: &LayoutRow, decided: &[Seat]) -> Option<String> {
    if !has_register(layout) {
        return None;
    }
    let named = layout.seats.iter().find(|seat| seat.node == row.node);
    let named = named.map(|seat| seat.place.clone());
    let decided = decided.iter().find(|seat| row.node == seat.node.0[..]);
    named.or_else(|| decided.map(|seat| seat.place.clone()))
}

/// For an entry of its own, beside that of the removal.
pub(crate) fn of_its_own(asker: &Asker) -> Asker {
    Asker { request_id: Bytes::new(), ..asker.clone() }
}

/// Groups and names of nodes, as an operator reads them; `-` for none.
fn listed(held_up: &[HeldUp], rows: &[NodeRow]) -> (String, String) {
    let groups: Vec<String> = held_up.iter().map(|held| held.group.to_string()).collect();
    let name = |node: &NodeId| {
        let row = rows.iter().find(|row| row.node == node.0[..]);
        row.map_or_else(|| node.to_string(), |row| row.name.clone())
    };
    let silent: BTreeSet<String> = held_up.iter().flat_map(|held| &held.silent).map(name).collect();
    let silent: Vec<String> = silent.into_iter().collect();
    let silent = if silent.is_empty() { "-".to_owned() } else { silent.join(", ") };
    (groups.join(", "), silent)
}

#[cfg(test)]
mod tests {
    use dtm_register::AcceptorId;
    use dtm_types::GroupId;
    use dtm_types::command::{LayoutKind, LayoutSeat};
    use dtm_types::text::{Lang, render};

    use super::*;

    #[test]
    fn a_node_with_a_seat_is_known_while_the_layout_is_in_force() {
        let row = |byte: u8| NodeRow { node: vec![byte; 16].into(), ..NodeRow::default() };
        let seat = |place: &str, byte: u8| LayoutSeat {
            place: place.to_owned(),
            node: vec![byte; 16].into(),
            acceptor: vec![byte; 16].into(),
        };
        let seats = vec![seat("a", 1), seat("b", 2), seat("c", 3)];
        let standby = LayoutRow { kind: LayoutKind::Standby.into(), seats, ..LayoutRow::default() };
        assert_eq!(place_of(&row(3), &standby, &[]).as_deref(), Some("c"));
        assert_eq!(place_of(&row(4), &standby, &[]), None);
        // One that took a seat later is in the decision alone.
        let (place, node) = ("c".to_owned(), NodeId([4; 16]));
        let later = [Seat { place, node, acceptor: AcceptorId([4; 16]) }];
        assert_eq!(place_of(&row(4), &standby, &later).as_deref(), Some("c"));
        let single = LayoutRow { kind: LayoutKind::Single.into(), ..LayoutRow::default() };
        assert_eq!(place_of(&row(4), &single, &later), None, "given up");
    }

    #[test]
    fn the_refusal_names_groups_and_silent_nodes_in_both_languages() {
        let id = |byte| NodeId([byte; 16]);
        let held = |group, silent| HeldUp { group: GroupId(group), silent };
        let rows = [NodeRow { node: vec![2; 16].into(), name: "n2".into(), ..NodeRow::default() }];
        let all = [held(0, vec![id(2)]), held(4, vec![id(2)])];
        assert_eq!(listed(&all, &rows), ("0, 4".to_owned(), "n2".to_owned()));
        assert_eq!(listed(&[held(4, vec![])], &rows).1, "-");
        let values = [("groups", "0, 4"), ("silent", "n2")];
        for lang in [Lang::Vi, Lang::En] {
            let text = render(lang, "error.quorum-needed", &values);
            assert!(text.contains("0, 4") && text.contains("n2"), "{text}");
        }
    }
}
