//! An approval is used up in the same entry as the effect that it was granted for.

use dtm_types::command::{ApprovalState, Outcome, RefusalKind};

use super::{OPERATOR, acting, held, keep, may_decide, no, person};
use crate::approval;
use crate::commands::{Context, refused};
use crate::machine::ApplyError;

/// Uses up an approval of exactly this, by the operator of the command. The last check of a command:
/// what follows must not refuse.
pub(in super::super) fn take(
    ctx: &mut Context<'_, '_>,
    id: &[u8],
    kind: &str,
    object: &str,
) -> Result<Result<(), Outcome>, ApplyError> {
    if id.is_empty() {
        return Ok(Err(no("a second person's approval is needed")));
    }
    let Some(mut row) = held(ctx, id)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "no such approval")));
    };
    match row.state() {
        ApprovalState::Used => return Ok(Err(no("the approval was used"))),
        ApprovalState::Denied => return Ok(Err(no("the approval was denied"))),
        _ if approval::is_expired(&row, ctx.group_time_us) => {
            return Ok(Err(refused(RefusalKind::Expired, "the approval is past its time")));
        }
        ApprovalState::Granted => {}
        _ => return Ok(Err(no("the approval is not granted yet"))),
    }
    if row.kind != kind || row.object_digest != approval::digest(kind, object)[..] {
        return Ok(Err(no("the approval was granted for something else")));
    }
    let Some(actor) = acting(ctx)?.filter(|who| who.role == OPERATOR) else {
        return Ok(Err(no("only an operator in force uses an approval")));
    };
    let asker = person(ctx, &row.requested_by)?.filter(|who| who.role == OPERATOR);
    let granter = person(ctx, &row.decided_by)?.filter(may_decide);
    let (Some(asker), Some(granter)) = (asker, granter) else {
        return Ok(Err(no("who asked for the approval or granted it is no operator any more")));
    };
    assert_ne!(asker.id, granter.id, "SEC-2: an approval that was granted by who asked for it");
    if actor.id == granter.id {
        return Ok(Err(no("who granted the approval does not use it")));
    }
    row.state = ApprovalState::Used.into();
    row.used_by = actor.id;
    row.used_us = ctx.group_time_us;
    keep(ctx, &row);
    Ok(Ok(()))
}
