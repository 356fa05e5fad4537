//! `DeclareLost`: the source no longer has these records; the cursor moves past them, visibly.

use bytes::Bytes;
use dtm_types::StreamKey;
use dtm_types::command::{DeclareLost, Outcome, RefusalKind};
use dtm_types::format::{LeafKind, SequenceRange};

use super::{Context, done, refused, refused_at};
use crate::machine::ApplyError;
use crate::{keys, leaves};

/// Lost ranges that a cursor remembers, the newest. Within the resend window the others are known by
/// having no tag.
const LOST_RANGES_MAX: usize = 16;

/// The range must start right behind the cursor: nothing that is held can be declared lost.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, lost: DeclareLost) -> Result<Outcome, ApplyError> {
    let Some(stream) = StreamKey::parse(&lost.source, &lost.stream) else {
        return Ok(refused(RefusalKind::Malformed, "source or stream name is not allowed"));
    };
    if lost.to_sequence > StreamKey::SEQUENCE_MAX {
        return Ok(refused(RefusalKind::Malformed, "a sequence is above 2^53 - 1"));
    }
    let Some(mut mirror) = ctx.mirror.take(&stream, ctx.rows)? else {
        return Ok(refused(RefusalKind::NotFound, "the stream was never opened"));
    };
    let (session, through) = (mirror.cursor.session, mirror.cursor.through);
    let refusal = if session != lost.session {
        Some(refused_at(RefusalKind::Superseded, 0, session))
    } else if lost.from_sequence != through + 1 || lost.to_sequence < lost.from_sequence {
        Some(refused_at(RefusalKind::Gap, through + 1, session))
    } else {
        None
    };
    if let Some(refusal) = refusal {
        ctx.mirror.keep(stream, mirror);
        return Ok(refusal);
    }
    mirror.cursor.through = lost.to_sequence;
    mirror.cursor.lost += lost.to_sequence - through;
    remember(&mut mirror.cursor.lost_ranges, lost.from_sequence, lost.to_sequence);
    mirror.slot = None;
    let ids =
        vec![stream.to_string(), format!("lost={}..={}", lost.from_sequence, lost.to_sequence)];
    mirror.cursor.leaf_index = leaves::append(ctx, LeafKind::Session, ids, Bytes::new());
    ctx.rows.put_row(keys::cursor(&stream), &mirror.cursor);
    let leaf_index = mirror.cursor.leaf_index;
    ctx.mirror.keep(stream, mirror);
    Ok(done(ctx, leaf_index))
}

/// Keeps a range that lies above all others. What follows the last one without a record between
/// them makes it longer; the oldest is forgotten.
fn remember(ranges: &mut Vec<SequenceRange>, from: u64, to: u64) {
    match ranges.last_mut() {
        Some(last) if last.to + 1 == from => last.to = to,
        _ => ranges.push(SequenceRange { from, to }),
    }
    if ranges.len() > LOST_RANGES_MAX {
        ranges.remove(0);
    }
}
