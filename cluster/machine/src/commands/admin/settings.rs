//! The cluster's settings: one small row, and one row of its history for each version.
//!
//! The node that is asked has checked keys and values with the code that reads its file; apply holds
//! only what every release must hold alike: the version, order and sizes. A key that a node's
//! software does not know is kept, so that a cluster of two releases loses nothing.

use std::collections::BTreeMap;

use dtm_types::command::{PutSettings, RefusalKind, Setting, SettingsRow};
use prost::Message;

use super::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::keys::{self, table};

/// Most keys that are set at once.
const KEYS_MAX: usize = 256;
/// Most changes at once: all that are set taken away, and as many set.
const CHANGES_MAX: usize = 2 * KEYS_MAX;
/// Longest key, bytes.
const KEY_BYTES_MAX: usize = 128;
/// Longest value, bytes.
const VALUE_BYTES_MAX: usize = 4096;
/// Largest row, bytes.
const ROW_BYTES_MAX: usize = 64 << 10;
/// Versions that are held; the ledger names all.
const HISTORY_MAX: u64 = 1_000;

/// Writes the next version. `expected` is the version that the proposer saw, 0 where none was.
pub(super) fn put(ctx: &mut Context<'_, '_>, put: PutSettings, expected: Option<u64>) -> Decision {
    let Some(expected) = expected else {
        return Ok(Err(refused(RefusalKind::Malformed, "the version to change is needed")));
    };
    let ascending = put.changes.is_sorted_by(|a, b| a.key < b.key);
    if put.changes.is_empty() || !ascending {
        return Ok(Err(refused(RefusalKind::Malformed, "keys are named ascending, each once")));
    }
    let fits = |key: &str, value: &str| {
        (1..=KEY_BYTES_MAX).contains(&key.len()) && value.len() <= VALUE_BYTES_MAX
    };
    let fitting = put.changes.iter().all(|change| fits(&change.key, change.value()));
    if put.changes.len() > CHANGES_MAX || !fitting {
        return Ok(Err(refused(RefusalKind::Limit, "a key or value is too long, or too many")));
    }
    let old: SettingsRow = ctx.rows.row(&[table::SETTINGS])?.unwrap_or_default();
    let next = old.version.checked_add(1).filter(|_| old.version == expected);
    let Some(version) = next else {
        return Ok(Err(refused(RefusalKind::Version, "the settings were changed meanwhile")));
    };
    if put.restores > old.version {
        return Ok(Err(refused(RefusalKind::NotFound, "there is no such version to restore")));
    }
    let mut ids = vec![format!("settings={version}")];
    let mut settings: BTreeMap<String, String> =
        old.settings.into_iter().map(|setting| (setting.key, setting.value)).collect();
    if put.restores > 0 {
        ids.push(format!("restores={}", put.restores));
    }
    for change in put.changes {
        ids.push(format!("key={}", change.key));
        match change.value {
            Some(value) => settings.insert(change.key, value),
            None => settings.remove(&change.key),
        };
    }
    let settings: Vec<Setting> =
        settings.into_iter().map(|(key, value)| Setting { key, value }).collect();
    let row = SettingsRow {
        version,
        settings,
        time_us: ctx.group_time_us,
        actor_id: ctx.actor_id.clone(),
        restores: put.restores,
    };
    if row.settings.len() > KEYS_MAX || row.encoded_len() > ROW_BYTES_MAX {
        return Ok(Err(refused(RefusalKind::Limit, "at most 256 keys and 64 KiB are set")));
    }
    ctx.rows.put_row(keys::settings_version(version), &row);
    if let Some(oldest) = version.checked_sub(HISTORY_MAX).filter(|&oldest| oldest > 0) {
        ctx.rows.delete(keys::settings_version(oldest));
    }
    ctx.rows.put_row(vec![table::SETTINGS], &row);
    Ok(Ok(Effect { version, ..Effect::on(ids) }))
}
