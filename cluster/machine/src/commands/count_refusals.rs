//! `CountRefusals`: what was turned away at the doors in the last minute, without a leaf each.

use bytes::Bytes;
use dtm_types::command::{CountRefusals, Outcome, RefusalKind};
use dtm_types::format::LeafKind;

use super::{Context, done, refused};
use crate::leaves;
use crate::machine::ApplyError;

/// Prefixes in one leaf, "other" included: nobody can fill a log from outside.
const COUNTS_MAX: usize = 1_001;

/// Appends one leaf; each object id is "prefix code count".
pub(crate) fn apply(
    ctx: &mut Context<'_, '_>,
    command: CountRefusals,
) -> Result<Outcome, ApplyError> {
    if command.counts.is_empty() || command.counts.len() > COUNTS_MAX {
        return Ok(refused(RefusalKind::Limit, "between 1 and 1001 counts a leaf"));
    }
    let ids =
        command.counts.iter().map(|c| format!("{} {} {}", c.prefix, c.code, c.count)).collect();
    let leaf_index = leaves::append(ctx, LeafKind::Refusals, ids, Bytes::new());
    Ok(done(ctx, leaf_index))
}
