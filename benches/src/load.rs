//! The load: one task a source, closed loop (saturate) or open loop (a timetable that does not
//! wait for the system, so a stall is charged to every record that was due in it).
//!
//! A run has three phases: warm-up, measured, drain. Only acknowledgements inside the measured
//! phase count; the drain waits, bounded, for what is in flight so that the read-back knows
//! exactly what was acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::clock::now;
use crate::driver::{Driver, Source, Window};
use crate::error::Error;
use crate::record::Records;
use crate::usage::Usage;
use crate::verify::Acked;

const ACK_WAIT: Duration = Duration::from_secs(30);
/// An open-loop source that is this far behind waits: bounded memory, and the delay is charged.
const OPEN_IN_FLIGHT_MAX: usize = 4096;
/// How long the load goes on behind the last fault of a drill.
const AFTER_DRILL: Duration = Duration::from_secs(3);
/// A pause between acknowledgements that is worth remembering.
const STALL: Duration = Duration::from_millis(100);
const STALLS_MAX: usize = 10_000;

/// How records are offered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Offer {
    /// Keep `window` records of a source in flight.
    Saturate {
        /// Records in flight a source.
        window: u32,
    },
    /// `per_s` records a second over all sources, evenly, whatever comes back.
    Open {
        /// Offered records a second, all sources together.
        per_s: f64,
    },
}

/// One load.
#[derive(Debug, Clone)]
pub struct Load {
    /// How records are offered.
    pub offer: Offer,
    /// Sources (= connections).
    pub sources: u32,
    /// Time before measuring.
    pub warm_up: Duration,
    /// Measured time.
    pub measured: Duration,
    /// The records.
    pub records: Arc<Records>,
    /// What an earlier load on the same cluster left; empty on a fresh one.
    pub known: Vec<Acked>,
    /// Faults during the measured time.
    pub drill: Drill,
}

/// Faults during the measured time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drill {
    /// How often the busiest node is killed and started again.
    pub kills: u32,
}

/// What came out of a load.
#[derive(Debug)]
pub struct Outcome {
    /// Records acknowledged in the measured time.
    pub acked: u64,
    /// The measured time, in seconds.
    pub seconds: f64,
    /// Delay from hand-over (closed) or due time (open) to acknowledgement, in µs.
    pub latency: Histogram<u64>,
    /// What each source knows to be acknowledged.
    pub known: Vec<Acked>,
    /// What the servers used in the measured time; `None` where one of them was killed.
    pub servers: Option<Usage>,
    /// What the load generator used in the measured time.
    pub client: Usage,
    /// Differences of the arm's own counters over the measured time.
    pub counters: BTreeMap<String, f64>,
    /// For each kill, the longest time without an acknowledgement that a source saw, in s.
    pub ack_gaps_s: Vec<f64>,
    /// The first failure of each source that failed.
    pub failures: Vec<String>,
}

/// Connects all sources, runs `load`, drains.
///
/// # Errors
/// When a source cannot connect or a drill fails. What goes wrong on a source is in
/// [`Outcome::failures`].
pub async fn run(driver: &mut dyn Driver, load: &Load) -> Result<Outcome, Error> {
    let sources = connect_all(driver, load.sources).await?;
    run_on(driver, load, sources).await
}

/// As [`run`], over connections that are open: source 0 first.
///
/// # Errors
/// When a drill fails.
pub async fn run_on(
    driver: &mut dyn Driver,
    load: &Load,
    sources: Vec<Box<dyn Source>>,
) -> Result<Outcome, Error> {
    let start = now() + Duration::from_millis(50);
    let from = start + load.warm_up;
    let until = from + load.measured;
    let sending = Arc::new(AtomicBool::new(true));
    let mut tasks = JoinSet::new();
    for (source, connection) in (0_u32..).zip(sources) {
        let lane = Lane::new(source, load, (from, until), Arc::clone(&sending));
        let refill = match load.offer {
            Offer::Saturate { window } => driver.refill(window).clamp(1, window),
            Offer::Open { .. } => 1,
        };
        tasks.spawn(lane.run(connection, load.offer, refill, (start, load.sources)));
    }
    tokio::time::sleep_until(from.into()).await;
    let before = (Usage::of(&driver.pids()), Usage::own(), driver.counters().await?);
    let kills = kill_repeatedly(driver, load.drill, until).await?;
    // A drill that took longer than the measured time is loaded to its end, or its gaps were lost.
    let end = kills.last().map_or(until, |_| until.max(now() + AFTER_DRILL));
    tokio::time::sleep_until(end.into()).await;
    let after = (Usage::of(&driver.pids()), Usage::own(), driver.counters().await?);
    sending.store(false, Ordering::Release);
    let mut outcome = collect(tasks, load, &kills).await?;
    outcome.client = after.1.since(before.1);
    // What a killed process had counted is gone: differences say nothing then.
    if kills.is_empty() {
        outcome.servers = Some(after.0.since(before.0));
        outcome.counters = differences(after.2, &before.2);
    }
    Ok(outcome)
}

fn differences(
    after: BTreeMap<String, f64>,
    before: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let since = |name: &str, value| value - before.get(name).copied().unwrap_or(0.0);
    after.into_iter().map(|(name, value)| (name.clone(), since(&name, value))).collect()
}

/// Spreads the kills over the measured time; a killed node comes back after a quarter of its
/// share of it.
async fn kill_repeatedly(
    driver: &mut dyn Driver,
    drill: Drill,
    until: Instant,
) -> Result<Vec<Instant>, Error> {
    let mut kills = Vec::new();
    let share = until.saturating_duration_since(now()) / (drill.kills + 1);
    for _ in 0..drill.kills {
        tokio::time::sleep(share / 2).await;
        let node = driver.kill_busiest().await?;
        kills.push(now());
        tokio::time::sleep(share / 4).await;
        driver.restart(node).await?;
        tokio::time::sleep(share / 4).await;
    }
    Ok(kills)
}

/// Reconnects all sources and has one further record of each acknowledged; returns what each
/// then knows.
///
/// # Errors
/// When a source fails or takes longer than 30 s.
pub async fn one_each(driver: &dyn Driver, load: &Load) -> Result<Vec<Acked>, Error> {
    let sources = connect_all(driver, load.sources).await?;
    let mut tasks = JoinSet::new();
    for (source, mut connection) in (0_u32..).zip(sources) {
        let mut lane = Lane::new(source, load, (now(), now()), Arc::default());
        tasks.spawn(async move {
            let mut acked = Vec::new();
            lane.send(&mut *connection, &mut Vec::new(), std::iter::once(now())).await?;
            while lane.open > 0 {
                lane.take_acks(&mut *connection, &mut acked).await?;
            }
            Ok::<Lane, Error>(lane)
        });
    }
    let mut known = vec![Acked::default(); load.sources as usize];
    while let Some(lane) = tasks.join_next().await {
        let lane = lane.map_err(|error| Error::protocol("load", error.to_string()))??;
        let at = lane.source as usize;
        known[at] = lane.into_acked();
    }
    Ok(known)
}

async fn collect(
    mut tasks: JoinSet<Lane>,
    load: &Load,
    kills: &[Instant],
) -> Result<Outcome, Error> {
    let mut outcome = Outcome {
        acked: 0,
        seconds: load.measured.as_secs_f64(),
        latency: histogram(),
        known: vec![Acked::default(); load.sources as usize],
        servers: None,
        client: Usage::default(),
        counters: BTreeMap::new(),
        ack_gaps_s: vec![0.0; kills.len()],
        failures: Vec::new(),
    };
    while let Some(lane) = tasks.join_next().await {
        let lane = lane.map_err(|error| Error::protocol("load", error.to_string()))?;
        outcome.acked += lane.acked_measured;
        outcome
            .latency
            .add(&lane.latency)
            .map_err(|error| Error::protocol("load", error.to_string()))?;
        for (kill, longest) in kills.iter().zip(&mut outcome.ack_gaps_s) {
            *longest = lane.stall_at(*kill).as_secs_f64().max(*longest);
        }
        let failure = lane.failure.as_ref().map(|f| format!("source {}: {f}", lane.source));
        outcome.failures.extend(failure);
        let at = lane.source as usize;
        outcome.known[at] = lane.into_acked();
    }
    Ok(outcome)
}

/// Opens one connection a source, 32 at a time.
///
/// # Errors
/// When one is not made.
pub async fn connect_all(driver: &dyn Driver, sources: u32) -> Result<Vec<Box<dyn Source>>, Error> {
    use futures::StreamExt as _;
    let opening = futures::stream::iter(0..sources).map(|source| driver.connect(source));
    let opened: Vec<Result<Box<dyn Source>, Error>> = opening.buffered(32).collect().await;
    opened.into_iter().collect()
}

fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are allowed")
}

/// One source's run.
struct Lane {
    source: u32,
    records: Arc<Records>,
    sending: Arc<AtomicBool>,
    from: Instant,
    until: Instant,
    next: u64,
    base: u64,
    in_flight: VecDeque<Option<Instant>>,
    open: u32,
    acked_measured: u64,
    latency: Histogram<u64>,
    last_ack: Option<Instant>,
    stalls: Vec<(Instant, Instant)>,
    failure: Option<String>,
}

impl Lane {
    fn new(
        source: u32,
        load: &Load,
        (from, until): (Instant, Instant),
        sending: Arc<AtomicBool>,
    ) -> Self {
        let next = load.known.get(source as usize).map_or(1, |known| known.sent + 1);
        Self {
            source,
            records: Arc::clone(&load.records),
            sending,
            from,
            until,
            next,
            base: next,
            in_flight: VecDeque::new(),
            open: 0,
            acked_measured: 0,
            latency: histogram(),
            last_ack: None,
            stalls: Vec::new(),
            failure: None,
        }
    }

    async fn run(
        mut self,
        connection: Box<dyn Source>,
        offer: Offer,
        refill: u32,
        (start, sources): (Instant, u32),
    ) -> Self {
        let end = match offer {
            Offer::Saturate { window } => self.saturate(connection, window, refill).await,
            Offer::Open { per_s } => {
                let gap = Duration::from_secs_f64(f64::from(sources) / per_s);
                let first = start + gap.mul_f64(f64::from(self.source) / f64::from(sources));
                self.keep_timetable(connection, first, gap).await
            }
        };
        self.failure = end.err().map(|error| error.to_string());
        self
    }

    /// The longest stall that was open at `moment` or began within 2 s after it.
    fn stall_at(&self, moment: Instant) -> Duration {
        let late = moment + Duration::from_secs(2);
        let near = self.stalls.iter().filter(|(from, to)| *from <= late && *to >= moment);
        near.map(|(from, to)| *to - *from).max().unwrap_or_default()
    }

    async fn saturate(
        &mut self,
        mut source: Box<dyn Source>,
        window: u32,
        refill: u32,
    ) -> Result<(), Error> {
        let mut buffer = Vec::new();
        let mut acked = Vec::new();
        loop {
            let sending = self.sending.load(Ordering::Acquire);
            let room = window - self.open;
            if sending && room >= refill {
                let due = now();
                self.send(&mut *source, &mut buffer, (0..room).map(|_| due)).await?;
            }
            if self.open == 0 && !sending {
                return Ok(());
            }
            self.take_acks(&mut *source, &mut acked).await?;
        }
    }

    async fn keep_timetable(
        &mut self,
        mut source: Box<dyn Source>,
        first: Instant,
        gap: Duration,
    ) -> Result<(), Error> {
        let mut buffer = Vec::new();
        let mut acked = Vec::new();
        let mut due = first;
        loop {
            let sending = self.sending.load(Ordering::Acquire);
            if !sending && self.open == 0 {
                return Ok(());
            }
            let room = OPEN_IN_FLIGHT_MAX.saturating_sub(self.in_flight.len());
            let may_send = sending && room > 0;
            let waiting = self.open > 0;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.into()), if may_send => {
                    let mut times = Vec::new();
                    let time = now();
                    while due <= time && times.len() < room {
                        times.push(due);
                        due += gap;
                    }
                    self.send(&mut *source, &mut buffer, times.into_iter()).await?;
                }
                taken = self.take_acks(&mut *source, &mut acked), if waiting => taken?,
            }
        }
    }

    async fn send(
        &mut self,
        source: &mut dyn Source,
        buffer: &mut Vec<u8>,
        due: impl ExactSizeIterator<Item = Instant>,
    ) -> Result<(), Error> {
        let first = self.next;
        buffer.clear();
        for time in due {
            self.records.write(self.source, self.next, buffer);
            self.in_flight.push_back(Some(time));
            self.next += 1;
            self.open += 1;
        }
        let record_bytes = self.records.record_bytes();
        source.send(Window { first, bytes: buffer, record_bytes }).await
    }

    async fn take_acks(
        &mut self,
        source: &mut dyn Source,
        acked: &mut Vec<u64>,
    ) -> Result<(), Error> {
        // A cancelled call may have left some in `acked`: they are taken now, not dropped.
        let waited = tokio::time::timeout(ACK_WAIT, source.acked(acked)).await;
        waited.map_err(|_| Error::Timeout {
            what: format!("acknowledgement, {} in flight", self.open),
            seconds: ACK_WAIT.as_secs(),
        })??;
        let time = now();
        let since = self.last_ack.replace(time).unwrap_or(time);
        if time - since > STALL && self.stalls.len() < STALLS_MAX {
            self.stalls.push((since, time));
        }
        for sequence in acked.drain(..) {
            self.ack(sequence, time)?;
        }
        Ok(())
    }

    fn ack(&mut self, sequence: u64, time: Instant) -> Result<(), Error> {
        let sent = sequence
            .checked_sub(self.base)
            .and_then(|at| self.in_flight.get_mut(usize::try_from(at).ok()?))
            .and_then(Option::take);
        let Some(sent) = sent else {
            let what = format!("acknowledged {sequence}, which is not in flight");
            return Err(Error::protocol("load", what));
        };
        self.open -= 1;
        if time >= self.from && time < self.until {
            self.acked_measured += 1;
            let delay = u64::try_from(time.saturating_duration_since(sent).as_micros());
            // The histogram grows by itself; a value beyond its end is years.
            let _ = self.latency.record(delay.unwrap_or(u64::MAX).max(1));
        }
        while self.in_flight.front().is_some_and(Option::is_none) {
            self.in_flight.pop_front();
            self.base += 1;
        }
        Ok(())
    }

    fn into_acked(self) -> Acked {
        let beyond = (self.base..)
            .zip(&self.in_flight)
            .filter_map(|(sequence, sent)| sent.is_none().then_some(sequence))
            .collect();
        Acked { through: self.base - 1, beyond, sent: self.next - 1 }
    }
}
