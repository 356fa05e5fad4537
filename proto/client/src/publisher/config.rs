//! What a publisher is told when it is opened, and what it tells.

use crate::Error;
use bytes::Bytes;
use dtm_proto::ingest::{AckLevel, Defaults, IdPolicy, Open, RefusedRecord};
use dtm_types::format::{Form, Mode};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Receives events.
type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// Settings of a publisher.
#[derive(Clone)]
pub struct PublisherConfig {
    /// Code of the source.
    pub source: String,
    /// Name of the stream.
    pub stream: String,
    /// Data set of its records.
    pub dataset: String,
    /// Version of the schema; 0 = the newest.
    pub schema_version: u32,
    /// As things happen, or in files.
    pub mode: Mode,
    /// Personal fields as they are, or masked.
    pub form: Form,
    /// How repeated messages are told apart.
    pub ids: IdPolicy,
    /// For records that do not say.
    pub defaults: Option<Defaults>,
    /// Highest sequence that was acked to an earlier life of this client; 0 = none.
    pub acked_through: u64,
    /// Incarnation that acked it.
    pub incarnation: u64,
    /// Token of that ack.
    pub ack_token: Bytes,
    /// Bytes of records that are held unacked before `send` waits. Default 2 MiB.
    pub unacked_bytes_max: usize,
    /// Bytes of records that are held in all, where acked ones are kept until another site has
    /// them. Default 8 MiB.
    pub held_bytes_max: usize,
    /// Where records have to be before they are acked. The agreement may ask for more. Default: a
    /// majority of the group's replicas.
    pub ack_level: AckLevel,
    /// A frame is cut at this size. Default 256 KiB.
    pub frame_bytes_max: usize,
    /// Frames in flight below which a frame goes out at once, however small. Default 1: what comes
    /// while it is on its way to the disk leaves together with its ack. More and smaller frames
    /// cost the nodes more than they gain.
    pub eager_frames: usize,
    /// Beyond those a frame waits for this many bytes or the next ack. Default 64 KiB.
    pub frame_bytes_min: usize,
    /// Longest wait for an ack before the connection is given up. Default 30 s.
    pub ack_timeout: Duration,
    /// Longest wait for the first open; `None` = for ever. Default 30 s.
    pub open_timeout: Option<Duration>,
    /// Longest pause between two turns over the seeds. Default 1 s.
    pub backoff_max: Duration,
    /// Seed of the jitter and of the choice of the first address; `None` = random.
    pub seed: Option<u64>,
    /// Receives refusals, conflicts, losses. Called on the publisher's own task: must not block.
    pub on_event: Option<EventSink>,
}

impl PublisherConfig {
    /// A publisher of one stream with every default.
    pub fn new(
        source: impl Into<String>,
        stream: impl Into<String>,
        dataset: impl Into<String>,
    ) -> Self {
        Self {
            source: source.into(),
            stream: stream.into(),
            dataset: dataset.into(),
            schema_version: 0,
            mode: Mode::Realtime,
            form: Form::Raw,
            ids: IdPolicy::MessageId,
            defaults: None,
            acked_through: 0,
            incarnation: 0,
            ack_token: Bytes::new(),
            unacked_bytes_max: 2 << 20,
            held_bytes_max: 8 << 20,
            ack_level: AckLevel::Majority,
            frame_bytes_max: 256 << 10,
            eager_frames: 1,
            frame_bytes_min: 64 << 10,
            ack_timeout: Duration::from_secs(30),
            open_timeout: Some(Duration::from_secs(30)),
            backoff_max: Duration::from_secs(1),
            seed: None,
            on_event: None,
        }
    }

    /// The open of its stream, as of a client that knows nothing of earlier sessions.
    pub(crate) fn open(&self) -> Open {
        Open {
            source: self.source.clone(),
            stream: self.stream.clone(),
            dataset: self.dataset.clone(),
            schema_version: self.schema_version,
            mode: self.mode.into(),
            form: self.form.into(),
            ids: self.ids.into(),
            ack_level: self.ack_level.into(),
            defaults: self.defaults.clone(),
            client: concat!("dtm-client/", env!("CARGO_PKG_VERSION")).into(),
            ..Open::default()
        }
    }

    /// Calls `sink` for each event.
    #[must_use]
    pub fn on_event(mut self, sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(sink));
        self
    }
}

impl fmt::Debug for PublisherConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherConfig")
            .field("source", &self.source)
            .field("stream", &self.stream)
            .field("dataset", &self.dataset)
            .finish_non_exhaustive()
    }
}

/// What a publisher tells besides acks.
#[derive(Clone, Debug)]
pub enum Event {
    /// These records are kept as refusals; their neighbours went on.
    Refused(Vec<RefusedRecord>),
    /// This sequence is held with other content, which stays; the record here was not stored.
    Conflict {
        /// The sequence.
        sequence: u64,
    },
    /// Acked once, not held by the cluster any more, and not held here either. Nothing is sent
    /// until [`crate::Publisher::confirm_lost`] is called.
    LossDetected {
        /// First lost sequence.
        from: u64,
        /// Last lost sequence.
        to: u64,
    },
    /// Acked once, not held by the cluster any more, held here: sent again.
    LossMended {
        /// First sequence sent again.
        from: u64,
        /// Last sequence that had been acked.
        to: u64,
    },
    /// A session is open.
    Connected {
        /// Name of the node.
        node: String,
        /// Where it was reached.
        address: Arc<str>,
        /// The session.
        session: u64,
        /// Group that the stream is placed in.
        group: u32,
        /// First sequence that the cluster does not hold.
        next_sequence: u64,
    },
    /// The connection ended; the publisher tries again.
    Disconnected {
        /// Why.
        error: Error,
    },
    /// An attempt failed; the next one follows after the pause.
    Retrying {
        /// Why it failed.
        error: Error,
        /// The pause.
        after: Duration,
    },
}

/// How far a stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to here is on disk on a majority.
    pub acked_through: u64,
    /// Everything up to here is also at the site that stands by; 0 = there is none, or not known.
    pub site_through: u64,
    /// Incarnation of the last answer.
    pub incarnation: u64,
    /// Token of the last ack: kept by a client that wants to prove it at the next open.
    pub token: Bytes,
    /// Group, offset and ledger leaf of the last ack.
    pub group: u32,
    /// Offset of the last ack.
    pub offset: u64,
    /// Ledger leaf of the last ack.
    pub leaf_index: u64,
}

/// Counters of a publisher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Sequence that the next record gets; 0 = not known yet.
    pub next_sequence: u64,
    /// Highest acked sequence.
    pub acked_through: u64,
    /// Another site holds copies: what is acked is held until that has it.
    pub site_copies: bool,
    /// Highest sequence that it has.
    pub site_through: u64,
    /// Bytes of records held.
    pub held_bytes: u64,
    /// Of those, of records that are acked and that it does not have.
    pub waits_for_site_bytes: u64,
    /// Acked records that were let go before it had them, for want of room (`held_bytes_max`); a
    /// spool lets none go.
    pub let_go: u64,
    /// Records sent, resends included.
    pub records_sent: u64,
    /// Frames sent, resends included.
    pub frames_sent: u64,
    /// Records refused.
    pub refused: u64,
    /// Records that were already held.
    pub duplicates: u64,
    /// Records acked without a check whether they were already held.
    pub unverified: u64,
    /// Sequences held with other content.
    pub conflicts: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Node of the present session; empty = not connected.
    pub node: String,
    /// Its address.
    pub address: String,
}
