//! `GrantApproval`, `DenyApproval`: the word of another person than who asked.

use bytes::Bytes;
use dtm_types::command::{
    ApprovalRow, ApprovalState, DenyApproval, GrantApproval, OperatorRow, Outcome, RefusalKind,
};

use super::{
    OPERATOR, acting, held, is_reason, keep, may_decide, no, object_id, person, person_id,
    too_early,
};
use crate::approval;
use crate::commands::admin::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::machine::ApplyError;

/// Grants what was looked at, and nothing else.
pub(in super::super) fn grant(ctx: &mut Context<'_, '_>, grant: GrantApproval) -> Decision {
    let (row, who) = match decidable(ctx, &grant.id, &grant.reason)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if row.state() != ApprovalState::Open {
        return Ok(Err(no("the approval is granted already")));
    }
    if row.object_digest != grant.object_digest {
        return Ok(Err(no("this is not what the approval was asked for")));
    }
    if person(ctx, &row.requested_by)?.is_none_or(|who| who.role != OPERATOR) {
        return Ok(Err(no("who asked for the approval is no operator any more")));
    }
    Ok(Ok(decided(ctx, row, &who.id, ApprovalState::Granted, grant.reason)))
}

/// Denies it; one that was granted is taken back as long as it was not used.
pub(in super::super) fn deny(ctx: &mut Context<'_, '_>, deny: DenyApproval) -> Decision {
    let (row, who) = match decidable(ctx, &deny.id, &deny.reason)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(Ok(decided(ctx, row, &who.id, ApprovalState::Denied, deny.reason)))
}

/// What is still to be decided, and who decides it.
fn decidable(
    ctx: &Context<'_, '_>,
    id: &[u8],
    reason: &str,
) -> Result<Result<(ApprovalRow, OperatorRow), Outcome>, ApplyError> {
    if let Some(refusal) = too_early(ctx) {
        return Ok(Err(refusal));
    }
    let Some(who) = acting(ctx)?.filter(may_decide) else {
        return Ok(Err(no("only an operator or approver in force decides on an approval")));
    };
    let Some(row) = held(ctx, id)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "no such approval")));
    };
    if !is_reason(reason) {
        return Ok(Err(refused(RefusalKind::Malformed, "a reason is one line of 512 bytes")));
    }
    if who.id == row.requested_by {
        return Ok(Err(no("who asked for the approval does not decide on it")));
    }
    match row.state() {
        ApprovalState::Used => Ok(Err(no("the approval was used"))),
        ApprovalState::Denied => Ok(Err(no("the approval was denied"))),
        _ if approval::is_expired(&row, ctx.group_time_us) => {
            Ok(Err(refused(RefusalKind::Expired, "the approval is past its time")))
        }
        _ => Ok(Ok((row, who))),
    }
}

fn decided(
    ctx: &mut Context<'_, '_>,
    mut row: ApprovalRow,
    who: &Bytes,
    state: ApprovalState,
    reason: String,
) -> Effect {
    row.state = state.into();
    row.decided_by.clone_from(who);
    row.decided_us = ctx.group_time_us;
    row.decision_reason = reason;
    keep(ctx, &row);
    let word = if state == ApprovalState::Granted { "granted-by" } else { "denied-by" };
    Effect::on(vec![object_id(&row.id), person_id(word, who)])
}
