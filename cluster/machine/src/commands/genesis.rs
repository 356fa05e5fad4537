//! `Genesis`: the first command of a group's life; its leaf opens the origin.

use dtm_types::command::{Genesis, Outcome, RefusalKind};
use dtm_types::format::LeafKind;

use super::{Context, done, refused};
use crate::leaves;
use crate::machine::ApplyError;

/// Only the very first leaf of an origin may be a genesis.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, command: Genesis) -> Result<Outcome, ApplyError> {
    let Some(genesis) = command.genesis else {
        return Ok(refused(RefusalKind::Malformed, "genesis without content"));
    };
    if genesis.group != ctx.group.0 {
        return Ok(refused(RefusalKind::WrongGroup, "genesis of another group"));
    }
    if ctx.mirror.frontier.size() > 0 {
        return Ok(refused(RefusalKind::Exists, "the group has its genesis"));
    }
    let mut leaf = leaves::blank(ctx, LeafKind::Genesis);
    leaf.genesis = Some(genesis);
    let leaf_index = leaves::append_whole(ctx, &leaf);
    Ok(done(ctx, leaf_index))
}
