//! What the nodes said of their replicas in one round.

use std::collections::{BTreeMap, BTreeSet};

use dtm_types::NodeId;

/// The replicas that each node says it holds; who did not answer is not in it.
#[derive(Clone, Debug, Default)]
pub struct Answers(BTreeMap<NodeId, BTreeSet<(u32, u64)>>);

impl Answers {
    /// Enters the answer of a node: groups with their replicas.
    pub fn enter(&mut self, node: NodeId, held: BTreeSet<(u32, u64)>) {
        self.0.insert(node, held);
    }

    /// Whether the node answered.
    pub fn has(&self, node: NodeId) -> bool {
        self.0.contains_key(&node)
    }

    /// Whether the node's log holds the replica; `None` when it did not answer.
    pub fn holds(&self, node: NodeId, group: u32, replica: u64) -> Option<bool> {
        Some(self.0.get(&node)?.contains(&(group, replica)))
    }

    #[cfg(test)]
    pub(crate) fn of(nodes: &[(NodeId, &[(u32, u64)])]) -> Self {
        Self(nodes.iter().map(|(node, held)| (*node, held.iter().copied().collect())).collect())
    }
}
