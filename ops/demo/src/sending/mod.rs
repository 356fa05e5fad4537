//! Sends the records of one stream over one persistent connection, at a steady pace.
//!
//! ```text
//!  tick ─▶ Generator ─▶ Publisher.try_send ─▶ history (sequence, digest)
//!                            │                       ▲
//!                            └── ack ─▶ pending ─────┴──▶ Meter (latency, gap)
//! ```
//! A task owns its publisher and what waits for an ack; the generator is shared by the streams of
//! a source. Back-pressure: a record that the client does not take waits here, and nothing more
//! is made meanwhile.

mod meter;

pub(crate) use meter::{KillMark, Meter, Reading, histogram};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use dtm_client::{Event, Publisher, PublisherConfig, Record};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock;
use crate::generate::{Dataset, Generated, Generator};
use crate::history::{Digest, StreamHistory};
use crate::register::Registered;

/// How often a stream looks what is due.
const TICK: Duration = Duration::from_millis(50);
/// Longest pause of the client between two attempts: a demo is watched.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Records that may be due at once after a pause; more are given up.
const DUE_MAX: f64 = 200.0;

/// What the senders do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Full rate, noted in the history.
    Full,
    /// Nothing new; acks come in.
    Still,
    /// A twentieth, for people who look around; not noted.
    Trickle,
}

/// One stream of one source.
pub(crate) struct Stream {
    /// The source.
    pub(crate) source: Registered,
    /// Data set, and name of the stream.
    pub(crate) dataset: Dataset,
    /// Records a second.
    pub(crate) rate: f64,
    /// Makes the source's records.
    pub(crate) generator: Arc<Mutex<Generator>>,
    /// What was sent.
    pub(crate) history: Arc<Mutex<StreamHistory>>,
    /// Counters of the source.
    pub(crate) meter: Arc<Meter>,
    /// What to do.
    pub(crate) pace: watch::Receiver<Pace>,
}

/// What waits for its ack: sequence and when it was handed over.
type Pending = VecDeque<(u64, Instant)>;

impl Stream {
    /// Opens the stream.
    ///
    /// # Errors
    /// What the cluster said.
    pub(crate) async fn open(&self) -> Result<Publisher> {
        let code = self.source.plan.code.clone();
        let meter = self.meter.clone();
        let dataset = self.dataset;
        let mut config =
            PublisherConfig::new(code.clone(), dataset.id(), dataset.id()).on_event(move |event| {
                match event {
                    Event::Connected { node, .. } => meter.connected(&node),
                    Event::Refused(records) => meter.refused(records.len() as u64),
                    _ => {}
                }
            });
        config.backoff_max = BACKOFF_MAX;
        let publisher = Publisher::open(self.source.endpoint.clone(), config).await;
        publisher.with_context(|| format!("{code}/{}", dataset.id()))
    }

    /// Sends until it is dropped or the publisher ends.
    ///
    /// # Errors
    /// Why the publisher ended.
    pub(crate) async fn run(mut self, publisher: Publisher) -> Result<()> {
        let mut acks = publisher.acked();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending = Pending::new();
        let mut held = None;
        let mut due = 0.0;
        let mut last_tick = clock::now();
        let mut last_ack = last_tick;
        loop {
            tokio::select! {
                // The sender of acks lives as long as the publisher.
                _ = acks.changed() => {
                    let through = acks.borrow_and_update().acked_through;
                    self.acked(through, &mut pending, &mut last_ack);
                }
                now = tick.tick() => {
                    let pace = *self.pace.borrow_and_update();
                    let rate = match pace {
                        Pace::Full => self.rate,
                        Pace::Still => 0.0,
                        Pace::Trickle => self.rate / 20.0,
                    };
                    due = (due + rate * (now - last_tick).as_secs_f64()).min(DUE_MAX);
                    last_tick = now;
                    if pace == Pace::Still {
                        // What is held back is not sent after the end of the count.
                        held = None;
                        due = 0.0;
                    }
                    self.send(&publisher, pace, &mut due, &mut held, &mut pending)?;
                }
                error = publisher.failure() => {
                    let stream = format!("{}/{}", self.source.plan.code, self.dataset.id());
                    return Err(error).context(stream);
                }
            }
        }
    }

    /// Hands over what is due, as far as the client takes it.
    fn send(
        &self,
        publisher: &Publisher,
        pace: Pace,
        due: &mut f64,
        held: &mut Option<(Generated, Record)>,
        pending: &mut Pending,
    ) -> Result<()> {
        while *due >= 1.0 || held.is_some() {
            let (made, record) = held.take().unwrap_or_else(|| {
                *due -= 1.0;
                self.make()
            });
            let Some(sequence) = publisher.try_send(&record)? else {
                *held = Some((made, record));
                break;
            };
            pending.push_back((sequence, clock::now()));
            if pace == Pace::Full {
                self.history.lock().sent(sequence, digest(&record.payload), made.breaks.is_none());
            }
            self.meter.sent();
        }
        Ok(())
    }

    fn make(&self) -> (Generated, Record) {
        let made = self.generator.lock().next(self.dataset);
        let record = Record {
            payload: made.payload.clone().into(),
            message_id: made.message_id.clone(),
            event_time_us: clock::now_us(),
            ..Record::default()
        };
        (made, record)
    }

    fn acked(&self, through: u64, pending: &mut Pending, last_ack: &mut Instant) {
        let now = clock::now();
        let oldest = pending.front().copied();
        let mut count = 0;
        while let Some((sequence, since)) = pending.front()
            && *sequence <= through
        {
            self.meter.acked(now - *since);
            pending.pop_front();
            count += 1;
        }
        if let Some((_, oldest)) = oldest
            && count > 0
        {
            // Silence counts only while something waited.
            self.meter.silence(oldest.max(*last_ack), now);
            *last_ack = now;
        }
        self.history.lock().acked(through);
    }
}

/// First half of the SHA-256.
pub(crate) fn digest(payload: &[u8]) -> Digest {
    let whole: [u8; 32] = Sha256::digest(payload).into();
    let mut half = Digest::default();
    half.copy_from_slice(&whole[..16]);
    half
}
