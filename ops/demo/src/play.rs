//! The play, act by act.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dtm_client::stream_status;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{Cluster, NODES};
use crate::generate::{Dataset, Generator};
use crate::history::StreamHistory;
use crate::readback::Histories;
use crate::register::{Registered, register};
use crate::say::Say;
use crate::scratch::Scratch;
use crate::screen::Screen;
use crate::sending::{KillMark, Meter, Pace, Reading, Stream, histogram};
use crate::settings::Settings;
use crate::signals::Signals;
use crate::table::Page;
use crate::verdict::Verdict;
use crate::{clock, quarantine, readback, roster, status, tour};

/// Sources that are registered, and streams that are opened, at once.
const AT_ONCE: usize = 8;
/// Between two drawings of the table.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// Between two lines where nobody watches.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Longest wait for the last acks.
const ACKS_WITHIN: Duration = Duration::from_secs(90);

/// Runs the demo to its end; whether all went well.
///
/// # Errors
/// What kept it from being played.
pub(crate) async fn run(settings: &Settings) -> Result<bool> {
    let say = Say(settings.lang);
    let mut signals = Signals::new()?;
    let dtm = settings.dtm().with_context(|| say.text("no_binary", &[]))?;
    let scratch = Scratch::take(&settings.folder, say)?;
    let mut cluster = Cluster::plan(dtm, scratch, say)?;
    let screen = Arc::new(Screen::new());
    let played = tokio::select! {
        played = play(settings, say, &mut cluster, &screen) => played,
        () = signals.wait() => Err(anyhow::anyhow!(say.text("interrupted", &[]))),
    };
    let mut senders = match played {
        Ok(senders) => senders,
        Err(error) => {
            screen.keep();
            cluster.stop().await;
            let logs = cluster.path("n*.log").display().to_string();
            eprintln!("{}", say.text("logs", &[("logs", &logs)]));
            return Err(error);
        }
    };
    if settings.seconds.is_none() {
        let _ = senders.pace.send(Pace::Trickle);
        tokio::select! {
            () = signals.wait() => {}
            error = senders.failed() => screen.say(&format!("{error:#}")),
        }
    }
    screen.say(&say.text("stopping", &[]));
    let good = senders.good;
    // Streams first: a node that waits for them would stop later.
    drop(senders);
    cluster.stop().await;
    Ok(good)
}

/// From the first process to the verdict; the senders go on still.
async fn play(
    settings: &Settings,
    say: Say,
    cluster: &mut Cluster,
    screen: &Arc<Screen>,
) -> Result<Senders> {
    found(say, cluster, screen).await?;
    let sources = register_all(settings, say, cluster, screen).await?;
    tour::prepare(cluster).await?;
    let kill = KillMark::default();
    let mut senders = Senders::open(settings, sources, &kill).await?;
    let link = tour::page_link(cluster).await?;
    screen.say(&say.text("page_link", &[("link", &link)]));

    let start = clock::now();
    let _ = senders.pace.send(Pace::Full);
    let board = Board { say, start, screen: screen.clone(), meters: senders.meters.clone() };
    let mut drawing = JoinSet::new();
    drawing.spawn(board.clone().draw());
    let killed =
        stream_and_kill(settings, say, cluster, &mut senders, screen, start, &kill).await?;
    let _ = senders.pace.send(Pace::Still);
    screen.say(&say.text("last_acks", &[]));
    senders.all_acked(say).await?;
    drawing.shutdown().await;
    senders.count_refused().await?;
    board.last();

    let verdict = judge(say, cluster, &senders, screen, killed).await?;
    senders.good = verdict.is_good();
    verdict.lines(say).iter().for_each(|line| screen.say(line));
    if settings.seconds.is_none() {
        tour::lines(cluster, say).iter().for_each(|line| screen.say(line));
        let link = tour::page_link(cluster).await?;
        screen.say(&format!("\n{}", say.text("stays_up", &[("link", &link)])));
        screen.say(&say.text("press_ctrl_c", &[]));
    }
    Ok(senders)
}

async fn found(say: Say, cluster: &mut Cluster, screen: &Screen) -> Result<()> {
    let folder = cluster.path("").display().to_string();
    screen.say(&say.text("founding", &[("folder", &folder)]));
    cluster.found().await?;
    status::answering(cluster, say).await?;
    for at in 1..NODES {
        let name = cluster.nodes[at].name.clone();
        screen.say(&say.text("joining", &[("node", &name)]));
        cluster.join(at).await?;
    }
    let complete = status::complete(cluster, say).await?;
    let groups = complete.groups.len().to_string();
    screen.say(&say.text("cluster_up", &[("groups", &groups)]));
    Ok(())
}

type Sources = Vec<(Registered, Arc<Histories>)>;

async fn register_all(
    settings: &Settings,
    say: Say,
    cluster: &Cluster,
    screen: &Screen,
) -> Result<Sources> {
    let plans = roster::all(clock::today());
    let count = plans.len().to_string();
    let rate = say.number(settings.rate);
    screen.say(&say.text("registering", &[("count", &count), ("rate", &rate)]));
    std::fs::create_dir_all(cluster.path("keys")).context("keys")?;
    let admin = cluster.admin()?;
    let mut sources = Vec::with_capacity(plans.len());
    for plan in plans {
        let source = register(cluster, &admin, Arc::new(plan)).await?;
        let histories = Dataset::SHARES
            .iter()
            .map(|(dataset, _)| (dataset.id(), Arc::new(Mutex::new(StreamHistory::default()))));
        sources.push((source, Arc::new(histories.collect::<Histories>())));
    }
    Ok(sources)
}

/// Streams until the time is up; in the middle the busiest node dies and comes back.
async fn stream_and_kill(
    settings: &Settings,
    say: Say,
    cluster: &mut Cluster,
    senders: &mut Senders,
    screen: &Screen,
    start: Instant,
    kill: &KillMark,
) -> Result<String> {
    senders.until(start + settings.kill_after()).await?;
    cluster.check()?;
    let (at, led) = status::busiest(&status::look(&cluster.admin()?).await?, cluster);
    let name = cluster.nodes[at].name.clone();
    let _ = kill.set(clock::now());
    cluster.nodes[at].kill().await?;
    let led = led.to_string();
    screen.say(&say.text("killed", &[("node", &name), ("groups", &led)]));
    senders.until(clock::now() + settings.away()).await?;
    cluster.start(at)?;
    screen.say(&say.text("restarted", &[("node", &name)]));
    senders.until(start + settings.streaming()).await?;
    cluster.check()?;
    Ok(name)
}

/// Reads everything back from each node and counts.
async fn judge(
    say: Say,
    cluster: &mut Cluster,
    senders: &Senders,
    screen: &Screen,
    killed: String,
) -> Result<Verdict> {
    status::complete(cluster, say).await?;
    let mut verdict = Verdict { killed, ..Verdict::default() };
    for history in senders.sources.iter().flat_map(|(_, histories)| histories.values()) {
        let history = history.lock();
        verdict.sent += history.sent_count();
        verdict.acked += history.acked_count();
    }
    for at in 0..NODES {
        let name = cluster.nodes[at].name.clone();
        screen.say(&say.text("reading", &[("node", &name)]));
        let findings = readback::node(cluster, say, at, &senders.sources).await;
        verdict.nodes.push((name.clone(), findings.context(name)?));
    }
    verdict.refusals = quarantine::read(&senders.sources).await?;
    verdict.roots = status::compare_roots(&cluster.admin()?).await?;
    let mut all = histogram();
    senders.meters.iter().for_each(|meter| meter.add_to(&mut all));
    verdict.latency_us = (all.value_at_quantile(0.5), all.value_at_quantile(0.99));
    verdict.gaps = senders.meters.iter().map(|meter| meter.gap()).collect();
    verdict.gaps.sort();
    Ok(verdict)
}

/// Everything that sends. Dropped, it stops sending at once.
struct Senders {
    sources: Sources,
    meters: Vec<Arc<Meter>>,
    pace: watch::Sender<Pace>,
    tasks: JoinSet<Result<()>>,
    /// The verdict, once there is one.
    good: bool,
}

impl Senders {
    async fn open(settings: &Settings, sources: Sources, kill: &KillMark) -> Result<Self> {
        let (pace, paced) = watch::channel(Pace::Still);
        let weights: u32 = sources.iter().map(|(source, _)| source.plan.weight).sum();
        let mut meters = Vec::with_capacity(sources.len());
        let mut opening = JoinSet::new();
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        for (seed, (source, histories)) in sources.iter().enumerate() {
            let plan = source.plan.clone();
            let titles = [plan.title_vi.clone(), plan.title_en.clone()];
            let meter = Arc::new(Meter::new(titles, kill.clone()));
            meters.push(meter.clone());
            let share = f64::from(plan.weight) / f64::from(weights);
            let made = Generator::new(plan, seed as u64, clock::today(), settings.broken_permille);
            let generator = Arc::new(Mutex::new(made));
            for (dataset, percent) in Dataset::SHARES {
                let stream = Stream {
                    source: source.clone(),
                    dataset,
                    rate: settings.rate as f64 * share * f64::from(percent) / 100.0,
                    generator: generator.clone(),
                    history: histories[dataset.id()].clone(),
                    meter: meter.clone(),
                    pace: paced.clone(),
                };
                let permits = permits.clone();
                opening.spawn(async move {
                    let _permit = permits.acquire_owned().await?;
                    let publisher = stream.open().await?;
                    anyhow::Ok((stream, publisher))
                });
            }
        }
        let mut tasks = JoinSet::new();
        while let Some(opened) = opening.join_next().await {
            let (stream, publisher) = opened??;
            tasks.spawn(stream.run(publisher));
        }
        Ok(Self { sources, meters, pace, tasks, good: false })
    }

    /// Returns when a stream ended, with its error.
    async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("a stream ended"),
        }
    }

    /// Waits until then.
    ///
    /// # Errors
    /// A stream that ended meanwhile.
    async fn until(&mut self, then: Instant) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep_until(then) => Ok(()),
            error = self.failed() => Err(error),
        }
    }

    /// Asks the streams how many of their records were refused.
    async fn count_refused(&self) -> Result<()> {
        for ((source, histories), meter) in self.sources.iter().zip(&self.meters) {
            let mut refused = 0;
            for stream in histories.keys() {
                let code = &source.plan.code;
                refused += stream_status(&source.endpoint, code, stream).await?.refused;
            }
            meter.refused_in_all(refused);
        }
        Ok(())
    }

    /// Waits until everything that was sent is acknowledged.
    ///
    /// # Errors
    /// What is still owed after the longest wait.
    async fn all_acked(&mut self, say: Say) -> Result<()> {
        let until = clock::now() + ACKS_WITHIN;
        loop {
            // Longer than a tick: every stream has seen that it is to be still.
            self.until(clock::now() + Duration::from_millis(250)).await?;
            let mut owed = HashMap::new();
            for (source, histories) in &self.sources {
                for (stream, history) in histories.iter() {
                    let history = history.lock();
                    let count = history.sent_count() - history.acked_count();
                    if count > 0 {
                        owed.insert(format!("{}/{stream}", source.plan.code), count);
                    }
                }
            }
            if owed.is_empty() {
                return Ok(());
            }
            if clock::now() >= until {
                let count = say.number(owed.values().sum());
                let streams: Vec<_> = owed.keys().take(5).cloned().collect();
                bail!(
                    say.text("acks_owed", &[("count", &count), ("streams", &streams.join(", "))])
                );
            }
        }
    }
}

/// Draws the table.
#[derive(Clone)]
struct Board {
    say: Say,
    start: Instant,
    screen: Arc<Screen>,
    meters: Vec<Arc<Meter>>,
}

impl Board {
    async fn draw(self) {
        let every = if self.screen.is_terminal { DRAW_EVERY } else { LINE_EVERY };
        let mut tick = tokio::time::interval_at(clock::now() + every, every);
        loop {
            tick.tick().await;
            if self.screen.is_terminal {
                self.screen.draw(&self.page().lines(self.say, Screen::size()));
            } else {
                self.screen.say(&self.page().summary(self.say, clock::now() - self.start));
            }
        }
    }

    /// The whole table, once more, for good.
    fn last(&self) {
        let (columns, _) = Screen::size();
        let page = self.page();
        let lines = page.lines(self.say, (columns.max(90), usize::MAX));
        self.screen.say(&lines.join("\n"));
    }

    fn page(&self) -> Page {
        let mut total = Reading::default();
        let mut all = histogram();
        let mut nodes = std::collections::BTreeMap::new();
        let mut rows = Vec::with_capacity(self.meters.len());
        for meter in &self.meters {
            let reading = meter.reading();
            total.sent += reading.sent;
            total.acked += reading.acked;
            total.refused += reading.refused;
            meter.add_to(&mut all);
            *nodes.entry(reading.node.clone()).or_insert(0u32) += 1;
            let title = self.say.pick(&meter.titles[0], &meter.titles[1]);
            rows.push((title.to_owned(), reading));
        }
        (total.p50_us, total.p99_us) = (all.value_at_quantile(0.5), all.value_at_quantile(0.99));
        let shown: Vec<_> = nodes.iter().map(|(node, count)| format!("{node} {count}")).collect();
        let nodes = shown.join(" · ");
        let seconds = (clock::now() - self.start).as_secs().to_string();
        let head = self.say.text("table_head", &[("seconds", &seconds), ("nodes", &nodes)]);
        if !self.screen.is_terminal {
            total.node = nodes;
        }
        Page { head, rows, total }
    }
}
