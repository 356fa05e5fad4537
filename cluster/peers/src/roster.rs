//! What is known of the other nodes: whether meta has them, and the highest start of each that was
//! heard of. Owner of the accepted connections: those of a removed node and those of an earlier
//! start of a node are cut.
//!
//! ```text
//!  rows of meta, members of groups ──learn──▶ roster ◀──hear── every call of a peer
//!                                               └─▶ cut: removed and no group's member any more,
//!                                                        or a start before the newest
//! ```
//!
//! A removed node is heard in the groups that still name it: their members change with its vote,
//! and until they have, the group may need it to elect and to commit.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dtm_types::NodeId;
use dtm_types::command::NodeRow;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// One accepted connection.
#[derive(Debug)]
pub struct Line {
    node: NodeId,
    /// The start of the peer that speaks here; 0 until its first call.
    boot_counter: AtomicU64,
    /// Cancelled when nothing more is heard from this connection.
    cut: CancellationToken,
}

impl Line {
    pub fn node(&self) -> NodeId {
        self.node
    }
}

/// What meta says of a peer, and so in what it is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Meta, as applied here, has it (or is not here to say so).
    Listed,
    /// Meta, as applied here, does not have it yet.
    Unlisted,
    /// Meta says that it was removed; a group here still names it as a member.
    Leaving,
}

/// Why a peer is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// Meta says that the node was removed, and no group here names it.
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
    fn cut_stale(&mut self, is_member: bool) {
        let is_removed = self.removed == Some(true) && !is_member;
        let newest = self.boot_counter;
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
pub struct Roster {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: HashMap<NodeId, Known>,
    /// Nodes that the groups which run here name as members.
    members: BTreeSet<NodeId>,
    is_loaded: bool,
}

impl Inner {
    fn cut_stale(&mut self) {
        for (node, known) in &mut self.nodes {
            known.cut_stale(self.members.contains(node));
        }
    }
}

impl Roster {
    /// Takes over what meta says now.
    pub fn learn(&self, rows: &[NodeRow]) {
        let mut inner = self.inner.lock();
        inner.is_loaded = !rows.is_empty();
        for row in rows {
            let Some(node) = NodeId::from_slice(&row.node) else { continue };
            let known = inner.nodes.entry(node).or_default();
            known.removed = Some(row.removed);
            known.boot_counter = known.boot_counter.max(row.boot_counter);
        }
        inner.cut_stale();
    }

    /// Takes over whom the groups that run here name as members: to be said before the rows of meta
    /// are [learned](Roster::learn), so that nobody is cut who is needed.
    pub fn note_members(&self, members: BTreeSet<NodeId>) {
        let mut inner = self.inner.lock();
        inner.members = members;
        inner.cut_stale();
    }

    /// Meta does not run here (any more): a node without a row may be a new one.
    pub fn unload(&self) {
        self.inner.lock().is_loaded = false;
    }

    /// Registers an accepted connection; `cut` is cancelled when it is heard no more.
    pub fn accept(&self, node: NodeId, cut: CancellationToken) -> Arc<Line> {
        let line = Arc::new(Line { node, boot_counter: AtomicU64::new(0), cut });
        let mut inner = self.inner.lock();
        let lines = &mut inner.nodes.entry(node).or_default().lines;
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        line
    }

    /// A peer speaks under this start; in what it is heard.
    pub fn hear(&self, line: &Line, boot_counter: u64) -> Result<Listing, Unheard> {
        let mut inner = self.inner.lock();
        let (is_loaded, is_member) = (inner.is_loaded, inner.members.contains(&line.node));
        let known = inner.nodes.entry(line.node).or_default();
        let listing = match known.removed {
            Some(true) if is_member => Listing::Leaving,
            Some(true) => return Err(Unheard::Removed),
            None if is_loaded => Listing::Unlisted,
            Some(false) | None => Listing::Listed,
        };
        if boot_counter < known.boot_counter {
            return Err(Unheard::OldCopy);
        }
        line.boot_counter.fetch_max(boot_counter, Ordering::AcqRel);
        if boot_counter > known.boot_counter {
            known.boot_counter = boot_counter;
            known.cut_stale(is_member);
        }
        Ok(listing)
    }

    /// Highest start of a node that was heard of, and whether it was removed.
    pub fn of(&self, node: NodeId) -> (u64, bool) {
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
        assert_eq!(roster.hear(&line, 1), Ok(Listing::Listed));
        assert!(!line.cut.is_cancelled());
        roster.learn(&[row(1, 1, false), row(2, 1, true)]);
        assert!(line.cut.is_cancelled());
        assert_eq!(roster.hear(&line, 9), Err(Unheard::Removed));
        let again = roster.accept(node(2), CancellationToken::new());
        assert_eq!(roster.hear(&again, 9), Err(Unheard::Removed));
    }

    // holds: LIVE-1
    #[test]
    fn a_removed_node_is_heard_until_no_group_names_it() {
        let roster = Roster::default();
        roster.note_members([node(1), node(2)].into());
        roster.learn(&[row(1, 1, false), row(2, 1, false)]);
        let line = roster.accept(node(2), CancellationToken::new());
        roster.learn(&[row(1, 1, false), row(2, 1, true)]);
        assert_eq!(roster.hear(&line, 1), Ok(Listing::Leaving));
        assert!(!line.cut.is_cancelled());
        roster.note_members([node(1)].into());
        assert!(line.cut.is_cancelled());
        assert_eq!(roster.hear(&line, 1), Err(Unheard::Removed));
    }

    #[test]
    fn a_later_start_silences_the_earlier_one() {
        let roster = Roster::default();
        let old = roster.accept(node(2), CancellationToken::new());
        assert_eq!(roster.hear(&old, 3), Ok(Listing::Listed));
        let new = roster.accept(node(2), CancellationToken::new());
        assert_eq!(roster.hear(&new, 4), Ok(Listing::Listed));
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
        assert_eq!(roster.hear(&line, 1), Ok(Listing::Listed), "meta is not here yet");
        roster.learn(&[row(1, 1, false)]);
        assert_eq!(roster.hear(&line, 1), Ok(Listing::Unlisted));
        roster.unload();
        assert_eq!(roster.hear(&line, 1), Ok(Listing::Listed));
    }
}
