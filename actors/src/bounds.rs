//! What holds for the streams of one source: its own limits where its agreement sets them, as far
//! as the node can take them, else the node's.
//!
//! ```text
//!  record_bytes_max, frame_bytes_max    the lower of the two: a node takes nothing larger
//!  in_flight_bytes_max                  its own, up to what all streams of the node may have
//!  streams, stream names, quarantine    its own, also where it is above the node's
//! ```
//! A session keeps the bounds with which it was opened.

use dtm_types::command::SourceLimits;
use dtm_types::{ErrorCode, StreamKey};

use crate::error::Error;
use crate::limits::Limits;

/// Who set a bound, and therefore who may raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundOf {
    /// The source's row in meta: `dtm source add --update --limit`.
    Source,
    /// The node's configuration: `limits` in its file.
    Node,
}

impl BoundOf {
    /// As refusals say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Node => "node",
        }
    }
}

/// One bound of a stream, by the name under which it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Name of the source's limit or of the node's setting.
    pub name: &'static str,
    /// In the unit that the name says.
    pub value: u64,
    /// Who set it.
    pub of: BoundOf,
}

impl Bound {
    fn node(name: &'static str, value: u64) -> Self {
        Self { name, value, of: BoundOf::Node }
    }

    /// The source's own value where there is one (0 = none).
    fn or_own(self, name: &'static str, own: u64) -> Self {
        if own == 0 { self } else { Self { name, value: own, of: BoundOf::Source } }
    }

    fn at_most(self, most: Self) -> Self {
        if self.value <= most.value { self } else { most }
    }

    /// # Errors
    /// [`Error::Limit`] with name and value where `found` is more.
    pub(crate) fn check(
        self,
        found: usize,
        stream: &StreamKey,
        code: ErrorCode,
    ) -> Result<(), Error> {
        let found = found as u64;
        if found <= self.value { Ok(()) } else { Err(self.exceeded(found, stream, code)) }
    }

    /// What the client is told.
    pub(crate) fn exceeded(self, found: u64, stream: &StreamKey, code: ErrorCode) -> Error {
        Error::Limit { stream: stream.clone(), code, bound: self, found }
    }
}

/// The bounds of one source's streams on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Largest payload of one record, bytes.
    pub record_bytes: Bound,
    /// Largest frame, bytes.
    pub frame_bytes: Bound,
    /// Most records of a frame, and entries of all lists in them.
    pub frame_records: Bound,
    /// Bytes of one stream that may be sent and not yet acked.
    pub in_flight_bytes: Bound,
    /// Bytes that all streams of the source may take of the node's memory.
    pub share_bytes: u64,
    /// Streams open at once on this node.
    pub streams_open: Bound,
    /// Names the source may ever give to streams.
    pub stream_names: Bound,
    /// Refused records kept.
    pub quarantine_records: Bound,
    /// Bytes of refused records kept.
    pub quarantine_bytes: Bound,
}

impl Bounds {
    /// The bounds of a source whose agreement says `own`.
    pub fn new(node: &Limits, own: &SourceLimits) -> Self {
        let bytes = |name, of_node: usize, of_source| {
            let of_node = Bound::node(name, of_node as u64);
            of_node.or_own(name, of_source).at_most(of_node)
        };
        let frame_bytes = bytes("frame_bytes_max", node.frame_bytes_max, own.frame_bytes_max);
        let record_bytes = bytes("record_bytes_max", node.record_bytes_max, own.record_bytes_max);
        let window = node.stream_in_flight_bytes_max as u64;
        let in_flight_bytes = Bound::node("stream_in_flight_bytes_max", window)
            .or_own("in_flight_bytes_max", own.in_flight_bytes_max);
        let all = Bound::node("node_in_flight_bytes_max", node.node_in_flight_bytes_max as u64);
        let count = |name, of_node, of_source| Bound::node(name, of_node).or_own(name, of_source);
        Self {
            // What no frame carries is not promised.
            record_bytes: record_bytes.at_most(frame_bytes),
            frame_bytes,
            frame_records: Bound::node("frame_records_max", node.frame_records_max as u64),
            in_flight_bytes: in_flight_bytes.at_most(all),
            // A source that was given a larger window for a stream may fill it.
            share_bytes: in_flight_bytes
                .at_most(all)
                .value
                .max(node.source_in_flight_bytes_max as u64),
            streams_open: count(
                "streams_open_max",
                node.streams_open_max as u64,
                own.streams_open_max.into(),
            ),
            stream_names: count(
                "stream_names_max",
                node.stream_names_max.into(),
                own.stream_names_max.into(),
            ),
            quarantine_records: count(
                "quarantine_records_max",
                node.quarantine_records_max,
                own.quarantine_records_max,
            ),
            quarantine_bytes: count(
                "quarantine_bytes_max",
                node.quarantine_bytes_max,
                own.quarantine_bytes_max,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(bound: Bound, name: &str, value: u64, of: BoundOf) {
        assert_eq!((bound.name, bound.value, bound.of), (name, value, of));
    }

    #[test]
    fn a_source_without_limits_has_the_nodes() {
        let node = Limits::default();
        let bounds = Bounds::new(&node, &SourceLimits::default());
        is(bounds.record_bytes, "record_bytes_max", 8 << 20, BoundOf::Node);
        is(bounds.frame_bytes, "frame_bytes_max", 9 << 20, BoundOf::Node);
        is(bounds.in_flight_bytes, "stream_in_flight_bytes_max", 1 << 20, BoundOf::Node);
        is(bounds.streams_open, "streams_open_max", 64, BoundOf::Node);
        is(bounds.stream_names, "stream_names_max", 100_000, BoundOf::Node);
        is(bounds.quarantine_records, "quarantine_records_max", 10_000, BoundOf::Node);
        is(bounds.quarantine_bytes, "quarantine_bytes_max", 64 << 20, BoundOf::Node);
    }

    #[test]
    fn what_a_source_sets_holds_for_it() {
        let own = SourceLimits {
            record_bytes_max: 2_000,
            frame_bytes_max: 5_000,
            in_flight_bytes_max: 2 << 20,
            streams_open_max: 100,
            stream_names_max: 3,
            quarantine_records_max: 20_000,
            quarantine_bytes_max: 7,
        };
        let bounds = Bounds::new(&Limits::default(), &own);
        is(bounds.record_bytes, "record_bytes_max", 2_000, BoundOf::Source);
        is(bounds.frame_bytes, "frame_bytes_max", 5_000, BoundOf::Source);
        is(bounds.in_flight_bytes, "in_flight_bytes_max", 2 << 20, BoundOf::Source);
        is(bounds.streams_open, "streams_open_max", 100, BoundOf::Source);
        is(bounds.stream_names, "stream_names_max", 3, BoundOf::Source);
        is(bounds.quarantine_records, "quarantine_records_max", 20_000, BoundOf::Source);
        is(bounds.quarantine_bytes, "quarantine_bytes_max", 7, BoundOf::Source);
    }

    // Nodes of one cluster may be set up differently, and the row was checked by one of them.
    #[test]
    fn a_node_takes_no_more_than_it_can() {
        let node = Limits { node_in_flight_bytes_max: 1 << 20, ..Limits::default() };
        let own = SourceLimits {
            record_bytes_max: 10 << 20,
            frame_bytes_max: 12 << 20,
            in_flight_bytes_max: 2 << 20,
            ..SourceLimits::default()
        };
        let bounds = Bounds::new(&node, &own);
        is(bounds.record_bytes, "record_bytes_max", 8 << 20, BoundOf::Node);
        is(bounds.frame_bytes, "frame_bytes_max", 9 << 20, BoundOf::Node);
        is(bounds.in_flight_bytes, "node_in_flight_bytes_max", 1 << 20, BoundOf::Node);
    }

    #[test]
    fn no_record_is_promised_that_no_frame_carries() {
        let own = SourceLimits { frame_bytes_max: 5_000, ..SourceLimits::default() };
        let bounds = Bounds::new(&Limits::default(), &own);
        is(bounds.record_bytes, "frame_bytes_max", 5_000, BoundOf::Source);
    }
}
