//! Every bound of a session, by the name that the configuration and the error texts use.

use std::time::Duration;

/// Limits of one node. What holds for a source is in [`Bounds`](crate::Bounds).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload and envelope of one record, bytes (default 8 MiB).
    pub record_bytes_max: usize,
    /// Largest frame, bytes (default 9 MiB).
    pub frame_bytes_max: usize,
    /// Most records of a frame, and most entries of all lists in them (default 65,536): what a frame
    /// takes in memory goes by their number, not by its bytes.
    pub frame_records_max: usize,
    /// Bytes of one stream that may be sent and not yet acked (default 1 MiB). A larger frame is
    /// taken when nothing else of its stream is in flight.
    pub stream_in_flight_bytes_max: usize,
    /// Refused records a second of one source, over all its streams on this node (default 1,000);
    /// streams of more are read more slowly.
    pub refused_per_second_max: u64,
    /// Bytes of all streams of a source on a node (default 64 MiB).
    pub source_in_flight_bytes_max: usize,
    /// Bytes of all streams of a node (default 256 MiB).
    pub node_in_flight_bytes_max: usize,
    /// Streams of one source open at once on this node (default 64). A source is served mostly by the
    /// node that leads its group; who cannot reach it is counted where it is served.
    pub streams_open_max: usize,
    /// Names a source may ever give to streams (default 100,000).
    pub stream_names_max: u32,
    /// Sealed batches of one stream on their way to commit (default 4); more wait and merge.
    pub batches_in_flight_max: usize,
    /// A batch is closed at this many plain bytes (default 256 KiB).
    pub batch_bytes_target: usize,
    /// A batch is closed at this many records (default 4,096): each has hashes and tags beside its
    /// bytes, and a batch must fit one entry of the log.
    pub batch_records_max: u32,
    /// Refused records a source keeps (default 10,000), and their bytes (default 64 MiB).
    pub quarantine_records_max: u64,
    /// See above.
    pub quarantine_bytes_max: u64,
    /// Bytes kept of one refused record (default 64 KiB).
    pub quarantine_record_bytes_max: usize,
    /// Answers waiting for a client that does not read, bytes (default 4 MiB).
    pub outbox_bytes_max: usize,
    /// How long a batch may be without an outcome, proposed again where that helps (default 10 s);
    /// then its session ends as unavailable.
    pub propose_for: Duration,
    /// How long opening may take (default 10 s).
    pub open_within: Duration,
    /// How long acks that wait for the standby may make no progress (default 10 s); then the session
    /// ends and what became of the records is not told.
    pub site_ack_within: Duration,
}

impl Limits {
    /// Whether a stream that was opened within `before` may go beyond these.
    pub(crate) fn lower(&self, before: &Self) -> bool {
        let of = |limits: &Self| {
            [
                limits.record_bytes_max as u64,
                limits.frame_bytes_max as u64,
                limits.frame_records_max as u64,
                limits.stream_in_flight_bytes_max as u64,
                limits.source_in_flight_bytes_max as u64,
                limits.refused_per_second_max,
                limits.quarantine_records_max,
                limits.quarantine_bytes_max,
            ]
        };
        of(self).iter().zip(of(before)).any(|(now, before)| *now < before)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            record_bytes_max: 8 << 20,
            frame_bytes_max: 9 << 20,
            frame_records_max: 1 << 16,
            stream_in_flight_bytes_max: 1 << 20,
            refused_per_second_max: 1_000,
            source_in_flight_bytes_max: 64 << 20,
            node_in_flight_bytes_max: 256 << 20,
            streams_open_max: 64,
            stream_names_max: 100_000,
            batches_in_flight_max: 4,
            batch_bytes_target: 256 << 10,
            batch_records_max: 4_096,
            quarantine_records_max: 10_000,
            quarantine_bytes_max: 64 << 20,
            quarantine_record_bytes_max: 64 << 10,
            outbox_bytes_max: 4 << 20,
            propose_for: Duration::from_secs(10),
            open_within: Duration::from_secs(10),
            site_ack_within: Duration::from_secs(10),
        }
    }
}
