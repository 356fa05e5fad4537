//! Lines to other sites, as the ledger tells of them.

use dtm_types::NodeId;
use dtm_types::command::{EnterLine, LineChange, RefusalKind};

use super::{Decision, Effect};
use crate::commands::{Context, refused};

/// Enters what happened to a line. No row changes: which channel is in use is known to its ends alone.
pub(super) fn enter(_ctx: &mut Context<'_, '_>, entered: &EnterLine) -> Decision {
    let change = match entered.change() {
        LineChange::Unspecified => None,
        LineChange::Interrupted => Some("interrupted"),
        LineChange::Switched => Some("switched"),
        LineChange::Ordered => Some("ordered"),
        LineChange::Confirmed => Some("confirmed"),
        LineChange::Returned => Some("returned"),
    };
    let peer = NodeId::from_slice(&entered.peer);
    // An operator confirms for all lines at once.
    let of_all = entered.peer.is_empty() && entered.change() == LineChange::Confirmed;
    let Some(change) = change.filter(|_| peer.is_some() || of_all) else {
        let what = "what happened to a line has a node of 16 bytes and a change";
        return Ok(Err(refused(RefusalKind::Malformed, what)));
    };
    let mut ids = vec![format!("line={change}")];
    if let Some(peer) = peer {
        ids.extend([
            format!("peer={peer}"),
            format!("from={}", entered.from),
            format!("to={}", entered.to),
            format!("since_us={}", entered.since_us),
            format!("cut_for_ms={}", entered.cut_for_ms),
        ]);
    }
    Ok(Ok(Effect::on(ids)))
}
