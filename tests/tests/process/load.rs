//! Streams at a steady pace, each with the history of what was sent.
//!
//! Payloads are canonical as they leave here, so the digest of what was sent is the digest of what
//! is stored.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_chaos::checker::Digest;
use dtm_client::{Event, Mode, Progress, Publisher, PublisherConfig, Record};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::gaps::Pulse;
use crate::sources::Source;
use crate::wait::{is_long, until};

/// Of a stream that does not say otherwise.
const TICK: Duration = Duration::from_millis(20);
/// Of the records of a stream that does not say otherwise.
const BROKEN_EVERY: u64 = 40;
/// More records than a stream sends while all is read back.
const AHEAD: u64 = 20_000;
/// Reasons of trouble that a stream remembers.
const REASONS_MAX: usize = 100;
/// Longest wait for acks.
const ACKS_WITHIN: Duration = Duration::from_secs(60);

/// What a stream is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) source: Arc<Source>,
    pub(crate) stream: String,
    pub(crate) dataset: String,
    pub(crate) mode: Mode,
    /// Records a tick.
    pub(crate) per_tick: u64,
    pub(crate) tick: Duration,
    /// Then it ends by itself; none = when it is told.
    pub(crate) count_max: Option<u64>,
    /// Stands in each message id.
    pub(crate) mark: String,
    /// Length to which the note is filled, bytes; 0 = as long as it is.
    pub(crate) note_bytes: usize,
    /// Whether it is filled with what no compression makes shorter.
    pub(crate) is_dense: bool,
    /// Where message ids come from.
    pub(crate) ids: Ids,
    /// One record in so many breaks its data contract.
    pub(crate) broken_every: u64,
}

/// Where message ids come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Each record brings its own.
    Own,
    /// The member `code` is the id.
    Code,
    /// There are none.
    None,
}

impl Plan {
    pub(crate) fn new(source: &Arc<Source>, stream: &str) -> Self {
        Self {
            source: source.clone(),
            stream: stream.to_owned(),
            dataset: "notes".to_owned(),
            mode: Mode::Realtime,
            per_tick: 1,
            tick: TICK,
            count_max: None,
            mark: stream.to_owned(),
            note_bytes: 0,
            is_dense: false,
            ids: Ids::Own,
            broken_every: BROKEN_EVERY,
        }
    }

    /// The record of a sequence, and whether it is valid.
    pub(crate) fn record(&self, sequence: u64) -> (Record, bool) {
        let valid = !sequence.is_multiple_of(self.broken_every);
        let (code, mark) = (&self.source.code, &self.mark);
        // A broken one has a member that was not agreed.
        let member = if valid { "note" } else { "remark" };
        let id = format!("{}-{sequence}", code.to_uppercase());
        let note = format!("note of {mark}");
        let fill = fill(sequence, self.note_bytes.saturating_sub(note.len()), self.is_dense);
        let payload = format!("{{\"code\":\"{id}\",\"{member}\":\"{note}{fill}\"}}");
        let message_id = match self.ids {
            Ids::Own => format!("{code}/{mark}/{sequence}"),
            Ids::Code => id,
            Ids::None => String::new(),
        };
        let record = Record {
            payload: payload.into_bytes().into(),
            message_id,
            event_time_us: 1_790_000_000_000_000 + i64::try_from(sequence).unwrap_or_default(),
            ..Record::default()
        };
        (record, valid)
    }
}

/// So much text.
fn fill(sequence: u64, bytes: usize, is_dense: bool) -> String {
    if !is_dense {
        return ".".repeat(bytes);
    }
    let parts = (0..bytes.div_ceil(64)).map(|part| {
        let digest = Sha256::digest(format!("{sequence}/{part}"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let mut text: String = parts.collect();
    text.truncate(bytes);
    text
}

/// A stream and what was sent on it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) plan: Plan,
    /// Digest and validity, from sequence 1.
    pub(crate) sent: Mutex<Vec<(Digest, bool)>>,
    pub(crate) acked: AtomicU64,
    /// Refusals that were told to the client.
    pub(crate) told: Mutex<BTreeSet<u64>>,
    /// Sessions opened.
    pub(crate) sessions: AtomicU64,
    /// Failed attempts and cut connections.
    pub(crate) troubles: AtomicU64,
    /// The last reasons of them.
    pub(crate) reasons: Mutex<VecDeque<String>>,
    /// What the client told that must not happen.
    breach: Mutex<Option<String>>,
    /// When things happened last.
    pub(crate) pulse: Mutex<Pulse>,
}

impl Line {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            sent: Mutex::default(),
            acked: AtomicU64::new(0),
            told: Mutex::default(),
            sessions: AtomicU64::new(0),
            troubles: AtomicU64::new(0),
            reasons: Mutex::default(),
            breach: Mutex::default(),
            pulse: Mutex::new(Pulse::now()),
        }
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.plan.source.code, self.plan.stream)
    }

    /// What must be there now, and what may be there by the time that it is read.
    pub(crate) fn snapshot(&self) -> Arc<Self> {
        let copy = Self::new(self.plan.clone());
        copy.acked.store(self.acked(), Ordering::Relaxed);
        copy.hand_out(self.sent.lock().len() as u64 + AHEAD);
        Arc::new(copy)
    }

    /// Opens a publisher that tells this line what happens.
    pub(crate) async fn open(
        self: &Arc<Self>,
        endpoint: dtm_client::Endpoint,
    ) -> Result<Publisher> {
        let plan = &self.plan;
        let line = self.clone();
        let mut config = PublisherConfig::new(&plan.source.code, &plan.stream, &plan.dataset)
            .on_event(move |event| line.event(event));
        config.mode = plan.mode;
        config.backoff_max = Duration::from_millis(500);
        config.ack_timeout = Duration::from_secs(10);
        let opened = Publisher::open(endpoint, config).await;
        opened.with_context(|| self.name())
    }

    fn event(&self, event: Event) {
        match event {
            Event::Refused(records) => {
                let mut told = self.told.lock();
                told.extend(records.iter().map(|record| record.sequence));
            }
            Event::Connected { .. } => {
                self.sessions.fetch_add(1, Ordering::Relaxed);
                self.pulse.lock().connected();
            }
            Event::Disconnected { error } | Event::Retrying { error, .. } => {
                let mut reasons = self.reasons.lock();
                reasons.truncate(REASONS_MAX - 1);
                reasons.push_front(error.to_string());
                self.pulse.lock().cut();
                self.troubles.fetch_add(1, Ordering::Relaxed);
            }
            // Told in a task of the client: the test looks at it.
            Event::Conflict { .. } | Event::LossDetected { .. } | Event::LossMended { .. } => {
                self.breach.lock().get_or_insert_with(|| format!("{event:?}"));
            }
        }
    }

    /// Notes that the next records are sent by somebody else, who got them as these JSON lines.
    pub(crate) fn hand_out(&self, count: u64) -> Vec<u8> {
        let mut sent = self.sent.lock();
        let mut lines = Vec::new();
        for _ in 0..count {
            let (record, valid) = self.plan.record(sent.len() as u64 + 1);
            sent.push((digest(&record.payload), valid));
            lines.extend_from_slice(&record.payload);
            lines.push(b'\n');
        }
        lines
    }

    /// Sends the next record if the client takes it.
    pub(crate) fn send(&self, publisher: &Publisher) -> Result<bool> {
        let mut sent = self.sent.lock();
        let (record, valid) = self.plan.record(sent.len() as u64 + 1);
        let Some(sequence) = publisher.try_send(&record)? else {
            return Ok(false);
        };
        ensure!(
            sequence == sent.len() as u64 + 1,
            "{}: {sequence} follows {}",
            self.name(),
            sent.len()
        );
        sent.push((digest(&record.payload), valid));
        Ok(true)
    }

    /// Sends at its pace until told to stop or all is sent, then waits for the last ack.
    async fn run(
        self: Arc<Self>,
        publisher: Publisher,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut acks = publisher.acked();
        let mut tick = tokio::time::interval(self.plan.tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let done = |line: &Self| {
            let sent = line.sent.lock().len() as u64;
            line.plan.count_max.is_some_and(|max| sent >= max)
        };
        while !done(&self) {
            tokio::select! {
                _ = acks.changed() => {
                    let acked = acks.borrow_and_update().acked_through;
                    if self.acked.swap(acked, Ordering::Relaxed) < acked {
                        self.pulse.lock().acked();
                    }
                }
                _ = tick.tick() => {
                    for _ in 0..self.plan.per_tick {
                        if done(&self) || !self.send(&publisher)? {
                            break;
                        }
                    }
                }
                _ = stop.wait_for(|stop| *stop) => break,
                error = publisher.failure() => return Err(error).context(self.name()),
            }
        }
        self.flush(&publisher).await?;
        Ok(())
    }

    /// Waits until all that was sent is acked, and notes it.
    pub(crate) async fn flush(&self, publisher: &Publisher) -> Result<Progress> {
        let flushed = tokio::time::timeout(ACKS_WITHIN, publisher.flush()).await;
        let progress = flushed.with_context(|| format!("{}: no ack in time", self.name()))??;
        self.acked.store(progress.acked_through, Ordering::Relaxed);
        Ok(progress)
    }

    /// An error when something was told that must not happen.
    fn check(&self) -> Result<()> {
        let breach = self.breach.lock();
        breach.as_ref().map_or(Ok(()), |breach| bail!("{}: {breach}", self.name()))
    }
}

/// First half of the SHA-256.
pub(crate) fn digest(payload: &[u8]) -> Digest {
    let whole: [u8; 32] = Sha256::digest(payload).into();
    let mut half = Digest::default();
    half.copy_from_slice(&whole[..16]);
    half
}

/// Streams that run.
pub(crate) struct Load {
    pub(crate) lines: Vec<Arc<Line>>,
    tasks: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Opens the streams and sends.
    pub(crate) async fn start(cluster: &Cluster, plans: Vec<Plan>) -> Result<Self> {
        let mut load =
            Self { lines: Vec::new(), tasks: JoinSet::new(), stop: watch::Sender::new(false) };
        for plan in plans {
            load.add(cluster, plan).await?;
        }
        Ok(load)
    }

    /// Two streams from each of some sources.
    pub(crate) async fn usual(cluster: &Cluster, sources: usize) -> Result<Self> {
        let mut plans = Vec::new();
        for at in 1..=sources {
            let source = cluster.add_source(&format!("src-{at}"), &["notes"]).await?;
            plans.push(Plan::new(&source, "a"));
            plans.push(Plan::new(&source, "b"));
        }
        Self::start(cluster, plans).await
    }

    /// One more stream, while the others run.
    pub(crate) async fn add(&mut self, cluster: &Cluster, plan: Plan) -> Result<Arc<Line>> {
        let line = Arc::new(Line::new(plan));
        let publisher = line.open(cluster.endpoint(&line.plan.source)?).await?;
        self.adopt(line.clone());
        self.tasks.spawn(line.clone().run(publisher, self.stop.subscribe()));
        Ok(line)
    }

    /// A line that the test itself sends on; it is read back with the others.
    pub(crate) fn adopt(&mut self, line: Arc<Line>) {
        self.lines.push(line);
    }

    /// A line that nobody sends on yet.
    pub(crate) fn line(plan: Plan) -> Arc<Line> {
        Arc::new(Line::new(plan))
    }

    /// Waits until each stream has so many new acks.
    pub(crate) async fn moves(&self, by: u64) -> Result<()> {
        let before: Vec<u64> = self.lines.iter().map(|line| line.acked()).collect();
        until("acks on every stream", ACKS_WITHIN, async || {
            for (line, before) in self.lines.iter().zip(&before) {
                line.check()?;
                let (acked, name) = (line.acked(), line.name());
                let why = || line.reasons.lock().back().cloned().unwrap_or_default();
                ensure!(acked >= before + by, "{name}: {before} and now {acked}: {}", why());
            }
            Ok(())
        })
        .await
    }

    /// Sends nothing more and waits for the last acks.
    pub(crate) async fn finish(mut self) -> Result<Vec<Arc<Line>>> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        for line in &self.lines {
            line.check()?;
            let (sent, acked) = (line.sent.lock().len() as u64, line.acked());
            ensure!(sent == acked && sent > 0, "{}: {acked}/{sent}", line.name());
        }
        Ok(self.lines)
    }

    /// Waits until the streams with an end have reached it.
    pub(crate) async fn reach_ends(&self) -> Result<()> {
        let within = if is_long() { 10 } else { 2 } * ACKS_WITHIN;
        until("the end of the bounded streams", within, async || {
            for line in &self.lines {
                let Some(max) = line.plan.count_max else { continue };
                ensure!(line.acked() >= max, "{}: {}/{max}", line.name(), line.acked());
            }
            Ok(())
        })
        .await
    }
}
