//! `RequestApproval`: an operator asks for a second person's word.

use dtm_types::command::{ApprovalRow, ApprovalState, RefusalKind, RequestApproval};

use super::{
    OPERATOR, acting, held, is_line, is_reason, keep, no, object_id, person_id, too_early,
};
use crate::approval::{
    self, HELD_MAX, KIND_BYTES_MAX, OBJECT_BYTES_MAX, OPEN_MAX, VALID_US_DEFAULT, VALID_US_MAX,
};
use crate::commands::admin::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::keys::{self, Key, table};
use crate::machine::ApplyError;

pub(in super::super) fn request(ctx: &mut Context<'_, '_>, asked: RequestApproval) -> Decision {
    if let Some(refusal) = too_early(ctx) {
        return Ok(Err(refusal));
    }
    let Some(who) = acting(ctx)?.filter(|row| row.role == OPERATOR) else {
        return Ok(Err(no("only an operator in force asks for an approval")));
    };
    if !is_whole(&asked) {
        return Ok(Err(refused(
            RefusalKind::Malformed,
            "an approval needs an id, a kind and the object that its digest covers",
        )));
    }
    if held(ctx, &asked.id)?.is_some() {
        return Ok(Err(refused(RefusalKind::Exists, "the approval exists")));
    }
    if !make_room(ctx)? {
        return Ok(Err(refused(RefusalKind::Limit, "100 approvals are open: decide or wait")));
    }
    let valid_us = if asked.valid_us == 0 { VALID_US_DEFAULT } else { asked.valid_us };
    let row = ApprovalRow {
        id: asked.id,
        kind: asked.kind,
        object: asked.object,
        object_digest: asked.object_digest,
        reason: asked.reason,
        state: ApprovalState::Open.into(),
        requested_by: who.id,
        requested_us: ctx.group_time_us,
        expires_us: ctx.group_time_us.saturating_add(valid_us),
        ..ApprovalRow::default()
    };
    keep(ctx, &row);
    let digest = row.object_digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(Ok(Effect::on(vec![
        object_id(&row.id),
        format!("kind={}", row.kind),
        format!("digest={digest}"),
        person_id("requested-by", &row.requested_by),
    ])))
}

fn is_whole(asked: &RequestApproval) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    asked.id.len() == 16
        && (1..=KIND_BYTES_MAX).contains(&asked.kind.len())
        && asked.kind.bytes().all(is_word)
        && !asked.object.is_empty()
        && is_line(&asked.object, OBJECT_BYTES_MAX)
        && is_reason(&asked.reason)
        && asked.object_digest == approval::digest(&asked.kind, &asked.object)[..]
        && (0..=VALID_US_MAX).contains(&asked.valid_us)
}

/// Whether one more may be open. Of those that are over the oldest make room for it.
fn make_room(ctx: &mut Context<'_, '_>) -> Result<bool, ApplyError> {
    let rows: Vec<ApprovalRow> = ctx.rows.rows(Key::of(table::APPROVAL))?;
    let (pending, mut over): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| approval::is_pending(row, ctx.group_time_us));
    if pending.len() >= OPEN_MAX {
        return Ok(false);
    }
    over.sort_unstable_by(|a, b| (a.requested_us, &a.id).cmp(&(b.requested_us, &b.id)));
    let beyond = (pending.len() + over.len() + 1).saturating_sub(HELD_MAX);
    for row in over.iter().take(beyond) {
        ctx.rows.delete(keys::by_id(table::APPROVAL, &row.id));
    }
    Ok(true)
}
