//! `PutKey`: a wrapped key, committed before its first use, in the same group as what it seals.

use bytes::Bytes;
use dtm_types::KeyId;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{KeyHeld, Outcome, PutKey, RefusalKind};
use dtm_types::format::{KeyPurpose, LeafKind, WrappedKey};

use super::{Context, answer, refused};
use crate::machine::ApplyError;
use crate::overlay::Overlay;
use crate::{keys, leaves};

/// The first key for (purpose, source, month) holds; a later proposal is told which one it is.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, command: PutKey) -> Result<Outcome, ApplyError> {
    let Some(key) = command.key else {
        return Ok(refused(RefusalKind::Malformed, "no key"));
    };
    let Some(id) = KeyId::from_slice(&key.key_id) else {
        return Ok(refused(RefusalKind::Malformed, "a key id has 16 bytes"));
    };
    if key.purpose() == KeyPurpose::Unspecified
        || key.wrapped.is_empty()
        || key.cluster_key_id.len() != 16
    {
        return Ok(refused(
            RefusalKind::Malformed,
            "purpose, wrapped bytes and cluster key are needed",
        ));
    }
    if let Some(held) = held(ctx.rows, key.purpose, &key.source, key.month)? {
        return Ok(answer(Answer::KeyHeld(KeyHeld { key: Some(held), stored_now: false })));
    }
    if ctx.rows.get(&keys::key(id))?.is_some() {
        return Ok(refused(RefusalKind::Exists, "this key id is in use"));
    }
    ctx.rows.put(keys::key_of(key.purpose, &key.source, key.month), key.key_id.clone());
    ctx.rows.put_row(keys::key(id), &key);
    let ids = vec![
        format!("key={id}"),
        format!("purpose={}", key.purpose),
        key.source.clone(),
        format!("month={}", key.month),
    ];
    leaves::append(ctx, LeafKind::Key, ids, Bytes::new());
    Ok(answer(Answer::KeyHeld(KeyHeld { key: Some(key), stored_now: true })))
}

/// The key that holds for (purpose, source, month).
pub(crate) fn held(
    rows: &Overlay<'_>,
    purpose: i32,
    source: &str,
    month: u32,
) -> Result<Option<WrappedKey>, ApplyError> {
    let Some(id) = rows.get(&keys::key_of(purpose, source, month))? else {
        return Ok(None);
    };
    match KeyId::from_slice(&id) {
        Some(id) => rows.row(&keys::key(id)),
        None => Ok(None),
    }
}
