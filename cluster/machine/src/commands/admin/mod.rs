//! `Admin`: changes of meta. The leaf of an action is in the same entry as its effect; a refused
//! action changes nothing and leaves nothing here (the door counts it).

mod approvals;
mod backups;
mod certificates;
mod cluster;
mod datasets;
mod layout;
mod left;
mod lines;
mod nodes;
mod operators;
mod requests;
mod settings;
mod sources;

use dtm_types::command::admin::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Admin, Done, Outcome};
use dtm_types::format::LeafKind;

use super::{Context, answer, unknown};
use crate::keys::{self, table};
use crate::leaves;
use crate::machine::ApplyError;

/// What an operation wrote, for its leaf and its answer.
#[derive(Default)]
pub(super) struct Effect {
    pub(super) object_ids: Vec<String>,
    pub(super) version: u64,
    pub(super) group: u32,
}

impl Effect {
    pub(super) fn on(object_ids: Vec<String>) -> Self {
        Self { object_ids, ..Self::default() }
    }
}

/// Either an effect or the refusal that the caller sees.
pub(super) type Decision = Result<Result<Effect, Outcome>, ApplyError>;

/// Applies an administrative action once, however often its request arrives.
pub(crate) fn apply(ctx: &mut Context<'_, '_>, admin: Admin) -> Result<Outcome, ApplyError> {
    if let Some(outcome) = requests::held(ctx)? {
        return Ok(outcome);
    }
    let Some(op) = admin.op else {
        return Err(unknown(ctx));
    };
    let expected = admin.expected_version;
    let decision = match op {
        Op::PutSource(row) => sources::put(ctx, row, expected),
        Op::PutSourceKey(row) => sources::put_key(ctx, row),
        Op::RevokeSourceKey(revoke) => sources::revoke_key(ctx, &revoke),
        Op::PutSourceCertificate(row) => certificates::put(ctx, row),
        Op::RevokeSourceCertificate(revoke) => certificates::revoke(ctx, &revoke),
        Op::PutDataset(row) => datasets::put(ctx, row),
        Op::PutOperator(row) => operators::put(ctx, row),
        Op::RevokeOperator(revoke) => operators::revoke(ctx, &revoke.name),
        Op::PutNode(row) => nodes::put(ctx, row),
        Op::RemoveNode(remove) => nodes::remove(ctx, &remove),
        Op::BootNode(boot) => nodes::boot(ctx, boot),
        Op::PutJoinToken(row) => nodes::put_token(ctx, row),
        Op::UseJoinToken(join) => nodes::use_token(ctx, join),
        Op::PutGroup(row) => cluster::put_group(ctx, row, expected),
        Op::PutCluster(row) => cluster::put_cluster(ctx, row),
        Op::ResendQuarantined(resend) => sources::resend(ctx, &resend),
        Op::TransferLeader(transfer) => cluster::transfer_leader(ctx, &transfer),
        Op::RotateClusterKey(rotate) => cluster::rotate_key(ctx, &rotate),
        Op::IssueNodeCertificate(issue) => certificates::issue_to_node(ctx, &issue),
        Op::RequestApproval(asked) => approvals::request(ctx, asked),
        Op::GrantApproval(grant) => approvals::grant(ctx, grant),
        Op::DenyApproval(deny) => approvals::deny(ctx, deny),
        Op::PutSettings(put) => settings::put(ctx, put, expected),
        Op::EnterBackup(backup) => backups::enter(ctx, &backup),
        Op::PutLayout(row) => layout::put(ctx, row, expected),
        Op::SettleLeft(settled) => left::settle(ctx, &settled),
        Op::EnterLine(entered) => lines::enter(ctx, &entered),
        Op::DetachSite(detach) => layout::detach(ctx, &detach),
    };
    let effect = match decision? {
        Ok(effect) => effect,
        Err(refusal) => return Ok(refusal),
    };
    let leaf_index = leaves::append(ctx, LeafKind::Admin, effect.object_ids, admin.detail_digest);
    if !admin.sealed_detail.is_empty() {
        ctx.rows.put(keys::Key::of(table::DETAIL).u64(leaf_index).done(), admin.sealed_detail);
    }
    let outcome = answer(Answer::Done(Done {
        offset: ctx.index,
        leaf_index,
        version: effect.version,
        group: effect.group,
    }));
    requests::keep(ctx, &outcome)?;
    Ok(outcome)
}
