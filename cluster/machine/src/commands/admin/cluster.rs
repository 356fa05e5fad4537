//! The cluster's own row, its key, and the groups with their replicas and leaders.

use std::collections::BTreeSet;

use dtm_types::command::{
    ClusterRow, GroupRow, NodeRow, RefusalKind, RotateClusterKey, TransferLeader,
};
use dtm_types::{GroupId, INGEST_GROUPS_MAX, KeyId, NodeId};

use super::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::keys::{self, table};

/// From this version of meta on the cluster key changes by [`rotate_key`] alone.
const KEY_BY_ROTATION: u32 = 2;

/// Writes a group's replicas. `expected` is the next replica id that the proposer saw: it only
/// rises, so that no replica id is ever given twice.
pub(super) fn put_group(
    ctx: &mut Context<'_, '_>,
    row: GroupRow,
    expected: Option<u64>,
) -> Decision {
    let key = keys::by_group(table::GROUP, row.group);
    let old: Option<GroupRow> = ctx.rows.row(&key)?;
    let next = old.as_ref().map_or(0, |g| g.next_replica_id);
    if expected.is_some_and(|version| version != next) || row.next_replica_id < next {
        return Ok(Err(refused(RefusalKind::Version, "the group was changed meanwhile")));
    }
    let ids: BTreeSet<u64> = row.replicas.iter().map(|r| r.replica).collect();
    let known = |id: u64| old.iter().flat_map(|g| &g.replicas).any(|o| o.replica == id);
    let fresh = ids.len() == row.replicas.len()
        && ids.iter().all(|&id| id < row.next_replica_id && (id >= next || known(id)));
    // Removed, confirmed and leaving are for good, and so is standing by but in meta.
    let is_meta = GroupId(row.group).is_meta();
    let kept = old.iter().flat_map(|g| &g.replicas).all(|o| {
        row.replicas.iter().any(|r| {
            r.replica == o.replica
                && r.node == o.node
                && (r.removed || !o.removed)
                && (r.confirmed || !o.confirmed)
                && (r.leaving || !o.leaving)
                && (r.standby || !o.standby || is_meta)
        })
    });
    if !fresh || !kept {
        return Ok(Err(refused(
            RefusalKind::Malformed,
            "replica ids are never used again, replicas never forgotten",
        )));
    }
    let object = format!("group={}", row.group);
    let version = row.next_replica_id;
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect { version, ..Effect::on(vec![object]) }))
}

/// Writes the cluster's row; the incarnation never goes back, groups are never taken away, and the
/// cluster key stays what it is.
pub(super) fn put_cluster(ctx: &mut Context<'_, '_>, row: ClusterRow) -> Decision {
    if row.ingest_groups > INGEST_GROUPS_MAX {
        // Founding makes the groups before this entry, so that no cluster ever came so far.
        return Ok(Err(refused(RefusalKind::Malformed, "a cluster has at most 255 ingest groups")));
    }
    let old: Option<ClusterRow> = ctx.rows.row(&[table::CLUSTER])?;
    if let Some(old) = old {
        if old.cluster_id != row.cluster_id {
            return Ok(Err(refused(RefusalKind::Malformed, "a cluster keeps its id")));
        }
        if row.incarnation < old.incarnation || row.ingest_groups < old.ingest_groups {
            return Ok(Err(refused(
                RefusalKind::Version,
                "incarnation and number of groups only rise",
            )));
        }
        let keys_stay = old.cluster_key_id == row.cluster_key_id
            && old.pending_cluster_key_id == row.pending_cluster_key_id;
        if ctx.mirror.head.format_version >= KEY_BY_ROTATION && !keys_stay {
            return Ok(Err(refused(
                RefusalKind::Malformed,
                "the cluster key changes by a rotation alone",
            )));
        }
    }
    let ids = vec![
        format!("incarnation={}", row.incarnation),
        format!("ingest_groups={}", row.ingest_groups),
    ];
    ctx.rows.put_row(vec![table::CLUSTER], &row);
    Ok(Ok(Effect::on(ids)))
}

/// A step of a rotation: a key that becomes current is the one that was begun last, so none ever is
/// without both of its entries.
pub(super) fn rotate_key(ctx: &mut Context<'_, '_>, rotate: &RotateClusterKey) -> Decision {
    let Some(id) = KeyId::from_slice(&rotate.key_id) else {
        return Ok(Err(refused(RefusalKind::Malformed, "a key id has 16 bytes")));
    };
    let Some(mut row) = ctx.rows.row::<ClusterRow>(&[table::CLUSTER])? else {
        return Ok(Err(refused(RefusalKind::NotFound, "no row of the cluster")));
    };
    if rotate.current {
        if row.pending_cluster_key_id != rotate.key_id {
            return Ok(Err(refused(
                RefusalKind::Version,
                "another rotation of the cluster key was begun meanwhile",
            )));
        }
        row.cluster_key_id = std::mem::take(&mut row.pending_cluster_key_id);
    } else {
        row.pending_cluster_key_id.clone_from(&rotate.key_id);
    }
    let step = if rotate.current { "current" } else { "begun" };
    ctx.rows.put_row(vec![table::CLUSTER], &row);
    Ok(Ok(Effect::on(vec![format!("cluster_key={id}"), step.to_owned()])))
}

/// Says that groups are to be led by a node. No row changes: who leads is a matter of each group.
pub(super) fn transfer_leader(ctx: &mut Context<'_, '_>, transfer: &TransferLeader) -> Decision {
    let Some(to) = NodeId::from_slice(&transfer.to) else {
        return Ok(Err(refused(RefusalKind::Malformed, "a node id has 16 bytes")));
    };
    // Ascending, so at most as many as there are.
    if transfer.groups.is_empty() || !transfer.groups.is_sorted_by(|a, b| a < b) {
        return Ok(Err(refused(RefusalKind::Malformed, "groups are named ascending, each once")));
    }
    let node: Option<NodeRow> = ctx.rows.row(&keys::by_id(table::NODE, &transfer.to))?;
    if node.is_none_or(|row| row.removed) {
        return Ok(Err(refused(RefusalKind::NotFound, "no such node")));
    }
    let mut ids = vec![format!("leader={to}")];
    for &group in &transfer.groups {
        if ctx.rows.get(&keys::by_group(table::GROUP, group))?.is_none() {
            return Ok(Err(refused(RefusalKind::NotFound, "no such group")));
        }
        ids.push(format!("group={group}"));
    }
    Ok(Ok(Effect::on(ids)))
}
