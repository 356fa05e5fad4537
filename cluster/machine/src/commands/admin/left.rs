//! What a node held of a life that is over, as the ledger tells of it.

use dtm_types::NodeId;
use dtm_types::command::{LeftAction, RefusalKind, SettleLeft};

use super::{Decision, Effect};
use crate::commands::{Context, refused};

/// Enters what was decided about it. No row changes: what was kept lies on that node alone.
pub(super) fn settle(_ctx: &mut Context<'_, '_>, settled: &SettleLeft) -> Decision {
    let action = match settled.action() {
        LeftAction::Unspecified => None,
        LeftAction::Resent => Some("resent"),
        LeftAction::Discarded => Some("discarded"),
    };
    let is_whole = settled.digest.len() == 32 && settled.present <= settled.records;
    let node = NodeId::from_slice(&settled.node).filter(|_| is_whole && settled.incarnation > 0);
    let Some((node, action)) = node.zip(action) else {
        let what = "what was left behind has a node, a life, an action and a digest of 32 bytes";
        return Ok(Err(refused(RefusalKind::Malformed, what)));
    };
    let hex: String = settled.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Ok(Effect::on(vec![
        format!("node={node}"),
        format!("life={}", settled.incarnation),
        format!("left={action}"),
        format!("entries={}", settled.entries),
        format!("records={}", settled.records),
        format!("present={}", settled.present),
        format!("digest={hex}"),
    ])))
}
