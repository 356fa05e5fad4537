//! Changes of meta that others go by: sources, agreements, keys, data sets, operators, settings,
//! approvals. With a standby they are begun only with the right to acknowledge, and told as done only
//! once a majority at the standby has them on disk, as records of level `site` are. It never becomes
//! less: while the standby is behind the outcome is not known.
//!
//! What frees from a standby that is gone is none of them: a layout, a detachment, the removal of a node,
//! and the approvals of these.

use std::time::Duration;

use dtm_machine::seams::SiteCopies;
use dtm_machine::{approval, reads};
use dtm_types::command::admin::Op;
use dtm_types::text::Told;
use dtm_types::{ApprovalId, ErrorCode, GroupId};
use tokio::time::Instant;
use tonic::Status;

use crate::Shared;
use crate::status::{internal, told};

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(20);
/// A primary that has just started has the right again within that, where it gets it at all.
const RIGHT_WITHIN: Duration = Duration::from_secs(5);

/// Kinds of approvals that do not wait for the standby: what they are for is the way out without it.
const WAYS_OUT: [&str; 2] = [approval::DETACH_SITE, approval::REMOVE_NODE];

/// Whether others go by this change.
pub(crate) async fn is_depended_on(shared: &Shared, op: &Op) -> Result<bool, Status> {
    let id = match op {
        Op::PutSource(_)
        | Op::PutSourceKey(_)
        | Op::RevokeSourceKey(_)
        | Op::PutSourceCertificate(_)
        | Op::RevokeSourceCertificate(_)
        | Op::PutDataset(_)
        | Op::PutOperator(_)
        | Op::RevokeOperator(_)
        | Op::RotateClusterKey(_)
        | Op::PutSettings(_) => return Ok(true),
        Op::RequestApproval(asked) => return Ok(!WAYS_OUT.contains(&&*asked.kind)),
        Op::GrantApproval(grant) => &grant.id,
        Op::DenyApproval(deny) => &deny.id,
        _ => return Ok(false),
    };
    let Some(id) = ApprovalId::from_slice(id) else { return Ok(true) };
    let meta = shared.directory.meta_now(shared.view()).await?;
    let row = reads::approval(meta.state.as_ref(), id).map_err(internal)?;
    Ok(row.is_none_or(|row| !WAYS_OUT.contains(&&*row.kind)))
}

/// Waits for the right to acknowledge, where this node's site is primary and does not have it.
///
/// # Errors
/// `Unavailable`: nothing was begun.
pub(crate) async fn may_begin(shared: &Shared) -> Result<(), Status> {
    let deadline = Instant::now() + RIGHT_WITHIN;
    while let Some(why) = shared.primacy.has_no_right() {
        if Instant::now() >= deadline {
            return Err(told(ErrorCode::Unavailable, &why));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Whether the caller is handed something that is made in this call and stored nowhere: it may not get
/// lost to a standby that is late.
pub(crate) fn hands_out(op: &Op) -> bool {
    matches!(op, Op::PutOperator(_) | Op::PutSourceKey(_) | Op::PutSourceCertificate(_))
}

/// Waits until the standby holds meta as it is here now.
///
/// # Errors
/// `Unavailable`: it is behind; nothing was begun.
pub(crate) async fn keeps_up(shared: &Shared) -> Result<(), Status> {
    let groups = shared.cluster.status();
    let meta = groups.iter().find(|group| group.group.is_meta());
    let held = meta.map_or(0, |meta| meta.head.index);
    if is_through(shared, held).await {
        return Ok(());
    }
    Err(told(ErrorCode::Unavailable, &Told::new("refused.standby_away")))
}

/// Waits until the standby has meta through this index. Without a standby, or without a copy of meta
/// there, there is nothing to wait for.
///
/// # Errors
/// `OutcomeUnknown`: it is entered here, and would be left behind by a promotion now.
pub(crate) async fn is_at_standby(shared: &Shared, index: u64) -> Result<(), Status> {
    if is_through(shared, index).await {
        return Ok(());
    }
    metrics::counter!("dtm_site_actions_late_total").increment(1);
    let within = shared.config.limits.site_ack_within_ms;
    let what = Told::new("refused.standby_behind").with("ms", within);
    Err(told(ErrorCode::OutcomeUnknown, &what))
}

/// Whether the standby has meta through this index within `limits.site_ack_within_ms`.
async fn is_through(shared: &Shared, index: u64) -> bool {
    let within = Duration::from_millis(shared.config.limits.site_ack_within_ms);
    let deadline = Instant::now() + within;
    while shared.cluster.through(GroupId::META).is_some_and(|through| through < index) {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
    true
}
