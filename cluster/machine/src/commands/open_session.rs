//! `OpenSession`: a newer connection fences an older one here, in apply, not in memory.

use bytes::Bytes;
use dtm_types::StreamKey;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{OpenSession, Outcome, RefusalKind, SessionOpened};
use dtm_types::format::{Cursor, KeyPurpose, LeafKind};

use super::append_batch::quota_of;
use super::{Context, answer, put_key, refused};
use crate::machine::ApplyError;
use crate::mirror::StreamMirror;
use crate::{keys, leaves};

/// Raises the stream's session and says where it goes on.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, open: OpenSession) -> Result<Outcome, ApplyError> {
    let Some(stream) = StreamKey::parse(&open.source, &open.stream) else {
        return Ok(refused(RefusalKind::Malformed, "source or stream name is not allowed"));
    };
    let found = ctx.mirror.take(&stream, ctx.rows)?;
    let repeated = found
        .as_ref()
        .is_some_and(|m| !ctx.request_id.is_empty() && m.cursor.opened_by == ctx.request_id);
    let mut mirror = match found {
        Some(mirror) => mirror,
        None => match first_open(ctx, &open)? {
            Some(mirror) => mirror,
            None => {
                let detail = format!("stream_names_max = {}", open.stream_names_max);
                return Ok(refused(RefusalKind::Limit, &detail));
            }
        },
    };
    if !repeated {
        mirror.cursor.session += 1;
        mirror.cursor.dataset.clone_from(&open.dataset);
        mirror.cursor.ids_by_sequence = open.ids_by_sequence;
        mirror.cursor.closed = false;
        mirror.cursor.opened_by = ctx.request_id.clone();
        let ids = vec![stream.to_string(), format!("session={}", mirror.cursor.session)];
        mirror.cursor.leaf_index = leaves::append(ctx, LeafKind::Session, ids, Bytes::new());
        ctx.rows.put_row(keys::cursor(&stream), &mirror.cursor);
    }
    let outcome = opened(ctx, &open, &mirror.cursor)?;
    ctx.mirror.keep(stream, mirror);
    Ok(outcome)
}

/// `None` when the source has used up its stream names.
fn first_open(
    ctx: &mut Context<'_, '_>,
    open: &OpenSession,
) -> Result<Option<StreamMirror>, ApplyError> {
    let names = ctx.rows.number(&keys::names(&open.source))?;
    if names >= u64::from(open.stream_names_max) {
        return Ok(None);
    }
    ctx.rows.put_number(keys::names(&open.source), names + 1);
    ctx.mirror.head.streams += 1;
    Ok(Some(StreamMirror { cursor: Cursor::default(), slot: None, known_key: None }))
}

fn opened(
    ctx: &Context<'_, '_>,
    open: &OpenSession,
    cursor: &Cursor,
) -> Result<Outcome, ApplyError> {
    let lost = open.acked_through > cursor.through;
    let quota = quota_of(ctx, &open.source)?;
    Ok(answer(Answer::SessionOpened(SessionOpened {
        session: cursor.session,
        next_sequence: cursor.through + 1,
        data_key: put_key::held(ctx.rows, KeyPurpose::Data.into(), &open.source, open.month)?,
        source_key: put_key::held(ctx.rows, KeyPurpose::Source.into(), &open.source, 0)?,
        loss_from: if lost { cursor.through + 1 } else { 0 },
        loss_to: if lost { open.acked_through } else { 0 },
        offset: ctx.index,
        leaf_index: cursor.leaf_index,
        quarantine_records_left: open.quarantine_records_max.saturating_sub(quota.records),
        quarantine_bytes_left: open.quarantine_bytes_max.saturating_sub(quota.bytes),
    })))
}
