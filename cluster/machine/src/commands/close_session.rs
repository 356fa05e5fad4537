//! `CloseSession`: the source says it is done with a stream, for now or for good.

use bytes::Bytes;
use dtm_types::StreamKey;
use dtm_types::command::{CloseSession, Outcome, RefusalKind};
use dtm_types::format::LeafKind;

use super::{Context, done, refused, refused_at};
use crate::keys::{self, SLOTS, table};
use crate::leaves;
use crate::machine::ApplyError;

/// A finished stream keeps one row: its cursor.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, close: CloseSession) -> Result<Outcome, ApplyError> {
    let Some(stream) = StreamKey::parse(&close.source, &close.stream) else {
        return Ok(refused(RefusalKind::Malformed, "source or stream name is not allowed"));
    };
    let Some(mut mirror) = ctx.mirror.take(&stream, ctx.rows)? else {
        return Ok(refused(RefusalKind::NotFound, "the stream was never opened"));
    };
    let session = mirror.cursor.session;
    if session != close.session {
        ctx.mirror.keep(stream, mirror);
        return Ok(refused_at(RefusalKind::Superseded, 0, session));
    }
    if !close.finished || mirror.cursor.closed {
        let leaf_index = mirror.cursor.leaf_index;
        ctx.mirror.keep(stream, mirror);
        return Ok(done(ctx, leaf_index));
    }
    mirror.cursor.closed = true;
    mirror.slot = None;
    for slot in 0..SLOTS {
        let slot = u8::try_from(slot).expect("129 slots fit a byte");
        ctx.rows.delete(keys::Key::of(table::TAGS).stream(&stream).u8(slot).done());
    }
    ctx.rows.put_row(keys::cursor(&stream), &mirror.cursor);
    let ids = vec![stream.to_string(), format!("session={session}"), "finished".to_owned()];
    let leaf_index = leaves::append(ctx, LeafKind::Session, ids, Bytes::new());
    ctx.mirror.keep(stream, mirror);
    Ok(done(ctx, leaf_index))
}
