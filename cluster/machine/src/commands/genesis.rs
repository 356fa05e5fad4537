//! `Genesis`: the first command of a group's life, and of each later life of the cluster; its leaf opens
//! the origin, or names the one that it goes on from.

use dtm_types::command::{Genesis, Outcome, RefusalKind};
use dtm_types::format::{self, LeafKind};

use super::{Context, done, refused};
use crate::leaves;
use crate::machine::ApplyError;

/// The very first leaf is a genesis; any later one opens a later life of the cluster, and names how
/// many leaves, and which root, the one before left here. At whatever version the group is: who begins a
/// life writes this itself behind what it holds, and nobody gets it by a log that older software reads. A
/// group that was not raised in time would else never go on.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, command: Genesis) -> Result<Outcome, ApplyError> {
    let Some(genesis) = command.genesis else {
        return Ok(refused(RefusalKind::Malformed, "genesis without content"));
    };
    if genesis.group != ctx.group.0 {
        return Ok(refused(RefusalKind::WrongGroup, "genesis of another group"));
    }
    if ctx.mirror.frontier.size() > 0 && !follows(ctx, &genesis) {
        return Ok(refused(RefusalKind::Exists, "the group has its genesis"));
    }
    let mut leaf = leaves::blank(ctx, LeafKind::Genesis);
    leaf.genesis = Some(genesis);
    let leaf_index = leaves::append_whole(ctx, &leaf);
    Ok(done(ctx, leaf_index))
}

fn follows(ctx: &Context<'_, '_>, genesis: &format::Genesis) -> bool {
    let frontier = &ctx.mirror.frontier;
    genesis.previous_incarnation > 0
        && genesis.incarnation > genesis.previous_incarnation
        && genesis.previous_size == frontier.size()
        && genesis.previous_root == frontier.root()[..]
}
