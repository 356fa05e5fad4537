//! Where a faulty implementation goes in.

use std::sync::Arc;

use dtm_cluster::{LogProvider, StateProvider};
use dtm_storage::vfs::Vfs;

/// What a node stands on, seam by seam. Asked at each start of a node; what is handed in is the true
/// implementation.
pub trait Seams: Send + Sync + 'static {
    /// The disk below the log.
    fn vfs(&self, _node: usize, disk: Arc<dyn Vfs>) -> Arc<dyn Vfs> {
        disk
    }

    /// The logs of a node's replicas.
    fn logs(&self, _node: usize, logs: Arc<dyn LogProvider>) -> Arc<dyn LogProvider> {
        logs
    }

    /// The rows of a node's replicas.
    fn states(&self, _node: usize, states: Arc<dyn StateProvider>) -> Arc<dyn StateProvider> {
        states
    }

    /// The cluster is formed: faults may begin.
    fn arm(&self) {}
}

/// The true implementations.
#[derive(Clone, Copy, Debug)]
pub struct True;

impl Seams for True {}
