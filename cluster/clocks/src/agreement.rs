//! What clocks agree on. Pure: all times are given.
//!
//! A clock is held as its *base*: what it shows less the monotonic time of this node. Bases of clocks
//! that run alike stay as they are, so readings of some seconds ago can be compared, and a clock that
//! is set shows at once.
//!
//! ```text
//!         low   high          an odd number of clocks: both are the median
//!  ────●───●─────●───●────▶   an even one: the two in the middle
//!   │◀limit▶│   │◀limit▶│     sound: within `limit` of what lies between them
//! ```
//! Of two clocks that differ neither is wrong by this, nor is either half of an even split.

use std::collections::{BTreeSet, VecDeque};

use dtm_types::NodeId;

/// A peer counts as heard for so long after its last answer.
pub(super) const HEARD_US: i64 = 10_000_000;
/// Readings kept of one peer: more than one a second for [`HEARD_US`].
const READINGS_MAX: usize = 16;

/// One answer of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Base of the peer's clock; true to half of the round trip.
    pub(super) base_us: i64,
    /// From question to answer.
    pub(super) round_trip_us: i64,
    /// Monotonic time of the answer.
    pub(super) at_us: i64,
}

impl Reading {
    /// The peer showed `time_us` at some moment between question and answer.
    pub fn of(time_us: i64, asked_us: i64, answered_us: i64) -> Self {
        let round_trip_us = answered_us.saturating_sub(asked_us).max(0);
        // A peer may show anything; nothing may overflow on it.
        let time_us = time_us.clamp(0, i64::MAX / 4);
        let base_us = time_us - (asked_us + round_trip_us / 2);
        Self { base_us, round_trip_us, at_us: answered_us }
    }

    /// Both cannot be readings of a clock that was left alone.
    fn contradicts(&self, other: &Self) -> bool {
        let apart_us = (self.base_us - other.base_us).abs();
        apart_us > (self.round_trip_us + other.round_trip_us) / 2 + SLACK_US
    }
}

/// Clocks may be slewed by so much within [`HEARD_US`].
const SLACK_US: i64 = 10_000;

/// What was heard of one peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    readings: VecDeque<Reading>,
}

impl Peer {
    pub(super) fn hear(&mut self, reading: Reading) {
        if self.readings.back().is_some_and(|last| last.contradicts(&reading)) {
            // The clock was set: what was read before is of no use.
            self.readings.clear();
        }
        if self.readings.len() == READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
    }

    /// Base of its clock by the quickest answer of the last [`HEARD_US`].
    pub(super) fn base_us(&self, now_us: i64) -> Option<i64> {
        let fresh = self.readings.iter().filter(|reading| reading.at_us + HEARD_US >= now_us);
        fresh.min_by_key(|reading| reading.round_trip_us).map(|reading| reading.base_us)
    }
}

/// Clocks of one moment, held against each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// Base of the lower and of the upper median.
    pub(super) low_us: i64,
    pub(super) high_us: i64,
    /// Nodes whose clocks are not further than the limit from the median.
    pub(super) sound: BTreeSet<NodeId>,
    /// Nodes whose clocks are.
    pub(super) astray: BTreeSet<NodeId>,
    /// A majority of all nodes, heard or not, is within the limit of one median.
    pub(super) is_firm: bool,
    /// From the slowest to the fastest clock.
    pub(super) spread_us: i64,
}

impl Agreement {
    /// Weighs clocks, this node's among them, out of a cluster of `nodes`. One that was astray is sound
    /// again within half of the limit only: who drifts along the limit does not change from second to
    /// second.
    pub(super) fn of(
        clocks: &[(NodeId, i64)],
        nodes: usize,
        limit_us: i64,
        were_astray: &BTreeSet<NodeId>,
    ) -> Self {
        let mut bases: Vec<i64> = clocks.iter().map(|(_, base_us)| *base_us).collect();
        bases.sort_unstable();
        let (Some(first), Some(last)) = (bases.first(), bases.last()) else {
            return Self::default();
        };
        let (low_us, high_us) = (bases[(bases.len() - 1) / 2], bases[bases.len() / 2]);
        let is_sound = |(node, base_us): &&(NodeId, i64)| {
            let limit_us = if were_astray.contains(node) { limit_us / 2 } else { limit_us };
            (low_us - limit_us..=high_us + limit_us).contains(base_us)
        };
        let (sound, astray): (Vec<_>, Vec<_>) = clocks.iter().partition(is_sound);
        let named = |of: Vec<(NodeId, i64)>| of.into_iter().map(|(node, _)| node).collect();
        let is_firm = high_us - low_us <= limit_us && 2 * sound.len() > nodes;
        let spread_us = last - first;
        Self { low_us, high_us, sound: named(sound), astray: named(astray), is_firm, spread_us }
    }

    /// How far a clock is from the median; 0 between two medians.
    pub(super) fn offset_us(&self, base_us: i64) -> i64 {
        base_us - base_us.clamp(self.low_us, self.high_us)
    }
}

/// A course of time that a node follows for as long as it runs: where all clocks are set anew
/// together, it gains or loses one second a second until it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) base_us: i64,
    at_us: i64,
}

impl Course {
    /// The next course, where clocks agree on this base now.
    pub(super) fn towards(before: Option<Self>, base_us: i64, now_us: i64) -> Self {
        let base_us = before.map_or(base_us, |before| {
            let room_us = now_us.saturating_sub(before.at_us).max(0);
            before.base_us + (base_us - before.base_us).clamp(-room_us, room_us)
        });
        Self { base_us, at_us: now_us }
    }

    /// The same course, where clocks agree on nothing now: the time in between gives no room.
    pub(super) fn held(self, now_us: i64) -> Self {
        Self { at_us: now_us, ..self }
    }
}
