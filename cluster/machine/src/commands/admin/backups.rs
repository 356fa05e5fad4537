//! Backups, as the ledger tells of them.

use dtm_types::BackupId;
use dtm_types::command::{EnterBackup, RefusalKind};

use super::{Decision, Effect};
use crate::commands::{Context, refused};

/// Enters that a backup is begun, or was written and read back. No row changes: where backups lie, and
/// which there still are, is not known here.
pub(super) fn enter(_ctx: &mut Context<'_, '_>, backup: &EnterBackup) -> Decision {
    let id = BackupId::from_slice(&backup.backup);
    let parent = BackupId::from_slice(&backup.parent);
    let is_whole = id.is_some()
        && (backup.parent.is_empty() || parent.is_some())
        && matches!(backup.manifest_digest.len(), 0 | 32);
    let Some(id) = id.filter(|_| is_whole) else {
        let what = "a backup has an id of 16 bytes and a manifest of a digest of 32";
        return Ok(Err(refused(RefusalKind::Malformed, what)));
    };
    let mut ids = vec![format!("backup={id}")];
    ids.extend(parent.map(|parent| format!("parent={parent}")));
    if backup.manifest_digest.is_empty() {
        ids.push("begun".to_owned());
    } else {
        let hex: String = backup.manifest_digest.iter().map(|byte| format!("{byte:02x}")).collect();
        ids.extend([format!("manifest={hex}"), format!("anchor={}", backup.anchor_leaf)]);
    }
    Ok(Ok(Effect::on(ids)))
}
