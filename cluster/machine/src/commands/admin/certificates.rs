//! Certificates that were issued to sources: each has a row, so that each can be revoked.

use dtm_types::command::{RefusalKind, RevokeSourceCertificate, SourceCertificateRow};

use super::{Decision, Effect};
use crate::commands::{Context, refused};
use crate::keys::{self, table};
use crate::overlay::hex;

/// Bytes of a digest (SHA-256).
const DIGEST_BYTES: usize = 32;
/// Longest serial number (RFC 5280).
const SERIAL_BYTES_MAX: usize = 20;

/// Enters a certificate that is being issued.
pub(super) fn put(ctx: &mut Context<'_, '_>, mut row: SourceCertificateRow) -> Decision {
    if row.digest.len() != DIGEST_BYTES || row.serial.len() > SERIAL_BYTES_MAX {
        return Ok(Err(refused(
            RefusalKind::Malformed,
            "a certificate is entered by its SHA-256 and a serial of at most 20 bytes",
        )));
    }
    if ctx.rows.get(&keys::named(table::SOURCE, &row.source))?.is_none() {
        return Ok(Err(refused(RefusalKind::NotFound, "the source does not exist")));
    }
    let key = keys::source_certificate(&row.source, &row.digest);
    if ctx.rows.get(&key)?.is_some() {
        return Ok(Err(refused(RefusalKind::Exists, "this certificate is entered already")));
    }
    (row.revoked, row.issued_us) = (false, ctx.group_time_us);
    let ids = ids(&row.source, &row.digest);
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect::on(ids)))
}

/// Revokes a certificate for good.
pub(super) fn revoke(ctx: &mut Context<'_, '_>, revoke: &RevokeSourceCertificate) -> Decision {
    let key = keys::source_certificate(&revoke.source, &revoke.digest);
    let Some(mut row) = ctx.rows.row::<SourceCertificateRow>(&key)? else {
        return Ok(Err(refused(RefusalKind::NotFound, "the source has no such certificate")));
    };
    row.revoked = true;
    let mut ids = ids(&row.source, &row.digest);
    ids.push("revoked".to_owned());
    ctx.rows.put_row(key, &row);
    Ok(Ok(Effect::on(ids)))
}

fn ids(source: &str, digest: &[u8]) -> Vec<String> {
    vec![format!("source={source}"), format!("certificate={}", hex(digest))]
}
