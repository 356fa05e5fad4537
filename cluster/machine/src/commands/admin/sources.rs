//! Sources, their agreements and their keys.

use dtm_types::SourceId;
use dtm_types::command::{
    ClusterRow, RefusalKind, ResendQuarantined, RevokeSourceKey, SourceKeyRow, SourceRow,
};

use prost::Message;

use super::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::keys::{self, table};
use crate::machine::ApplyError;
use crate::overlay::hex;

/// Largest row of a source, whatever a door lets pass.
const ROW_BYTES_MAX: usize = 256 << 10;
/// Keys that one source may hold at a time: the current one and one for the overlap, twice over.
const KEYS_MAX: usize = 16;

/// Creates (no expected version) or changes (expected version) a source. Its group is chosen once.
pub(super) fn put(
    ctx: &mut Context<'_, '_>,
    mut row: SourceRow,
    expected: Option<u64>,
) -> Decision {
    if SourceId::parse(&row.source).is_none() {
        return Ok(Err(refused(
            RefusalKind::Malformed,
            "a source code is 1 to 64 of a-z 0-9 . - _",
        )));
    }
    if row.encoded_len() > ROW_BYTES_MAX {
        return Ok(Err(refused(RefusalKind::Limit, "a source's row is at most 256 KiB")));
    }
    let key = keys::named(table::SOURCE, &row.source);
    let old: Option<SourceRow> = ctx.rows.row(&key)?;
    match (&old, expected) {
        (Some(_), None) => return Ok(Err(refused(RefusalKind::Exists, "the source exists"))),
        (None, Some(_)) => {
            return Ok(Err(refused(RefusalKind::NotFound, "the source does not exist")));
        }
        (Some(old), Some(version)) if old.version != version => {
            return Ok(Err(refused(RefusalKind::Version, "the source was changed meanwhile")));
        }
        _ => {}
    }
    match old {
        Some(old) => {
            row.group = old.group;
            row.id = old.id;
            row.created_us = old.created_us;
            row.version = old.version + 1;
        }
        None => {
            let Some(group) = place(ctx, row.group)? else {
                return Ok(Err(refused(RefusalKind::NotFound, "no such ingest group")));
            };
            row.group = group;
            row.created_us = ctx.group_time_us;
            row.version = 1;
        }
    }
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect {
        object_ids: vec![format!("source={}", row.source), format!("version={}", row.version)],
        version: row.version,
        group: row.group,
    }))
}

/// The least loaded ingest group, or the wanted one; counts the source there.
fn place(ctx: &mut Context<'_, '_>, wanted: u32) -> Result<Option<u32>, ApplyError> {
    let cluster: Option<ClusterRow> = ctx.rows.row(&[table::CLUSTER])?;
    let groups = cluster.map_or(0, |c| c.ingest_groups);
    let mut best: Option<(u64, u32)> = None;
    for group in 1..=groups {
        if wanted != 0 && wanted != group {
            continue;
        }
        let load = ctx.rows.number(&keys::by_group(table::LOAD, group))?;
        if best.is_none_or(|(least, _)| load < least) {
            best = Some((load, group));
        }
    }
    if let Some((load, group)) = best {
        ctx.rows.put_number(keys::by_group(table::LOAD, group), load + 1);
    }
    Ok(best.map(|(_, group)| group))
}

/// Adds a key; an older one stays valid until it expires or is revoked (rotation with overlap).
pub(super) fn put_key(ctx: &mut Context<'_, '_>, row: SourceKeyRow) -> Decision {
    if row.key_id.len() != 8 || row.secret_hash.len() != 32 {
        return Ok(Err(refused(RefusalKind::Malformed, "a key id has 8 bytes, a secret hash 32")));
    }
    if ctx.rows.get(&keys::named(table::SOURCE, &row.source))?.is_none() {
        return Ok(Err(refused(RefusalKind::NotFound, "the source does not exist")));
    }
    let key = keys::source_key(&row.source, &row.key_id);
    if ctx.rows.get(&key)?.is_some() {
        return Ok(Err(refused(RefusalKind::Exists, "this key id is in use")));
    }
    let count_key = keys::Key::of(table::SOURCE_KEY).name(&row.source).raw(b"n").done();
    let count = ctx.rows.number(&count_key)?;
    if count >= KEYS_MAX as u64 {
        return Ok(Err(refused(RefusalKind::Limit, "16 keys a source: revoke one first")));
    }
    ctx.rows.put_number(count_key, count + 1);
    let ids = vec![format!("source={}", row.source), format!("key={}", hex(&row.key_id))];
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect::on(ids)))
}

/// Revokes a key for good.
pub(super) fn revoke_key(ctx: &mut Context<'_, '_>, revoke: &RevokeSourceKey) -> Decision {
    let key = keys::source_key(&revoke.source, &revoke.key_id);
    let Some(mut row) = ctx.rows.row::<SourceKeyRow>(&key)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "the source has no such key")));
    };
    if !row.revoked {
        let count_key = keys::Key::of(table::SOURCE_KEY).name(&revoke.source).raw(b"n").done();
        let count = ctx.rows.number(&count_key)?;
        ctx.rows.put_number(count_key, count.saturating_sub(1));
    }
    row.revoked = true;
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect::on(vec![
        format!("source={}", revoke.source),
        format!("key={}", hex(&revoke.key_id)),
        "revoked".to_owned(),
    ])))
}

/// Enters that a refused record is sent again. Whether it exists, its own group says; whether it
/// was sent again before, the stream that bears its id.
pub(super) fn resend(ctx: &mut Context<'_, '_>, resend: &ResendQuarantined) -> Decision {
    if ctx.rows.get(&keys::named(table::SOURCE, &resend.source))?.is_none() {
        return Ok(Err(refused(RefusalKind::NotFound, "no such source")));
    }
    let ResendQuarantined { group, index, ordinal, record, .. } = resend;
    let id = format!("resend={group}-{index}-{ordinal}-{record}");
    Ok(Ok(Effect::on(vec![format!("source={}", resend.source), id])))
}
