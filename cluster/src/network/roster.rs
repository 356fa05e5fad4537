//! What is known of the other nodes: whether meta has them, and the highest start of each that was
//! heard of. Owner of the accepted connections: those of a removed node and those of an earlier
//! start of a node are cut.
//!
//! ```text
//!  rows of meta ──learn──▶ roster ◀──hear── every call of a peer
//!                            └─▶ cut: removed, or a start before the newest
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dtm_types::NodeId;
use dtm_types::command::NodeRow;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Line {
    node: NodeId,
    /// The start of the peer that speaks here; 0 until its first call.
    boot_counter: AtomicU64,
    /// Cancelled when nothing more is heard from this connection.
    cut: CancellationToken,
}

impl Line {
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }
}

/// Why a peer is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unheard {
    /// Meta says that the node was removed.
    Removed,
    /// A later start of the node is known.
    OldCopy,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether the row says removed; `None` = no row.
    removed: Option<bool>,
    boot_counter: u64,
    lines: Vec<Weak<Line>>,
}

impl Known {
    fn cut_stale(&mut self) {
        let (is_removed, newest) = (self.removed == Some(true), self.boot_counter);
        self.lines.retain(|line| {
            let Some(line) = line.upgrade() else { return false };
            let boot_counter = line.boot_counter.load(Ordering::Acquire);
            let is_stale = is_removed || (boot_counter > 0 && boot_counter < newest);
            if is_stale {
                line.cut.cancel();
            }
            !is_stale
        });
    }
}

/// The other nodes, as this one knows them.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: HashMap<NodeId, Known>,
    is_loaded: bool,
}

impl Roster {
    /// Takes over what meta says now.
    pub(crate) fn learn(&self, rows: &[NodeRow]) {
        let mut inner = self.inner.lock();
        inner.is_loaded = !rows.is_empty();
        for row in rows {
            let Some(node) = NodeId::from_slice(&row.node) else { continue };
            let known = inner.nodes.entry(node).or_default();
            known.removed = Some(row.removed);
            known.boot_counter = known.boot_counter.max(row.boot_counter);
            known.cut_stale();
        }
    }

    /// Meta does not run here (any more): a node without a row may be a new one.
    pub(crate) fn unload(&self) {
        self.inner.lock().is_loaded = false;
    }

    /// Registers an accepted connection; `cut` is cancelled when it is heard no more.
    pub(crate) fn accept(&self, node: NodeId, cut: CancellationToken) -> Arc<Line> {
        let line = Arc::new(Line { node, boot_counter: AtomicU64::new(0), cut });
        let mut inner = self.inner.lock();
        let lines = &mut inner.nodes.entry(node).or_default().lines;
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        line
    }

    /// A peer speaks under this start; whether meta lists it.
    pub(crate) fn hear(&self, line: &Line, boot_counter: u64) -> Result<bool, Unheard> {
        let mut inner = self.inner.lock();
        let is_loaded = inner.is_loaded;
        let known = inner.nodes.entry(line.node).or_default();
        if known.removed == Some(true) {
            return Err(Unheard::Removed);
        }
        if boot_counter < known.boot_counter {
            return Err(Unheard::OldCopy);
        }
        line.boot_counter.fetch_max(boot_counter, Ordering::AcqRel);
        if boot_counter > known.boot_counter {
            known.boot_counter = boot_counter;
            known.cut_stale();
        }
        Ok(!is_loaded || known.removed.is_some())
    }

    /// Highest start of a node that was heard of, and whether it was removed.
    pub(crate) fn of(&self, node: NodeId) -> (u64, bool) {
        let inner = self.inner.lock();
        let known = inner.nodes.get(&node);
        known.map_or((0, false), |known| (known.boot_counter, known.removed == Some(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 16])
    }

    fn row(byte: u8, boot_counter: u64, removed: bool) -> NodeRow {
        NodeRow { node: vec![byte; 16].into(), boot_counter, removed, ..NodeRow::default() }
    }

    #[test]
    fn a_removed_node_is_cut_and_not_heard() {
        let roster = Roster::default();
        roster.learn(&[row(1, 1, false), row(2, 1, false)]);
        let line = roster.accept(node(2), CancellationToken::new());
        assert_eq!(roster.hear(&line, 1), Ok(true));
        assert!(!line.cut.is_cancelled());
        roster.learn(&[row(1, 1, false), row(2, 1, true)]);
        assert!(line.cut.is_cancelled());
        assert_eq!(roster.hear(&line, 9), Err(Unheard::Removed));
        let again = roster.accept(node(2), CancellationToken::new());
        assert_eq!(roster.hear(&again, 9), Err(Unheard::Removed));
    }

    #[test]
    fn a_later_start_silences_the_earlier_one() {
        let roster = Roster::default();
        let old = roster.accept(node(2), CancellationToken::new());
        assert_eq!(roster.hear(&old, 3), Ok(true));
        let new = roster.accept(node(2), CancellationToken::new());
        assert_eq!(roster.hear(&new, 4), Ok(true));
        assert!(old.cut.is_cancelled() && !new.cut.is_cancelled());
        assert_eq!(roster.hear(&old, 3), Err(Unheard::OldCopy));
        roster.learn(&[row(2, 7, false)]);
        assert!(new.cut.is_cancelled(), "meta knows a later one");
        assert_eq!(roster.of(node(2)), (7, false));
    }

    #[test]
    fn a_node_without_a_row_is_listed_only_while_nothing_is_known() {
        let roster = Roster::default();
        let line = roster.accept(node(3), CancellationToken::new());
        assert_eq!(roster.hear(&line, 1), Ok(true), "meta is not here yet");
        roster.learn(&[row(1, 1, false)]);
        assert_eq!(roster.hear(&line, 1), Ok(false));
        roster.unload();
        assert_eq!(roster.hear(&line, 1), Ok(true));
    }
}
