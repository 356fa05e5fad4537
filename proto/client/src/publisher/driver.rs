//! The driver: keeps one session alive through failures, in the order
//!
//! ```text
//!  connect ─► resume (compare cursors) ─► stream ─┬─► closed: end
//!     ▲                                           ├─► final error: end
//!     └── next seed, leader advised, or backoff ◄─┴─► lost, advised, silent
//! ```

use super::config::{Event, PublisherConfig};
use super::route::Route;
use super::state::Shared;
use crate::backoff::Backoff;
use crate::{Endpoint, Error, Session};
use dtm_proto::ingest::{Open, Window};
use dtm_types::ErrorCode;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An open without an answer may still be committed, and then takes the stream over, for so long.
const OPEN_MAY_COMMIT: Duration = Duration::from_secs(30);

/// Records that the cluster lost and this client does not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The caller agreed and the server was told; its ack ends the loss.
    pub(crate) reported: bool,
}

/// Why streaming stopped.
pub(crate) enum Exit {
    /// Closed as asked.
    Closed,
    /// Try again, at this address first where one is given.
    Again(Option<String>),
    /// The connection failed.
    Failed(Error),
}

pub(crate) struct Driver {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: PublisherConfig,
    pub(crate) shared: Arc<Shared>,
    pub(crate) backoff: Backoff,
    route: Route,
    /// Opens whose outcome is not known, and when the last one was.
    abandoned: (u32, Instant),
    /// Sent and not acked: last sequence and bytes of each frame.
    pub(crate) in_flight: VecDeque<(u64, usize)>,
    pub(crate) in_flight_bytes: usize,
    pub(crate) window: Window,
    pub(crate) loss: Option<Loss>,
    /// Asked to go elsewhere: by when, where to.
    pub(crate) leaving: Option<(Instant, String)>,
    pub(crate) close_sent: bool,
    pub(crate) rewinds: u32,
    /// The highest sequence that was told as a conflict.
    pub(crate) conflict_told: u64,
    /// The store failed: final.
    pub(crate) broken: Option<Error>,
    pub(crate) last_progress: Instant,
}

impl Driver {
    pub(crate) fn new(endpoint: Endpoint, config: PublisherConfig, shared: Arc<Shared>) -> Self {
        let seed = config.seed.unwrap_or_else(rand::random);
        Self {
            backoff: Backoff::new(config.backoff_max, seed),
            route: Route::new(endpoint.seeds(), seed),
            abandoned: (0, Instant::now()),
            window: Window::default(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            loss: None,
            leaving: None,
            close_sent: false,
            rewinds: 0,
            conflict_told: 0,
            broken: None,
            last_progress: Instant::now(),
            endpoint,
            config,
            shared,
        }
    }

    /// Runs until the publisher is closed, ends with an error, or its handle is dropped.
    pub(crate) async fn run(mut self) {
        let mut advised = None;
        loop {
            let mut session = match self.connect(advised.take()).await {
                Ok(Some(session)) => session,
                Ok(None) => return self.closed(),
                Err(error) => return self.shared.end(error),
            };
            if let Err(error) = self.resume(&session) {
                return self.shared.end(error);
            }
            let exit = self.stream(&mut session).await;
            self.route.avoid(session.address());
            self.forget_session();
            if let Some(error) = self.broken.take() {
                return self.shared.end(error);
            }
            match exit {
                Exit::Closed => return self.closed(),
                Exit::Again(address) => advised = address,
                Exit::Failed(error) if error.retryable() || self.is_own_late_open(&error) => {
                    self.tell(Event::Disconnected { error })
                }
                Exit::Failed(error) => return self.shared.end(error),
            }
        }
    }

    fn closed(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.ended.get_or_insert(Error::Closed);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    fn forget_session(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.loss = None;
        self.leaving = None;
        self.close_sent = false;
        let mut state = self.shared.lock();
        state.counters.node.clear();
        state.counters.address.clear();
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Some(sink) = &self.config.on_event {
            sink(event);
        }
    }

    /// Taken over by an open of this client's own that was given up and committed late? Each such
    /// open explains one takeover.
    fn is_own_late_open(&mut self, error: &Error) -> bool {
        let (count, last) = self.abandoned;
        let explained = matches!(error, Error::Superseded { .. })
            && count > 0
            && last.elapsed() < OPEN_MAY_COMMIT;
        if explained {
            self.abandoned.0 -= 1;
        }
        explained
    }

    /// A session, after as many attempts as it takes; `None` when there is nothing left to do.
    async fn connect(&mut self, advised: Option<String>) -> Result<Option<Session>, Error> {
        self.route.begin(advised);
        // Nodes that live in an earlier life of the cluster than this client saw.
        let mut left_behind = BTreeSet::new();
        // The most telling error of this turn.
        let mut telling: Option<Error> = None;
        loop {
            if self.nothing_left() {
                return Ok(None);
            }
            let error = match self.open().await {
                Ok(session) => {
                    // A server that does not know `may_redirect` opens and names the leader.
                    let leader = session.opened().leader_address.clone();
                    if self.route.redirect(&leader) {
                        continue;
                    }
                    return Ok(Some(session));
                }
                Err(error) => error,
            };
            if may_commit_late(&error) {
                self.abandoned = (self.abandoned.0.saturating_add(1), Instant::now());
            }
            if let Error::Rejected { leader: Some(leader), code, .. } = &error
                // Who leads, or only another node to try: a seed's turn comes anyway.
                && (*code == Some(ErrorCode::NotLeader) || !self.route.is_seed(leader))
                && self.route.redirect(leader)
            {
                continue;
            }
            // A site that another took over from is up again: the others are of the life that goes on.
            let is_behind = error.code() == Some(ErrorCode::WrongIncarnation);
            if is_behind {
                left_behind.insert(self.route.address().to_owned());
            }
            let is_elsewhere = is_behind && left_behind.len() < self.endpoint.seeds().len();
            if !error.retryable() && !is_elsewhere {
                return Err(error);
            }
            let is_away = is_behind
                || matches!(
                    error,
                    Error::Connect { .. }
                        | Error::OutcomeUnknown { .. }
                        | Error::Rejected { grpc: tonic::Code::Unavailable, .. }
                );
            let asked = match &error {
                Error::Rejected { retry_after, .. } => *retry_after,
                _ => None,
            };
            telling = telling.take().filter(|held| says(held) > says(&error)).or(Some(error));
            if (!self.route.failed() || !is_away)
                && let Some(error) = telling.take()
            {
                self.pause(error, asked).await;
            }
        }
    }

    /// Waits before the next attempt, at least as long as the server asked for.
    async fn pause(&mut self, error: Error, asked: Option<Duration>) {
        let after = self.backoff.next(asked);
        self.shared.lock().last_failure = Some(error.clone());
        self.tell(Event::Retrying { error, after });
        tokio::time::sleep(after).await;
    }

    async fn open(&self) -> Result<Session, Error> {
        let progress = self.shared.progress.borrow().clone();
        let open = Open {
            acked_through: progress.acked_through,
            incarnation: progress.incarnation,
            ack_token: progress.token,
            may_redirect: self.route.may_redirect(),
            ..self.config.open()
        };
        let limits = self.route.limits(self.endpoint.connect_timeout());
        Session::open_within(&self.endpoint, self.route.address(), open, limits).await
    }

    /// Closing without a last word to say: no session is needed for that.
    fn nothing_left(&self) -> bool {
        let state = self.shared.lock();
        state.closing == Some(false) && state.store.next_sequence() > 0 && state.all_acked()
    }
}

/// How much an error says of why there is no session: a node that is silent, one that has nobody to
/// ask, one that knows.
fn says(error: &Error) -> u8 {
    match error {
        Error::Rejected { code: Some(ErrorCode::Unavailable), .. } => 1,
        Error::Rejected { .. } => 2,
        _ => 0,
    }
}

/// Whether the open that ended so may still take the stream over later.
fn may_commit_late(error: &Error) -> bool {
    match error {
        Error::OutcomeUnknown { .. } => true,
        Error::Rejected { code, .. } => code.is_none_or(|code| code == ErrorCode::OutcomeUnknown),
        _ => false,
    }
}
