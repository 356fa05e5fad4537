//! What happens to the lines, told to whoever keeps a log, figures and a ledger.

use std::time::Duration;

use dtm_types::NodeId;

/// Something happened to the line to `node`. Paths are positions in the list of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is a line (again).
    Up {
        /// The peer.
        node: NodeId,
        /// The path that works.
        path: usize,
        /// How long there was none.
        cut_for: Duration,
    },
    /// No path has a connection any more.
    Cut {
        /// The peer.
        node: NodeId,
        /// The path that ended last.
        path: usize,
    },
    /// The first path has been cut for as long as makes it an incident ([`Settings::incident_after`]).
    ///
    /// [`Settings::incident_after`]: crate::Settings::incident_after
    Interrupted {
        /// The peer.
        node: NodeId,
        /// How long ago the last good message came over it: there the incident begins.
        cut_for: Duration,
    },
    /// Another path is in use than before.
    Switched {
        /// The peer.
        node: NodeId,
        /// The one before.
        from: usize,
        /// The one now.
        to: usize,
        /// How long ago the last good message came over the first one.
        cut_for: Duration,
    },
    /// The first path works again, after an incident or after another one was in use.
    Mended {
        /// The peer.
        node: NodeId,
        /// The path that was in use last.
        from: usize,
        /// How long the first one was cut, since its last good message.
        after: Duration,
    },
    /// The first path is in use again.
    Returned {
        /// The peer.
        node: NodeId,
        /// The one before.
        from: usize,
        /// How long the first one was cut, since its last good message.
        after: Duration,
    },
    /// The first path has been cut for the time of the rule; one confirmation is waited for.
    ConfirmationAwaited {
        /// The peer.
        node: NodeId,
        /// How long it has been cut.
        cut_for: Duration,
    },
    /// The standby channel is ordered: the first path was cut for the time of the rule.
    StandbyOrdered {
        /// The peer.
        node: NodeId,
        /// How long it has been cut.
        cut_for: Duration,
        /// By one confirmation; else by itself.
        confirmed: bool,
    },
}

impl Event {
    /// The peer that it is about.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Up { node, .. }
            | Self::Cut { node, .. }
            | Self::Interrupted { node, .. }
            | Self::Switched { node, .. }
            | Self::Mended { node, .. }
            | Self::Returned { node, .. }
            | Self::ConfirmationAwaited { node, .. }
            | Self::StandbyOrdered { node, .. } => *node,
        }
    }
}

/// Hears of events. Called in order for one peer, under no lock; must not block.
pub trait Events: Send + Sync + 'static {
    /// It happened.
    fn tell(&self, event: &Event);
}
