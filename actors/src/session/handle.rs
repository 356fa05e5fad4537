//! What the gRPC door holds of a session: admits bytes, and one declaration of loss, then casts.

use std::sync::Arc;
use std::time::Duration;

use dtm_proto::ingest;
use dtm_types::format::{Envelope, Violation};
use dtm_types::{ErrorCode, StreamKey};
use prost::Message;
use prost::encoding::encoded_len_varint;
use ractor::{ActorRef, ActorStatus};
use tokio::sync::Semaphore;

use super::actor::SessionMessage;
use crate::admission::{Admission, InFlight};
use crate::bounds::Bounds;
use crate::error::Error;

/// Most bytes of a request that carries a frame besides its records: two keys, a length, a sequence.
const FRAME_HEADER_BYTES: usize = 17;
/// How soon a frame that waits for refused records sees that its session has ended.
const ENDED_SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A session, from the reading side.
pub struct SessionHandle {
    actor: ActorRef<SessionMessage>,
    stream: StreamKey,
    admission: Admission,
    in_flight: InFlight,
    /// Of one: held by the declaration of loss that is on its way.
    declaring: Arc<Semaphore>,
    bounds: Bounds,
}

impl SessionHandle {
    pub(crate) fn new(
        actor: ActorRef<SessionMessage>,
        stream: StreamKey,
        admission: Admission,
        in_flight: InFlight,
        bounds: Bounds,
    ) -> Self {
        Self { actor, stream, admission, in_flight, declaring: Arc::new(Semaphore::new(1)), bounds }
    }

    /// Takes a frame that came over no wire; see [`SessionHandle::frame_of`].
    ///
    /// # Errors
    /// As [`SessionHandle::frame_of`].
    pub async fn frame(&self, frame: ingest::Frame) -> Result<(), Error> {
        let inner = frame.encoded_len();
        self.frame_of(frame, 1 + encoded_len_varint(inner as u64) + inner).await
    }

    /// Takes a frame whose request came as `bytes` bytes, which is what its client counts: checks
    /// its limits, waits for room on the node (before that, where records of this stream were
    /// refused, for what those of its source cost), hands it to the actor.
    ///
    /// # Errors
    /// [`Error::Limit`] with the name and value of the limit; [`Error::Gone`] after the end.
    pub async fn frame_of(&self, frame: ingest::Frame, bytes: usize) -> Result<(), Error> {
        let memory = self.check(&frame, bytes)?;
        self.slowed().await?;
        let permit = self.admission.admit(&self.in_flight, bytes, memory).await;
        self.cast(SessionMessage::Frame { frame, permit })
    }

    /// Waits where records of this stream were refused; not beyond its end, which may be far sooner.
    ///
    /// # Errors
    /// [`Error::Gone`] where the session ended meanwhile.
    pub async fn slowed(&self) -> Result<(), Error> {
        let mut slowed = std::pin::pin!(self.in_flight.slowed());
        while tokio::time::timeout(ENDED_SEEN_WITHIN, slowed.as_mut()).await.is_err() {
            if self.actor.get_status() >= ActorStatus::Stopping {
                return Err(Error::Gone);
            }
        }
        Ok(())
    }

    /// The client no longer has these records. Waits until the group has answered the declaration
    /// before this one: a declaration costs its sender next to nothing.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a range that no stream can have; [`Error::Gone`] after the end.
    pub async fn lost(&self, lost: ingest::Lost) -> Result<(), Error> {
        let (from, to) = (lost.from_sequence, lost.to_sequence);
        if from == 0 || to < from {
            let cause = format!("no records are lost in {from}..={to}: sequences count from 1");
            return Err(self.protocol(&cause));
        }
        self.sequence(to)?;
        let turn = Arc::clone(&self.declaring).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        self.cast(SessionMessage::Lost(lost, turn))
    }

    /// Nothing more comes; `finished` = never again on this stream.
    pub fn close(&self, finished: bool) -> Result<(), Error> {
        self.cast(SessionMessage::Close { finished, asked: true })
    }

    /// The client's side of the connection ended.
    pub fn half_closed(&self) {
        let _ = self.cast(SessionMessage::Close { finished: false, asked: false });
    }

    /// The connection is gone: what is in flight may still commit, nothing more is taken.
    pub fn disconnected(&self) {
        self.actor.stop(Some("disconnected".to_owned()));
    }

    /// Ends the session with an error that the client sees after what is queued.
    pub fn fail(&self, error: Error) {
        let _ = self.cast(SessionMessage::Fail(error));
    }

    /// The client broke the protocol, in words.
    pub fn protocol(&self, cause: &str) -> Error {
        Error::Protocol { stream: self.stream.clone(), cause: cause.to_owned() }
    }

    /// A frame that was refused before it was read, because of its size.
    pub fn frame_too_large(&self, bytes: Option<u64>) -> Error {
        let bound = self.bounds.frame_bytes;
        let found = bytes.unwrap_or(bound.value.saturating_add(1));
        bound.exceeded(found, &self.stream, ErrorCode::TooLarge)
    }

    fn sequence(&self, last: u64) -> Result<(), Error> {
        if last <= StreamKey::SEQUENCE_MAX {
            return Ok(());
        }
        let max = StreamKey::SEQUENCE_MAX;
        Err(self.protocol(&format!("a stream counts to {max}, sequence {last} was sent")))
    }

    /// A frame that was refused before it was built, because of what it holds.
    pub fn frame_holds_too_much(&self, found: u64) -> Error {
        self.bounds.frame_records.exceeded(found, &self.stream, ErrorCode::TooLarge)
    }

    fn cast(&self, message: SessionMessage) -> Result<(), Error> {
        self.actor.cast(message).map_err(|_| Error::Gone)
    }

    /// What the frame takes in memory, where it is within its limits.
    fn check(&self, frame: &ingest::Frame, bytes: usize) -> Result<usize, Error> {
        if frame.records.is_empty() || frame.first_sequence == 0 {
            let cause = "a frame holds at least one record and sequences count from 1".to_owned();
            return Err(Error::Protocol { stream: self.stream.clone(), cause });
        }
        self.sequence(frame.first_sequence.saturating_add(frame.records.len() as u64 - 1))?;
        let (large, full) = (ErrorCode::TooLarge, ErrorCode::WindowExceeded);
        self.bounds.frame_records.check(frame.records.len(), &self.stream, large)?;
        if let Some(what) = reserved(frame) {
            return Err(Error::NotSupported { stream: self.stream.clone(), what });
        }
        // No record is larger than its frame: hardly any frame is looked through for this.
        if bytes as u64 > self.bounds.record_bytes.value {
            let largest = frame.records.iter().map(record_bytes).max().unwrap_or(0);
            self.bounds.record_bytes.check(largest, &self.stream, large)?;
        }
        let records = bytes.saturating_sub(FRAME_HEADER_BYTES);
        self.bounds.frame_bytes.check(records, &self.stream, large)?;
        let flying = usize::try_from(self.in_flight.bytes()).unwrap_or(usize::MAX);
        if flying > 0 {
            let all = flying.saturating_add(bytes);
            self.bounds.in_flight_bytes.check(all, &self.stream, full)?;
        }
        Ok(frame.records.iter().map(memory_of).sum::<usize>().max(bytes))
    }
}

/// What the contracts define and this version does not take yet: never dropped in silence.
fn reserved(frame: &ingest::Frame) -> Option<&'static str> {
    let signed = !frame.sender_signature.is_empty()
        || !frame.sender_root.is_empty()
        || !frame.certificate_chain.is_empty()
        || frame.signing_time_us != 0;
    let of_frame = [
        (signed, "a signed frame"),
        (!frame.hops.is_empty(), "a list of hops"),
        (!frame.consent_id.is_empty(), "a consent"),
    ];
    let found = of_frame.into_iter().find_map(|(is_set, what)| is_set.then_some(what));
    found.or_else(|| frame.records.iter().find_map(reserved_in))
}

fn reserved_in(record: &ingest::Record) -> Option<&'static str> {
    if !record.blobs.is_empty() {
        return Some("a blob");
    }
    if !record.salt.is_empty() {
        return Some("a salt of the sender");
    }
    let envelope = record.envelope.as_deref()?;
    [
        (envelope.signature.is_some(), "a signed record"),
        (!envelope.payload_digest.is_empty(), "a payload digest"),
        (!envelope.hops.is_empty(), "a list of hops"),
        (!envelope.consent_id.is_empty(), "a consent"),
    ]
    .into_iter()
    .find_map(|(is_set, what)| is_set.then_some(what))
}

/// What `record_bytes_max` bounds.
fn record_bytes(record: &ingest::Record) -> usize {
    record.payload.len() + record.envelope.as_ref().map_or(0, |envelope| envelope.encoded_len())
}

/// What a record takes in memory without the bytes that its fields point to.
fn memory_of(record: &ingest::Record) -> usize {
    let lists = |envelope: &Envelope| {
        size_of::<Envelope>()
            + envelope.masked_pointers.len() * size_of::<String>()
            + envelope.warnings.len() * size_of::<Violation>()
    };
    size_of::<ingest::Record>() + record.envelope.as_deref().map_or(0, lists)
}

#[cfg(test)]
#[path = "handle_test.rs"]
mod costs;

#[cfg(test)]
mod tests {
    use dtm_types::command::SourceLimits;
    use ractor::{Actor, ActorProcessingErr};
    use tokio::sync::mpsc;

    use super::*;
    use crate::admission::{Share, ShareOf};
    use crate::limits::Limits;

    /// Hands on what a session would work on.
    pub(super) struct Mailbox(pub(super) mpsc::Sender<SessionMessage>);

    impl Actor for Mailbox {
        type Msg = SessionMessage;
        type State = ();
        type Arguments = ();

        async fn pre_start(
            &self,
            _: ActorRef<Self::Msg>,
            (): (),
        ) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            _: ActorRef<Self::Msg>,
            message: Self::Msg,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            let _ = self.0.send(message).await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn losses_are_declared_one_at_a_time() {
        let (sender, mut mailbox) = mpsc::channel(8);
        let (actor, _) = Actor::spawn(None, Mailbox(sender), ()).await.expect("starts");
        let stream = StreamKey::parse("tinh-01", "main").expect("allowed names");
        let admission = Admission::new(1 << 20);
        let bounds = Bounds::new(&Limits::default(), &SourceLimits::default());
        let in_flight =
            InFlight::within(Share::new(ShareOf { bytes: 1 << 20, refused_per_second_max: 1_000 }));
        let session = SessionHandle::new(actor.clone(), stream, admission, in_flight, bounds);
        let lost = ingest::Lost { from_sequence: 1, to_sequence: 2 };
        session.lost(lost).await.expect("taken");
        let first = mailbox.recv().await.expect("a declaration");
        let second = session.lost(lost);
        let mut second = std::pin::pin!(second);
        let early = tokio::time::timeout(Duration::from_millis(50), second.as_mut()).await;
        assert!(early.is_err(), "the first has no answer yet");
        drop(first);
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, second).await.expect("its turn").expect("taken");
        actor.stop(None);
    }
}
