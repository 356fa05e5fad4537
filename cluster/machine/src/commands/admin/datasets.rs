//! Data sets: a published version never changes.

use dtm_types::command::{DatasetRow, RefusalKind};

use super::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::keys;

/// Largest definition file, bytes.
const DEFINITION_BYTES_MAX: usize = 1 << 20;

/// Publishes a version. The door has compiled the definition before; apply only keeps it.
pub(super) fn put(ctx: &mut Context<'_, '_>, row: DatasetRow) -> Decision {
    if row.dataset.is_empty()
        || row.dataset.contains('\0')
        || row.schema_version == 0
        || row.digest.len() != 32
    {
        return Ok(Err(refused(
            RefusalKind::Malformed,
            "data set, version from 1 and digest are needed",
        )));
    }
    if row.definition.len() > DEFINITION_BYTES_MAX {
        return Ok(Err(refused(RefusalKind::Limit, "a definition is at most 1 MiB")));
    }
    let key = keys::dataset(&row.dataset, row.schema_version);
    if ctx.rows.get(&key)?.is_some() {
        return Ok(Err(refused(
            RefusalKind::Exists,
            "this version is published and never changes",
        )));
    }
    let ids =
        vec![format!("dataset={}", row.dataset), format!("schema_version={}", row.schema_version)];
    ctx.rows.put_row(key, &DatasetRow { published_us: ctx.group_time_us, ..row });
    Ok(Ok(Effect::on(ids)))
}
