//! `Anchor`: where the ledgers of all groups stood, as one leaf of meta. A backup is cut along one, and
//! what meta's ledger holds ties the others to it: none goes back behind an anchor unseen (LED-1).

use std::collections::BTreeMap;

use bytes::Bytes;
use dtm_types::command::{Anchor, Outcome, RefusalKind};
use dtm_types::format::{AnchoredGroup, Leaf, LeafKind, LedgerAnchor};
use dtm_types::{GroupId, INGEST_GROUPS_MAX};
use prost::Message;

use super::{Context, done, refused};
use crate::anchor::follows;
use crate::keys::{self, table};
use crate::leaves;
use crate::machine::ApplyError;
use crate::overlay::malformed;

/// Groups at this version know anchors.
const ANCHORS: u32 = 2;
const SECOND_US: i64 = 1_000_000;

/// Enters an anchor. Two of one second are one: a leader of meta and the one before may both ask.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, anchor: Anchor) -> Result<Outcome, ApplyError> {
    if ctx.mirror.head.format_version < ANCHORS {
        return Ok(refused(RefusalKind::Version, "anchors need version 2 of the cluster"));
    }
    if !is_whole(&anchor.groups) {
        return Ok(refused(
            RefusalKind::Malformed,
            "an anchor names ingest groups ascending, each once with its root",
        ));
    }
    let before = newest(ctx)?;
    let second = |time_us: i64| time_us.div_euclid(SECOND_US);
    if before
        .as_ref()
        .is_some_and(|(_, leaf)| second(leaf.group_time_us) == second(ctx.group_time_us))
    {
        return Ok(refused(RefusalKind::Exists, "this second has its anchor"));
    }
    let previous_leaf = before.as_ref().map(|(index, _)| *index);
    let held = before.and_then(|(_, leaf)| leaf.anchor).unwrap_or_default().groups;
    let mut groups: BTreeMap<u32, AnchoredGroup> =
        held.into_iter().map(|group| (group.group, group)).collect();
    for group in anchor.groups {
        if ctx.rows.get(&keys::by_group(table::GROUP, group.group))?.is_none() {
            return Ok(refused(RefusalKind::NotFound, "no such group"));
        }
        if let Some(held) = groups.get(&group.group)
            && let Err(why) = follows(held, &group)
        {
            return Ok(refused(RefusalKind::Conflict, why));
        }
        groups.insert(group.group, group);
    }
    let own = own(ctx, anchor.incarnation);
    if let Some(held) = groups.get(&own.group) {
        let life = held.incarnation.cmp(&own.incarnation);
        if life.is_gt() {
            return Ok(refused(RefusalKind::Version, "an anchor of a life of the cluster before"));
        }
        assert!(
            life.is_lt() || held.ledger_size < own.ledger_size,
            "LED-1: meta behind its anchor"
        );
    }
    groups.insert(own.group, own);
    let anchor = LedgerAnchor { groups: groups.into_values().collect(), previous_leaf };
    let leaf = Leaf { anchor: Some(anchor), ..leaves::blank(ctx, LeafKind::Anchor) };
    let index = leaves::append_whole(ctx, &leaf);
    ctx.rows.put_number(vec![table::ANCHOR], index);
    Ok(done(ctx, index))
}

/// The anchor that the one row names, with its leaf.
fn newest(ctx: &Context<'_, '_>) -> Result<Option<(u64, Leaf)>, ApplyError> {
    let row = [table::ANCHOR];
    if ctx.rows.get(&row)?.is_none() {
        return Ok(None);
    }
    let index = ctx.rows.number(&row)?;
    let key = keys::leaf(index);
    let found = ctx.rows.get(&key)?;
    let leaf = found.as_deref().and_then(leaves::inline).and_then(|bytes| Leaf::decode(bytes).ok());
    let leaf = leaf.ok_or_else(|| malformed(ctx.group, &key, "the leaf of an anchor expected"))?;
    Ok(Some((index, leaf)))
}

fn own(ctx: &Context<'_, '_>, incarnation: u64) -> AnchoredGroup {
    let frontier = &ctx.mirror.frontier;
    AnchoredGroup {
        group: GroupId::META.0,
        incarnation,
        ledger_size: frontier.size(),
        ledger_root: Bytes::copy_from_slice(&frontier.root()),
        applied_index: ctx.index,
        group_time_us: ctx.group_time_us,
    }
}

fn is_whole(groups: &[AnchoredGroup]) -> bool {
    let is_ingest = |group: &AnchoredGroup| {
        (1..=INGEST_GROUPS_MAX).contains(&group.group) && group.ledger_root.len() == 32
    };
    groups.iter().all(is_ingest) && groups.is_sorted_by(|a, b| a.group < b.group)
}
