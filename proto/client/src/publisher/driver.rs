//! The driver: keeps one session alive through failures, in the order
//!
//! ```text
//!  connect ─► resume (compare cursors) ─► stream ─┬─► closed: end
//!     ▲                                           ├─► final error: end
//!     └── backoff, next seed, or leader advised ◄─┴─► lost, advised, silent
//! ```
//!
//! At most one redirect to a leader per open, so that two nodes with stale views cannot make it
//! go back and forth.

use super::config::{Event, PublisherConfig};
use super::state::Shared;
use crate::backoff::Backoff;
use crate::{Endpoint, Error, Session};
use dtm_proto::ingest::{Open, Window};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

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
    /// Which seed comes next.
    turn: usize,
    /// Sent and not acked: last sequence and bytes of each frame.
    pub(crate) in_flight: VecDeque<(u64, usize)>,
    pub(crate) in_flight_bytes: usize,
    pub(crate) window: Window,
    /// Lost sequences that the caller has to agree to.
    pub(crate) loss: Option<(u64, u64)>,
    /// Asked to go elsewhere: by when, where to.
    pub(crate) leaving: Option<(Instant, String)>,
    pub(crate) close_sent: bool,
    pub(crate) rewinds: u32,
    /// The store failed: final.
    pub(crate) broken: Option<Error>,
    pub(crate) last_progress: Instant,
}

impl Driver {
    pub(crate) fn new(endpoint: Endpoint, config: PublisherConfig, shared: Arc<Shared>) -> Self {
        let seed = config.seed.unwrap_or_else(rand::random);
        Self {
            backoff: Backoff::new(config.backoff_max, seed),
            turn: (seed % endpoint.seeds().len() as u64) as usize,
            window: Window::default(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            loss: None,
            leaving: None,
            close_sent: false,
            rewinds: 0,
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
            self.forget_session();
            if let Some(error) = self.broken.take() {
                return self.shared.end(error);
            }
            match exit {
                Exit::Closed => return self.closed(),
                Exit::Again(address) => advised = address,
                Exit::Failed(error) if error.retryable() => {
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

    /// A session, after as many attempts as it takes; `None` when there is nothing left to do.
    async fn connect(&mut self, advised: Option<String>) -> Result<Option<Session>, Error> {
        let mut may_redirect = advised.is_none();
        let mut address = advised.unwrap_or_else(|| self.next_seed());
        loop {
            if self.nothing_left() {
                return Ok(None);
            }
            let (error, leader) = match self.open(&address).await {
                Ok(session) => {
                    let leader = session.opened().leader_address.clone();
                    if !may_redirect || leader.is_empty() || leader == address {
                        return Ok(Some(session));
                    }
                    may_redirect = false;
                    address = leader;
                    continue;
                }
                Err(Error::Rejected { leader: Some(leader), ref address, .. })
                    if may_redirect && leader != *address =>
                {
                    (None, Some(leader))
                }
                Err(error) if error.retryable() => (Some(error), None),
                Err(error) => return Err(error),
            };
            if let Some(leader) = leader {
                may_redirect = false;
                address = leader;
                continue;
            }
            self.pause(error.expect("either a leader or an error")).await;
            may_redirect = true;
            address = self.next_seed();
        }
    }

    /// Waits before the next attempt.
    async fn pause(&mut self, error: Error) {
        let asked = match &error {
            Error::Rejected { retry_after, .. } => *retry_after,
            _ => None,
        };
        let after = self.backoff.next(asked);
        self.shared.lock().last_failure = Some(error.clone());
        self.tell(Event::Retrying { error, after });
        tokio::time::sleep(after).await;
    }

    async fn open(&self, address: &str) -> Result<Session, Error> {
        let progress = self.shared.progress.borrow().clone();
        let config = &self.config;
        let open = Open {
            source: config.source.clone(),
            stream: config.stream.clone(),
            dataset: config.dataset.clone(),
            schema_version: config.schema_version,
            mode: config.mode.into(),
            form: config.form.into(),
            ids: config.ids.into(),
            acked_through: progress.acked_through,
            incarnation: progress.incarnation,
            ack_token: progress.token,
            defaults: config.defaults.clone(),
            client: concat!("dtm-client/", env!("CARGO_PKG_VERSION")).into(),
        };
        Session::open(&self.endpoint, address, open).await
    }

    fn next_seed(&mut self) -> String {
        let seeds = self.endpoint.seeds();
        let seed = seeds[self.turn % seeds.len()].clone();
        self.turn = self.turn.wrapping_add(1);
        seed
    }

    /// Closing without a last word to say: no session is needed for that.
    fn nothing_left(&self) -> bool {
        let state = self.shared.lock();
        state.closing == Some(false) && state.store.next_sequence() > 0 && state.all_acked()
    }
}
