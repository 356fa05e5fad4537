//! A session: whether both ends are there, and the lanes that either opens. Owner of its state; lanes
//! hold it and end with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dtm_types::NodeId;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::lane::TcpLane;
use super::{FRAME_BYTES, Frame, Hello, Io, Purpose, SessionId};
use crate::accept::count_refused;
use crate::error::Error;
use crate::settings::Settings;
use crate::wire::Figures;

/// Lanes of a session that the other end opened and nobody has taken yet.
const ARRIVED_MAX: usize = 64;
/// Frames that wait to be sent.
const FRAMES_MAX: usize = 64;

/// One session. [`Session::run`] keeps it; without that it ends after silence at the other end.
pub(crate) struct Session {
    id: SessionId,
    node: NodeId,
    ended: CancellationToken,
    frames: mpsc::Sender<Frame>,
    arrived: mpsc::Sender<Io>,
    taken: tokio::sync::Mutex<mpsc::Receiver<Io>>,
    /// Lanes that this end asked for, where it was called.
    wanted: Mutex<HashMap<u64, oneshot::Sender<Io>>>,
    next: AtomicU64,
    /// How further connections are made, where this end called.
    call: Option<Call>,
    handshake: Duration,
    /// Lanes that are open, whoever opened them; the other end opens none beyond the bound.
    lanes: AtomicU32,
    lanes_max: u32,
    /// Connections that are being made because the other end asked.
    brought: Arc<Semaphore>,
    begun: Instant,
    round_trip_us: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

/// Forgets a lane that is waited for, however the waiting ends.
struct Waits<'a>(&'a Session, u64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.wanted.lock().remove(&self.1);
    }
}

impl Session {
    /// With a node whose certificate was looked at; to be [run](Session::run). Ends with `stop`.
    pub(super) fn new(
        (id, node): (SessionId, NodeId),
        call: Option<Call>,
        settings: &Settings,
        stop: &CancellationToken,
    ) -> (Arc<Self>, mpsc::Receiver<Frame>) {
        let (frames, to_send) = mpsc::channel(FRAMES_MAX);
        let (arrived, taken) = mpsc::channel(ARRIVED_MAX);
        let session = Self {
            id,
            node,
            ended: stop.child_token(),
            frames,
            arrived,
            taken: tokio::sync::Mutex::new(taken),
            wanted: Mutex::default(),
            next: AtomicU64::new(0),
            call,
            brought: Arc::new(Semaphore::new(ARRIVED_MAX)),
            handshake: settings.handshake,
            lanes: AtomicU32::new(0),
            lanes_max: settings.lanes_max,
            begun: Instant::now(),
            round_trip_us: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        };
        (Arc::new(session), to_send)
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn token(&self) -> CancellationToken {
        self.ended.clone()
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.ended.is_cancelled()
    }

    pub(crate) fn close(&self) {
        self.ended.cancel();
    }

    pub(crate) async fn closed(&self) {
        self.ended.cancelled().await;
    }

    pub(super) fn lane_begins(&self) {
        self.lanes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lane_ended(&self) {
        self.lanes.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, sent: usize, received: usize) {
        self.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
        self.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures {
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            ..Figures::default()
        }
    }

    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip_us.load(Ordering::Relaxed))
    }

    /// A lane that has no name yet, within the time of a handshake. Cancel-safe.
    pub(crate) async fn open(self: &Arc<Self>) -> Result<TcpLane, Error> {
        let opening = async {
            match &self.call {
                Some(call) => call.connect(self.hello(Purpose::Lane)).await,
                None => self.want().await,
            }
        };
        let opened = async { timeout(self.handshake, opening).await.map_err(|_| Error::Late)? };
        let io = self.ended.run_until_cancelled(opened).await.ok_or(Error::Cut(self.node))??;
        Ok(TcpLane::new(io, Arc::clone(self)))
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        Hello { purpose, session: self.id }
    }

    async fn want(&self) -> Result<Io, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (give, given) = oneshot::channel();
        self.wanted.lock().insert(number, give);
        let _waits = Waits(self, number);
        self.frames.send(Frame::Want(number)).await.map_err(|_| Error::Cut(self.node))?;
        given.await.map_err(|_| Error::Cut(self.node))
    }

    /// The next lane that the other end opens; `None` once the session has ended.
    pub(crate) async fn accept(self: &Arc<Self>) -> Option<TcpLane> {
        let mut taken = self.taken.lock().await;
        let io = self.ended.run_until_cancelled(taken.recv()).await??;
        Some(TcpLane::new(io, Arc::clone(self)))
    }

    /// A connection of this session came in, or was made for the other end. Refused where that has
    /// more on its way than is taken.
    pub(super) fn arrive(&self, purpose: Purpose, io: Io) {
        let is_taken = match purpose {
            Purpose::Lane => {
                let has_room = self.lanes.load(Ordering::Relaxed) < self.lanes_max;
                has_room && self.arrived.try_send(io).is_ok()
            }
            Purpose::Wanted(number) => {
                let waits = self.wanted.lock().remove(&number);
                waits.is_some_and(|waits| waits.send(io).is_ok())
            }
            Purpose::Probe | Purpose::Line => false,
        };
        if !is_taken {
            count_refused("lane");
        }
    }

    /// Tells the other end that this one is there and hears it, until either is gone or the session is
    /// closed; then it has ended.
    pub(super) async fn run(
        self: Arc<Self>,
        stream: Io,
        to_send: mpsc::Receiver<Frame>,
        settings: Settings,
    ) {
        let _ended = self.ended.clone().drop_guard();
        let (read, write) = tokio::io::split(stream);
        tokio::select! {
            why = self.hear(read, settings.idle) => {
                tracing::debug!(node = %self.node, %why, "session over TCP ended");
            }
            why = self.tell(write, to_send, &settings) => {
                tracing::debug!(node = %self.node, %why, "session over TCP ended");
            }
            () = self.ended.cancelled() => {}
        }
    }

    /// Returns why nothing is heard any more.
    async fn hear(self: &Arc<Self>, mut from: ReadHalf<Io>, idle: Duration) -> Error {
        let mut bytes = [0; FRAME_BYTES];
        loop {
            match timeout(idle, from.read_exact(&mut bytes)).await {
                Err(_) => return Error::Late,
                Ok(Err(error)) => return error.into(),
                Ok(Ok(_)) => self.count(0, FRAME_BYTES),
            }
            match Frame::from_bytes(bytes) {
                // A peer that asks faster than it takes answers gets fewer of them.
                Some(Frame::Ping(number)) => drop(self.frames.try_send(Frame::Pong(number))),
                Some(Frame::Pong(sent_us)) => {
                    let taken = self.now_us().saturating_sub(sent_us);
                    self.round_trip_us.store(taken, Ordering::Relaxed);
                }
                Some(Frame::Want(number)) => self.bring(number),
                None => return std::io::Error::from(std::io::ErrorKind::InvalidData).into(),
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Makes the connection that the called end asked for.
    fn bring(self: &Arc<Self>, number: u64) {
        // Counted before anything is made: a peer that asks without an end costs nothing.
        let Ok(place) = Arc::clone(&self.brought).try_acquire_owned() else {
            tracing::debug!(node = %self.node, "a peer asks for more connections than it may");
            return;
        };
        let session = Arc::clone(self);
        let bringing = async move {
            let _place = place;
            let Some(call) = &session.call else { return };
            let hello = session.hello(Purpose::Wanted(number));
            match timeout(session.handshake, call.connect(hello)).await {
                Ok(Ok(io)) => session.arrive(Purpose::Lane, io),
                Ok(Err(error)) => tracing::debug!(node = %session.node, %error, "no lane"),
                Err(_) => tracing::debug!(node = %session.node, "no lane in time"),
            }
        };
        let ended = self.token();
        tokio::spawn(async move { ended.run_until_cancelled(bringing).await });
    }

    /// Returns why nothing can be said any more.
    async fn tell(
        &self,
        mut to: WriteHalf<Io>,
        mut to_send: mpsc::Receiver<Frame>,
        settings: &Settings,
    ) -> Error {
        let mut ticks = interval(settings.keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let frame = tokio::select! {
                Some(frame) = to_send.recv() => frame,
                _ = ticks.tick() => Frame::Ping(self.now_us()),
            };
            let telling = async {
                to.write_all(&frame.to_bytes()).await?;
                to.flush().await
            };
            match timeout(settings.idle, telling).await {
                Err(_) => return Error::Late,
                Ok(Err(error)) => return error.into(),
                Ok(Ok(())) => self.count(FRAME_BYTES, 0),
            }
        }
    }
}
