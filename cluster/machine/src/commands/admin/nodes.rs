//! Nodes, their boot counters and join tokens.

use dtm_types::NodeId;
use dtm_types::command::{
    BootNode, ClusterRow, JoinTokenRow, NodeRow, RefusalKind, RemoveNode, UseJoinToken,
};

use super::{Decision, Effect, approvals};
use crate::approval;
use crate::commands::{Context, refused};
use crate::keys::{self, Key, table};
use crate::machine::ApplyError;

/// Writes a node's row; what its newest start told never goes back.
pub(super) fn put(ctx: &mut Context<'_, '_>, mut row: NodeRow) -> Decision {
    let Some(id) = NodeId::from_slice(&row.node) else {
        return Ok(Err(refused(RefusalKind::Malformed, "a node id has 16 bytes")));
    };
    let key = keys::by_id(table::NODE, &row.node);
    let old = ctx.rows.row::<NodeRow>(&key)?;
    // A row that keeps its name is written as it is: two nodes that have one name from before can
    // still be drained.
    if old.as_ref().is_none_or(|old| old.name != row.name)
        && let Some(other) = other_of_name(ctx, &row)?
    {
        let detail = format!(
            "node {other} has the name {:?}: a node that joins needs another one (`dtm cluster join \
             --node NAME`); where that node is gone for good, remove it first (`dtm cluster remove \
             {other}`)",
            row.name
        );
        return Ok(Err(refused(RefusalKind::Exists, &detail)));
    }
    if let Some(old) = old {
        if old.removed {
            return Ok(Err(refused(
                RefusalKind::Exists,
                "a removed node comes back under a new id",
            )));
        }
        keep_newest_start(ctx.mirror.head.format_version, &mut row, old);
    }
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect::on(vec![format!("node={id}")])))
}

/// Groups at this version know that a row may have been read before the node's newest start.
const STARTS_STAY_WHOLE: u32 = 2;

/// Groups at this version take the address for other sites from a start.
const STARTS_TELL_ADDRESSES: u32 = 2;

/// What is known of the newest start stays: the row that is written may have been read before it, and
/// under the old software's version a raise could pass that this node does not know.
fn keep_newest_start(version: u32, row: &mut NodeRow, old: NodeRow) {
    if old.boot_counter <= row.boot_counter {
        return;
    }
    row.boot_counter = old.boot_counter;
    if version >= STARTS_STAY_WHOLE {
        row.sites_address = old.sites_address;
        row.software_version = old.software_version;
        row.version_max = old.version_max;
    }
}

/// Another node of this row's name that is not removed. Names are for people, so one that is empty
/// is no name.
fn other_of_name(ctx: &Context<'_, '_>, row: &NodeRow) -> Result<Option<NodeId>, ApplyError> {
    if row.name.is_empty() {
        return Ok(None);
    }
    let nodes: Vec<NodeRow> = ctx.rows.rows(Key::of(table::NODE))?;
    let mut others = nodes.iter().filter(|other| !other.removed && other.node != row.node);
    let found = others.find(|other| other.name == row.name);
    Ok(found.map(|other| NodeId::from_slice(&other.node).unwrap_or_default()))
}

/// Marks a node as removed for good: its replicas never vote again. Where a cluster marked production
/// has fewer nodes then than a group is to have replicas, a second person's approval is used up.
pub(super) fn remove(ctx: &mut Context<'_, '_>, remove: &RemoveNode) -> Decision {
    let key = keys::by_id(table::NODE, &remove.node);
    let Some(mut row) = ctx.rows.row::<NodeRow>(&key)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "no such node")));
    };
    let id = NodeId::from_slice(&remove.node).unwrap_or_default();
    let mut ids = vec![format!("node={id}"), "removed".to_owned()];
    if !row.removed && takes_two(ctx, remove)? {
        let object = approval::remove_node(&row);
        let taken = approvals::take(ctx, &remove.approval, approval::REMOVE_NODE, &object)?;
        if let Err(refusal) = taken {
            return Ok(Err(refusal));
        }
        ids.push(approvals::object_id(&remove.approval));
    }
    row.removed = true;
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect::on(ids)))
}

/// Whether a removal needs two people. Before version 2 no command says what a group is to have.
fn takes_two(ctx: &Context<'_, '_>, remove: &RemoveNode) -> Result<bool, ApplyError> {
    let cluster: Option<ClusterRow> = ctx.rows.row(&[table::CLUSTER])?;
    if !cluster.is_some_and(|row| row.production) {
        return Ok(false);
    }
    let nodes: Vec<NodeRow> = ctx.rows.rows(Key::of(table::NODE))?;
    let left = nodes.iter().filter(|row| !row.removed && row.node != remove.node).count();
    Ok(left < remove.replicas_min as usize)
}

/// A start of a node. A counter at or below the known one is an old copy of its disk.
pub(super) fn boot(ctx: &mut Context<'_, '_>, boot: BootNode) -> Decision {
    let key = keys::by_id(table::NODE, &boot.node);
    let Some(mut row) = ctx.rows.row::<NodeRow>(&key)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "no such node")));
    };
    if row.removed || boot.boot_counter <= row.boot_counter {
        return Ok(Err(refused(
            RefusalKind::Version,
            "an old copy: a higher boot counter is known",
        )));
    }
    row.boot_counter = boot.boot_counter;
    row.software_version = boot.software_version;
    row.version_max = boot.version_max;
    if ctx.mirror.head.format_version >= STARTS_TELL_ADDRESSES {
        row.sites_address = boot.sites_address;
    }
    ctx.rows.put_row(key, &row);
    let id = NodeId::from_slice(&boot.node).unwrap_or_default();
    Ok(Ok(Effect::on(vec![format!("node={id}"), format!("boot={}", row.boot_counter)])))
}

/// Keeps the hash of a one-time token.
pub(super) fn put_token(ctx: &mut Context<'_, '_>, row: JoinTokenRow) -> Decision {
    if row.token_hash.len() != 32 {
        return Ok(Err(refused(RefusalKind::Malformed, "a token hash has 32 bytes")));
    }
    ctx.rows.put_row(keys::by_id(table::JOIN_TOKEN, &row.token_hash), &row);
    Ok(Ok(Effect::on(vec!["join-token".to_owned()])))
}

/// Spends a token and registers the node in one step.
pub(super) fn use_token(ctx: &mut Context<'_, '_>, join: UseJoinToken) -> Decision {
    let key = keys::by_id(table::JOIN_TOKEN, &join.token_hash);
    let Some(mut token) = ctx.rows.row::<JoinTokenRow>(&key)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "unknown join token")));
    };
    if token.used || token.expires_us <= ctx.group_time_us {
        return Ok(Err(refused(RefusalKind::Expired, "the join token was used or has expired")));
    }
    let Some(mut node) = join.node else {
        return Ok(Err(refused(RefusalKind::Malformed, "no node")));
    };
    let at = ctx.mirror.head.format_version;
    if node.version_max < at {
        // It would stop at the first entry of meta.
        let known = node.version_max;
        let detail = format!(
            "the cluster is at version {at}, the software of this node knows versions up to {known}: \
             install the release that the others run"
        );
        return Ok(Err(refused(RefusalKind::Version, &detail)));
    }
    if ctx.rows.get(&keys::by_id(table::NODE, &node.node))?.is_some() {
        return Ok(Err(refused(RefusalKind::Exists, "a node joins once, under a new id")));
    }
    // Where it stands is the operator's word; the rest of a new node's row is blank.
    if !token.site.is_empty() {
        node.site.clone_from(&token.site);
    }
    if !token.zone.is_empty() {
        node.zone.clone_from(&token.zone);
    }
    (node.draining, node.removed, node.boot_counter) = (false, false, 0);
    let effect = match put(ctx, node)? {
        Ok(effect) => effect,
        Err(refusal) => return Ok(Err(refusal)),
    };
    token.used = true;
    ctx.rows.put_row(key, &token);
    Ok(Ok(effect))
}
