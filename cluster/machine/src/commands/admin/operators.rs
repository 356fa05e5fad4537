//! Operators: certificates with a name and a role.

use dtm_types::command::{OperatorRow, RefusalKind};

use super::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::keys::{self, table};

/// Roles that exist.
const ROLES: [&str; 3] = ["operator", "approver", "auditor"];

/// Adds an operator, or gives a known name a new certificate.
pub(super) fn put(ctx: &mut Context<'_, '_>, row: OperatorRow) -> Decision {
    let name_fine = (1..=64).contains(&row.name.len()) && !row.name.chars().any(char::is_control);
    if !name_fine || !ROLES.contains(&row.role.as_str()) || row.certificate_digest.len() != 32 {
        return Ok(Err(refused(
            RefusalKind::Malformed,
            "name, role (operator, approver, auditor) and certificate are needed",
        )));
    }
    let ids = vec![format!("operator={}", uuid(&row.id)), format!("role={}", row.role)];
    ctx.rows.put_row(keys::named(table::OPERATOR, &row.name), &row);
    Ok(Ok(Effect::on(ids)))
}

/// Revokes an operator's certificate.
pub(super) fn revoke(ctx: &mut Context<'_, '_>, name: &str) -> Decision {
    let key = keys::named(table::OPERATOR, name);
    let Some(mut row) = ctx.rows.row::<OperatorRow>(&key)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "no such operator")));
    };
    row.revoked = true;
    let ids = vec![format!("operator={}", uuid(&row.id)), "revoked".to_owned()];
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect::on(ids)))
}

fn uuid(id: &[u8]) -> String {
    dtm_types::NodeId::from_slice(id).map(|id| id.to_string()).unwrap_or_default()
}
