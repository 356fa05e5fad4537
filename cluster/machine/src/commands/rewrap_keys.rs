//! `RewrapKeys`: data keys under a new cluster key. Sealed bytes never change in place.

use bytes::Bytes;
use dtm_types::KeyId;
use dtm_types::command::{Outcome, RefusalKind, RewrapKeys};
use dtm_types::format::{LeafKind, WrappedKey};

use super::{Context, done, refused};
use crate::machine::ApplyError;
use crate::{keys, leaves};

/// All keys of the command are known and keep purpose, source and month, or none is changed.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, command: RewrapKeys) -> Result<Outcome, ApplyError> {
    let mut changes = Vec::with_capacity(command.keys.len());
    for key in command.keys {
        let Some(id) = KeyId::from_slice(&key.key_id) else {
            return Ok(refused(RefusalKind::Malformed, "a key id has 16 bytes"));
        };
        let Some(old) = ctx.rows.row::<WrappedKey>(&keys::key(id))? else {
            return Ok(refused(RefusalKind::UnknownKey, &format!("key {id} is not held")));
        };
        if (old.purpose, &old.source, old.month) != (key.purpose, &key.source, key.month) {
            return Ok(refused(
                RefusalKind::Malformed,
                "a rewrapped key keeps purpose, source and month",
            ));
        }
        changes.push((id, key));
    }
    if changes.is_empty() {
        return Ok(refused(RefusalKind::Malformed, "no key"));
    }
    let ids = changes.iter().map(|(id, _)| format!("key={id}")).collect();
    for (id, key) in changes {
        ctx.rows.put_row(keys::key(id), &key);
    }
    let leaf_index = leaves::append(ctx, LeafKind::Key, ids, Bytes::new());
    Ok(done(ctx, leaf_index))
}
