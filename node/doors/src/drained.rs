//! Keeps this node as its row in meta says: drained until it is taken back, also over a restart and
//! where the call that was to drain it did not arrive. Leaders are the controller's work, which
//! reads the same row.

use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_machine::seams::StateRead;
use dtm_types::NodeId;

use super::shared::Shared;

/// How often the row is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs until it is dropped.
pub async fn keep_drained(shared: Arc<Shared>) {
    let mut seen = Seen::default();
    loop {
        if let Ok(meta) = shared.directory.meta(shared.view()).await
            && let Some(drained) = seen.change(meta.state.as_ref(), shared.node)
        {
            tracing::info!(drained, "as this node's row says");
            shared.drain_local(!drained).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the row said last. Only its changes count: an operator's call reaches the node before the
/// row may, and is not undone by the row as it was.
#[derive(Default)]
struct Seen(bool);

impl Seen {
    /// Whether to be drained from now on, where that is news.
    fn change(&mut self, meta: &dyn StateRead, node: NodeId) -> Option<bool> {
        let drained = reads::node(meta, node).ok()??.draining;
        (std::mem::replace(&mut self.0, drained) != drained).then_some(drained)
    }
}

#[cfg(test)]
mod tests {
    use dtm_machine::keys::{self, table};
    use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
    use dtm_types::GroupId;
    use dtm_types::command::NodeRow;
    use prost::Message;

    use super::*;

    #[test]
    fn only_a_change_of_the_row_counts() {
        let (node, state) = (NodeId([1; 16]), MemoryStateStore::new(GroupId::META));
        let put = |draining| {
            let row = NodeRow { node: vec![1; 16].into(), draining, ..NodeRow::default() };
            let mut batch = StateBatch::default();
            batch.put(keys::by_id(table::NODE, &node.0), row.encode_to_vec());
            state.write(&batch).expect("memory takes it");
        };
        let mut seen = Seen::default();
        assert_eq!(seen.change(&state, node), None, "no row yet");
        put(false);
        assert_eq!(seen.change(&state, node), None, "as it starts");
        put(true);
        assert_eq!(seen.change(&state, node), Some(true));
        assert_eq!(seen.change(&state, node), None, "a call to take it back is on its way");
        put(false);
        assert_eq!(seen.change(&state, node), Some(false));
        put(true);
        assert_eq!(Seen::default().change(&state, node), Some(true), "after a restart");
    }
}
