//! `RaiseVersion`: from the next bundle on the group is written in a higher version. It is proposed
//! only when every node knows that version; a node that does not stops the group, and goes on where
//! it stopped once its software does.

use dtm_types::command::{Outcome, RaiseVersion, RefusalKind};
use dtm_types::format::LeafKind;

use super::{Context, done, refused};
use crate::machine::ApplyError;
use crate::{day, leaves};

/// Versions rise one by one; the present one again changes nothing.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, raise: RaiseVersion) -> Result<Outcome, ApplyError> {
    let at = ctx.mirror.head.format_version;
    if raise.version == at {
        return Ok(done(ctx, ctx.mirror.frontier.size().saturating_sub(1)));
    }
    if raise.version != at + 1 {
        return Ok(refused(RefusalKind::Version, "a group's version rises by one"));
    }
    if raise.version > ctx.version_max {
        return Err(ApplyError::Version {
            group: ctx.group,
            index: ctx.index,
            version: raise.version,
            at,
            known: ctx.version_max,
        });
    }
    ctx.mirror.head.format_version = raise.version;
    day::begin(&mut ctx.mirror.head, ctx.group_time_us);
    let ids = vec![format!("group={}", ctx.group.0), format!("version={}", raise.version)];
    let leaf_index = leaves::append(ctx, LeafKind::Admin, ids, Default::default());
    Ok(done(ctx, leaf_index))
}
