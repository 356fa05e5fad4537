//! Certificates that were issued: to sources, each with a row, so that each can be revoked; to nodes
//! that run, each with its leaf (a node is cut off by its own row).

use dtm_types::NodeId;
use dtm_types::command::{
    IssueNodeCertificate, NodeRow, RefusalKind, RevokeSourceCertificate, SourceCertificateRow,
};

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

/// Says that a node is given a certificate anew. No row changes.
pub(super) fn issue_to_node(ctx: &mut Context<'_, '_>, issue: &IssueNodeCertificate) -> Decision {
    let is_whole =
        issue.digest.len() == DIGEST_BYTES && (1..=SERIAL_BYTES_MAX).contains(&issue.serial.len());
    let Some(id) = NodeId::from_slice(&issue.node).filter(|_| is_whole) else {
        let what = "a node has an id of 16 bytes, its certificate a SHA-256 and a serial";
        return Ok(Err(refused(RefusalKind::Malformed, what)));
    };
    let row: Option<NodeRow> = ctx.rows.row(&keys::by_id(table::NODE, &issue.node))?;
    if row.is_none_or(|row| row.removed) {
        return Ok(Err(refused(RefusalKind::NotFound, "no such node")));
    }
    let (certificate, serial) = (hex(&issue.digest), hex(&issue.serial));
    Ok(Ok(Effect::on(vec![
        format!("node={id}"),
        format!("certificate={certificate}"),
        format!("serial={serial}"),
    ])))
}

fn ids(source: &str, digest: &[u8]) -> Vec<String> {
    vec![format!("source={source}"), format!("certificate={}", hex(digest))]
}
