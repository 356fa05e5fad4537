//! Approvals: a second person's word, entered before the effect and used up by it.
//!
//! ```text
//!  RequestApproval ─▶ open ── GrantApproval, another person ─▶ granted ── the command itself ─▶ used
//!                      └─ DenyApproval, another person ─▶ denied ◀─┘     past its time: void
//! ```
//! People are rows of operators, found by the certificate of the command's actor. Who was revoked, or
//! was entered anew since, counts no more: neither as who asked nor as who granted.

mod decide;
mod request;
mod take;

pub(super) use decide::{deny, grant};
pub(super) use request::request;
pub(super) use take::take;

/// Whether an operator in force sent the command: what nodes enter by themselves takes nobody's word.
pub(super) fn is_by_operator(ctx: &Context<'_, '_>) -> Result<bool, ApplyError> {
    acting(ctx).map(|who| who.is_some())
}

use dtm_types::command::{ApprovalRow, OperatorRow, Outcome, RefusalKind};
use dtm_types::{ApprovalId, NodeId};

use crate::approval::REASON_BYTES_MAX;
use crate::commands::{Context, refused};
use crate::keys::{self, Key, table};
use crate::machine::ApplyError;

/// Groups at this version know approvals.
const APPROVALS: u32 = 2;

const OPERATOR: &str = "operator";
const APPROVER: &str = "approver";

fn no(detail: &str) -> Outcome {
    refused(RefusalKind::Approval, detail)
}

/// A release before would stop at the operation: none is applied before the group was raised.
fn too_early(ctx: &Context<'_, '_>) -> Option<Outcome> {
    let is_early = ctx.mirror.head.format_version < APPROVALS;
    is_early.then(|| refused(RefusalKind::Version, "approvals need version 2 of the cluster"))
}

/// The operator in force who sent the command, if it was one.
fn acting(ctx: &Context<'_, '_>) -> Result<Option<OperatorRow>, ApplyError> {
    let now_us = ctx.group_time_us;
    let is_actor = |row: &OperatorRow| {
        row.not_after_us > now_us && row.certificate_digest.get(..16) == Some(&ctx.actor_id[..])
    };
    operator(ctx, is_actor)
}

/// An operator by the id of its row.
fn person(ctx: &Context<'_, '_>, id: &[u8]) -> Result<Option<OperatorRow>, ApplyError> {
    operator(ctx, |row| row.id == id)
}

fn operator(
    ctx: &Context<'_, '_>,
    is_meant: impl Fn(&OperatorRow) -> bool,
) -> Result<Option<OperatorRow>, ApplyError> {
    let rows: Vec<OperatorRow> = ctx.rows.rows(Key::of(table::OPERATOR))?;
    Ok(rows.into_iter().find(|row| !row.revoked && row.id.len() == 16 && is_meant(row)))
}

fn may_decide(row: &OperatorRow) -> bool {
    row.role == OPERATOR || row.role == APPROVER
}

fn held(ctx: &Context<'_, '_>, id: &[u8]) -> Result<Option<ApprovalRow>, ApplyError> {
    if id.len() != 16 {
        return Ok(None);
    }
    ctx.rows.row(&keys::by_id(table::APPROVAL, id))
}

fn keep(ctx: &mut Context<'_, '_>, row: &ApprovalRow) {
    ctx.rows.put_row(keys::by_id(table::APPROVAL, &row.id), row);
}

fn is_line(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(char::is_control)
}

fn is_reason(text: &str) -> bool {
    is_line(text, REASON_BYTES_MAX)
}

/// As a leaf names it: ids only.
pub(super) fn object_id(id: &[u8]) -> String {
    format!("approval={}", ApprovalId::from_slice(id).unwrap_or_default())
}

fn person_id(what: &str, id: &[u8]) -> String {
    format!("{what}={}", NodeId::from_slice(id).unwrap_or_default())
}
