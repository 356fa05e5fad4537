//! An ingest server on loopback that keeps records in memory and follows a script of faults.
//! The rules of cursors and sessions are those of the contract, so that what it holds in the end
//! shows loss, doubles and order.

use crate::reader::Records;
use dtm_proto::ingest::ingest_service_server::{IngestService, IngestServiceServer};
use dtm_proto::ingest::publish_request::Request as Asked;
use dtm_proto::ingest::publish_response::Response as Answer;
use dtm_proto::ingest::{
    Ack, Closed, Frame, Open, Opened, PublishRequest, PublishResponse, Reconnect, Refused,
    RefusedRecord, Rewind, RewindReason, StatusRequest, StatusResponse, Window,
};
use dtm_proto::records::records_service_server::RecordsServiceServer;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// What goes wrong on one connection. Frames are counted from 1.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The open is refused.
    Refuse(Status),
    /// The connection ends after the frame was kept and before its ack.
    AckLost(u64),
    /// The connection ends before the frame is kept.
    FrameLost(u64),
    /// The frame is dropped and everything after it answered with a rewind.
    Gap(u64),
    /// This sequence is held with other content.
    Conflict(u64),
    /// A newer session takes over after the frame.
    Supersede(u64),
    /// Frames from this one on are neither kept nor answered.
    Silent(u64),
    /// Advice to go elsewhere after the frame.
    Advise(u64, String),
    /// This leader is named: instead of opening, to a client that may be redirected.
    Leader(String),
    /// The connection ends when a loss is reported.
    LostCut,
    /// The open is answered never and committed once the next one was.
    OpenLate,
    /// As [`Fault::OpenLate`], and the server says that it does not know.
    OpenUnknown,
    /// All of the first frame is held, and this sequence with other content.
    ConflictInside(u64),
    /// The ack covers all but this many records of each frame until the next one.
    AckLess(u64),
    /// After the frame the other site is told to have everything, and nothing else.
    SiteHas(u64),
}

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) records: BTreeMap<u64, Vec<u8>>,
    pub(crate) cursor: u64,
    pub(crate) session: u64,
    pub(crate) finished: bool,
    /// Sequences that were refused.
    pub(crate) refused: Vec<u64>,
    /// Highest cursor of an earlier life, where it was set back.
    pub(crate) lost: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) streams: BTreeMap<String, Held>,
    /// One entry a connection, in order; none left = no faults.
    pub(crate) script: VecDeque<Vec<Fault>>,
    pub(crate) opens: Vec<Open>,
    pub(crate) frames: u64,
    pub(crate) largest_frame: usize,
    pub(crate) refuse_payload: Option<Vec<u8>>,
    /// Counted as held already.
    pub(crate) double_payload: Option<Vec<u8>>,
    pub(crate) window: Option<Window>,
    /// Another site holds copies and is so many records behind.
    pub(crate) site_lag: Option<u64>,
    /// Life of the cluster, less one.
    pub(crate) promotions: u64,
    pub(crate) connections: u64,
    /// Other content is answered as a conflict, as the server does; else it is a fault of the client.
    pub(crate) answers_conflicts: bool,
    /// Refusals are kept and counted, and never told.
    pub(crate) keeps_silent: bool,
    /// Sequences that came again with other content.
    pub(crate) renumbered: Vec<u64>,
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) address: String,
    stop: Arc<tokio::sync::Notify>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::serve(Arc::default(), "127.0.0.1:0").await
    }

    /// Another door to the same records.
    pub(crate) async fn beside(&self) -> Self {
        Self::serve(self.world.clone(), "127.0.0.1:0").await
    }

    pub(crate) async fn serve(world: Arc<Mutex<World>>, address: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(tokio::sync::Notify::new());
        let service = IngestServiceServer::new(Door { world: world.clone() })
            .max_decoding_message_size(16 << 20);
        let records = RecordsServiceServer::new(Records::over(world.clone()));
        let ended = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = tonic::transport::Server::builder()
                    .add_service(service)
                    .add_service(records)
                    .serve_with_incoming(TcpListenerStream::new(listener)) => {}
                () = ended.notified() => {}
            }
        });
        Self { world, address, stop }
    }

    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    pub(crate) fn script(&self, connections: impl IntoIterator<Item = Vec<Fault>>) {
        self.world.lock().script = connections.into_iter().collect();
    }

    pub(crate) fn payloads(&self, stream: &str) -> Vec<Vec<u8>> {
        let world = self.world.lock();
        assert!(world.renumbered.is_empty(), "renumbered: {:?}", world.renumbered);
        world.streams.get(stream).map(|s| s.records.values().cloned().collect()).unwrap_or_default()
    }
}

struct Door {
    world: Arc<Mutex<World>>,
}

#[tonic::async_trait]
impl IngestService for Door {
    type PublishStream = ReceiverStream<Result<PublishResponse, Status>>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let (answers, out) = mpsc::channel(64);
        let world = self.world.clone();
        tokio::spawn(async move {
            if let Err(status) = connection(world, request.into_inner(), &answers).await {
                answers.send(Err(status)).await.ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(out)))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let world = self.world.lock();
        let held = world.streams.get(&request.get_ref().stream);
        let Some(held) = held else {
            return Ok(Response::new(StatusResponse::default()));
        };
        let doubled = |payload: &&Vec<u8>| Some(*payload) == world.double_payload.as_ref();
        Ok(Response::new(StatusResponse {
            duplicates: held.records.values().filter(doubled).count() as u64,
            acked_through: held.cursor,
            session: held.session,
            refused: held.refused.len() as u64,
            finished: held.finished,
            ..StatusResponse::default()
        }))
    }
}

type Out = mpsc::Sender<Result<PublishResponse, Status>>;

async fn say(out: &Out, answer: Answer) -> Result<(), Status> {
    let answer = PublishResponse { response: Some(answer) };
    out.send(Ok(answer)).await.map_err(|_| Status::cancelled("gone"))
}

/// As the server says it.
pub(crate) fn away(code: &str, leader: Option<&str>) -> Status {
    let leader = leader.map(|leader| ("leader_address".to_owned(), leader.to_owned()));
    let metadata: HashMap<_, _> = leader.into_iter().collect();
    let details = ErrorDetails::with_error_info(code, "dtm", metadata);
    Status::with_error_details(tonic::Code::Unavailable, code, details)
}

/// Commits when another session has sent its first frame.
async fn commit_late(world: &Mutex<World>, stream: &str) {
    for _ in 0..1000 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let mut world = world.lock();
        if let Some(held) = world.streams.get_mut(stream).filter(|held| held.cursor > 0) {
            held.session += 1;
            return;
        }
    }
}

/// What the script says to an open request.
fn opening(world: &Mutex<World>, open: Open) -> Result<(Vec<Fault>, Opened, u64), Status> {
    let stream = open.stream.clone();
    let mut world = world.lock();
    let faults = world.script.pop_front().unwrap_or_default();
    world.connections += 1;
    let (window, site_copies) = (world.window, world.site_lag.is_some());
    let incarnation = 1 + world.promotions;
    let acked = open.acked_through;
    let may_redirect = open.may_redirect;
    world.opens.push(open);
    let held = world.streams.entry(stream.clone()).or_default();
    for fault in &faults {
        match fault {
            Fault::Refuse(status) => return Err(status.clone()),
            Fault::Leader(address) if may_redirect => {
                return Err(away("not-leader", Some(address)));
            }
            _ => {}
        }
    }
    held.session += 1;
    held.finished = false;
    let leader = faults.iter().find_map(|fault| match fault {
        Fault::Leader(address) => Some(address.clone()),
        _ => None,
    });
    let opened = Opened {
        session: held.session,
        next_sequence: held.cursor + 1,
        window,
        incarnation,
        site_copies,
        leader_address: leader.unwrap_or_default(),
        loss_from: if held.cursor < acked { held.cursor + 1 } else { 0 },
        loss_to: if held.cursor < acked { acked } else { 0 },
        node: "fake".into(),
        ..Opened::default()
    };
    let session = held.session;
    Ok((faults, opened, session))
}

async fn connection(
    world: Arc<Mutex<World>>,
    mut input: Streaming<PublishRequest>,
    out: &Out,
) -> Result<(), Status> {
    let Some(Asked::Open(open)) = input.message().await?.and_then(|m| m.request) else {
        return Err(Status::invalid_argument("open first"));
    };
    let stream = open.stream.clone();
    let first = world.lock().script.front().and_then(|faults| faults.first()).cloned();
    if let Some(Fault::OpenLate | Fault::OpenUnknown) = first {
        world.lock().script.pop_front();
        if matches!(first, Some(Fault::OpenUnknown)) {
            out.send(Err(away("outcome-unknown", None))).await.ok();
        }
        commit_late(&world, &stream).await;
        return Ok(());
    }
    let (faults, opened, session) = opening(&world, open)?;
    say(out, Answer::Opened(opened)).await?;
    let mut frames = 0u64;
    while let Some(message) = input.message().await? {
        let Some(asked) = message.request else {
            continue;
        };
        match asked {
            Asked::Open(_) => return Err(Status::invalid_argument("a second open")),
            Asked::Lost(_) if faults.iter().any(|fault| matches!(fault, Fault::LostCut)) => {
                return Err(Status::unavailable("cut"));
            }
            Asked::Lost(lost) => {
                {
                    let mut world = world.lock();
                    let held = world.streams.get_mut(&stream).unwrap();
                    assert_eq!(lost.from_sequence, held.cursor + 1);
                    held.cursor = lost.to_sequence;
                    held.lost.push((lost.from_sequence, lost.to_sequence));
                }
                let ack = Ack { acked_through: lost.to_sequence, ..Ack::default() };
                say(out, Answer::Ack(ack)).await?;
            }
            Asked::Close(close) => {
                let acked_through = {
                    let mut world = world.lock();
                    let held = world.streams.get_mut(&stream).unwrap();
                    held.finished |= close.finished;
                    held.cursor
                };
                say(out, Answer::Closed(Closed { acked_through })).await?;
                return Ok(());
            }
            Asked::Frame(frame) => {
                frames += 1;
                one_frame(&world, &stream, session, &faults, frames, frame, out).await?;
            }
        }
    }
    Ok(())
}

async fn one_frame(
    world: &Mutex<World>,
    stream: &str,
    session: u64,
    faults: &[Fault],
    number: u64,
    frame: Frame,
    out: &Out,
) -> Result<(), Status> {
    let cut = || Status::unavailable("cut");
    for fault in faults {
        match fault {
            Fault::FrameLost(n) if *n == number => return Err(cut()),
            Fault::Silent(n) if *n <= number => return Ok(()),
            Fault::Gap(n) if *n == number => return Ok(()),
            Fault::Supersede(n) if *n == number => return Err(Status::aborted("superseded")),
            _ => {}
        }
    }
    let answers = store(world, stream, session, faults, frame)?;
    if faults.iter().any(|fault| matches!(fault, Fault::AckLost(n) if *n == number)) {
        return Err(cut());
    }
    for answer in answers {
        say(out, answer).await?;
    }
    for fault in faults {
        if let Fault::Advise(n, address) = fault
            && *n == number
        {
            let advice =
                Reconnect { address: address.clone(), after_ms: 1000, reason: "drain".into() };
            say(out, Answer::Reconnect(advice)).await?;
        }
        if matches!(fault, Fault::SiteHas(n) if *n == number) {
            let through = world.lock().streams[stream].cursor;
            let ack = Ack {
                acked_through: through,
                site_through: through,
                site_copies: true,
                only_site: true,
                incarnation: 1,
                ..Ack::default()
            };
            say(out, Answer::Ack(ack)).await?;
        }
    }
    Ok(())
}

/// Keeps what is new. A sequence names one record for good, in every resend: `Err` says which did not.
fn keep(held: &mut Held, frame: Frame, refuse: Option<&[u8]>) -> Result<Vec<RefusedRecord>, u64> {
    let mut refused = Vec::new();
    for (sequence, record) in (frame.first_sequence..).zip(frame.records) {
        if sequence <= held.cursor {
            if held.records.get(&sequence).is_some_and(|old| *old != record.payload) {
                return Err(sequence);
            }
            continue;
        }
        if refuse == Some(record.payload.as_ref()) {
            held.refused.push(sequence);
            refused.push(RefusedRecord { sequence, ..RefusedRecord::default() });
        }
        let before = held.records.insert(sequence, record.payload.to_vec());
        assert!(before.is_none(), "sequence {sequence} is kept twice");
    }
    Ok(refused)
}

fn rewind(expected: u64, reason: RewindReason, conflict: u64) -> Answer {
    Answer::Rewind(Rewind {
        expected_sequence: expected,
        reason: reason.into(),
        conflict_sequence: conflict,
        ..Rewind::default()
    })
}

/// Another content at a sequence of the frame, where a fault says so.
fn planted_conflict(held: &mut Held, faults: &[Fault], frame: &Frame) -> Option<Answer> {
    let last = frame.first_sequence + frame.records.len() as u64 - 1;
    let conflict = faults.iter().find_map(|fault| match fault {
        Fault::Conflict(n) if (frame.first_sequence..=last).contains(n) => Some(*n),
        _ => None,
    });
    if let Some(sequence) = conflict
        && held.cursor < sequence
    {
        for at in held.cursor + 1..=sequence {
            held.records.insert(at, b"other".to_vec());
        }
        held.cursor = sequence;
        return Some(rewind(sequence + 1, RewindReason::Conflict, sequence));
    }
    let inside = faults.iter().find_map(|fault| match fault {
        Fault::ConflictInside(n) if (frame.first_sequence..=last).contains(n) => Some(*n),
        _ => None,
    });
    if let Some(sequence) = inside
        && held.cursor < sequence
    {
        // The conflicting batch ends before the frame does: only that much is held.
        for (at, record) in (frame.first_sequence..=sequence).zip(&frame.records) {
            held.records.insert(at, record.payload.to_vec());
        }
        held.records.insert(sequence, b"other".to_vec());
        held.cursor = sequence;
        return Some(rewind(last + 1, RewindReason::Conflict, sequence));
    }
    None
}

fn store(
    world: &Mutex<World>,
    stream: &str,
    session: u64,
    faults: &[Fault],
    frame: Frame,
) -> Result<Vec<Answer>, Status> {
    let mut world = world.lock();
    world.frames += 1;
    let size: usize = frame.records.iter().map(|r| r.payload.len()).sum();
    world.largest_frame = world.largest_frame.max(size);
    let refuse = world.refuse_payload.clone();
    let (answers_conflicts, keeps_silent) = (world.answers_conflicts, world.keeps_silent);
    let (site_lag, incarnation) = (world.site_lag, 1 + world.promotions);
    let held = world.streams.get_mut(stream).unwrap();
    if held.session != session {
        return Err(Status::aborted("superseded"));
    }
    let last = frame.first_sequence + frame.records.len() as u64 - 1;
    if last > held.cursor && frame.first_sequence != held.cursor + 1 {
        return Ok(vec![rewind(held.cursor + 1, RewindReason::Gap, 0)]);
    }
    if let Some(answer) = planted_conflict(held, faults, &frame) {
        return Ok(vec![answer]);
    }
    let refused = match keep(held, frame, refuse.as_deref()) {
        Ok(refused) => refused,
        Err(sequence) if answers_conflicts => {
            return Ok(vec![rewind(held.cursor + 1, RewindReason::Conflict, sequence)]);
        }
        Err(sequence) => {
            world.renumbered.push(sequence);
            return Err(Status::internal("renumbered"));
        }
    };
    held.cursor = held.cursor.max(last);
    let less = faults.iter().find_map(|fault| match fault {
        Fault::AckLess(n) => Some(*n),
        _ => None,
    });
    let mut answers = Vec::new();
    if !refused.is_empty() && !keeps_silent {
        answers.push(Answer::Refused(Refused { records: refused }));
    }
    let acked_through = held.cursor.saturating_sub(less.unwrap_or(0));
    answers.push(Answer::Ack(Ack {
        acked_through,
        site_through: site_lag.map_or(0, |lag| acked_through.saturating_sub(lag)),
        site_copies: site_lag.is_some(),
        incarnation,
        token: vec![7; 8].into(),
        ..Ack::default()
    }));
    Ok(answers)
}
