//! A hundred sources: one sends malformed records as fast as it is let and crashes its session now
//! and then, one never reads what it is told; the others' ack delay with and without the two, in
//! turn. A connection that crashed comes back by itself.
//!
//! ```text
//!  quiet ─ disturbed ─ quiet ─ disturbed ─ quiet …     slices of a few seconds
//!  └────── pair ───────┘
//!            └─ its neighbours ─┘                      ratio = disturbed / mean of both neighbours
//! ```
//! A pair counts as steady where its two quiet slices agree: else the machine changed meanwhile, and
//! the ratio says nothing of the cluster. Pairs are taken until enough are steady.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_client::Publisher;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{Cluster, NODES};
use crate::disturbance::{ACKS_WITHIN, Disturbance, Malformed};
use crate::https::metric;
use crate::load::{Line, Load, Plan};
use crate::readback::judge;
use crate::sources::Source;
use crate::wait::is_long;

const OTHERS: u32 = 98;
/// Steady pairs that are wanted.
const PAIRS: usize = 5;
/// The quiet slices of a steady pair differ by no more than this.
const UNSTEADY: f64 = 1.2;
/// Pause between two records of a source, at the utmost.
const PACE_MAX: Duration = Duration::from_secs(4);
/// What changes now shows in full after a moment.
const SETTLES: Duration = Duration::from_millis(500);

/// How long, how often, how far apart.
struct Form {
    /// Pairs that are taken at the utmost.
    pairs_max: usize,
    slice: Duration,
    /// Pause between two records of a source, at least.
    pace: Duration,
    /// Part of the machine that the nodes take without the two, at the utmost. None: other tests
    /// run beside this one, and too few steady pairs are no failure: then all count.
    load_max: Option<f64>,
    ratio_max: f64,
}

const SHORT: Form = Form {
    pairs_max: 7,
    slice: Duration::from_millis(1_500),
    pace: Duration::from_millis(250),
    load_max: None,
    ratio_max: 1.5,
};
const LONG: Form = Form {
    pairs_max: 20,
    slice: Duration::from_secs(10),
    pace: Duration::from_millis(250),
    load_max: Some(0.3),
    ratio_max: 1.1,
};

// The long form holds the requirement's own bound, at the load that it names; the short form a wider
// one, at whatever load there is.
//
// covers: F-5.1.1
// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_hanging_sources_do_not_delay_the_others() -> Result<()> {
    let form = if is_long() { LONG } else { SHORT };
    let mut cluster = Cluster::start().await?;
    plant(&mut cluster).await?;
    // A stream moves with the leader of its group: none moves without a cause after this.
    cluster.spread().await?;
    let mut sources = Vec::new();
    for at in 0..OTHERS + 2 {
        sources.push(cluster.add_source(&format!("src-{at}"), &["notes"]).await?);
    }
    let hanging = sources.pop().context("a source")?;
    let malformed = sources.pop().context("a source")?;
    let malformed = Malformed::open(&cluster, &malformed).await?;
    let others = Others::start(&cluster, &sources, form.pace).await?;
    others.calm(&cluster, &form).await?;
    let pairs = pairs(&cluster, &form, &others, (&malformed, &hanging)).await?;
    let lines = others.stop().await?;
    let ratio = ratio(&pairs, &form)?;
    println!("the others' ack delay by what it is without the two: {ratio:.2}");
    ensure!(ratio <= form.ratio_max, "the others' ack delay grew to {ratio:.2} of it: {pairs:.2?}");

    malformed.is_served().await?;
    // The hanging one has no client that could come back: whoever opens in its name is served.
    let line = Load::line(Plan::new(&hanging, "good"));
    let publisher = line.open(cluster.endpoint(&hanging)?).await?;
    ensure!(line.send(&publisher)?);
    ensure!(line.flush(&publisher).await?.acked_through == 1);
    let crashed = metric(&cluster, "dtm_sessions_crashed_total ").await?;
    ensure!(crashed >= pairs.len() as f64, "{crashed} sessions crashed");
    for line in &lines {
        let sessions = line.sessions.load(Ordering::Relaxed);
        let troubles = line.troubles.load(Ordering::Relaxed);
        // A group may elect under load all the same: its streams move then, which cuts nobody off.
        ensure!(
            sessions <= 2 && troubles == 0,
            "{} was cut off: {sessions} sessions, {troubles} failures",
            line.name()
        );
    }
    cluster.settled(NODES).await?;
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}

/// Nodes whose sessions crash over what is poisoned.
async fn plant(cluster: &mut Cluster) -> Result<()> {
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    for at in 0..NODES {
        cluster.nodes[at].is_faulty = true;
        cluster.start_node(at)?;
    }
    cluster.settled(NODES).await
}

/// What was measured for a while.
#[derive(Clone, Copy, Debug)]
struct Slice {
    /// Ack delay of the others, milliseconds: the mean of the middle half.
    delay_ms: f64,
    /// Part of the machine's processors that the nodes took.
    load: f64,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    before: Slice,
    disturbed: Slice,
    after: Slice,
}

impl Pair {
    fn ratio(&self) -> f64 {
        2.0 * self.disturbed.delay_ms / (self.before.delay_ms + self.after.delay_ms)
    }

    fn is_steady(&self, load_max: Option<f64>) -> bool {
        let (one, two) = (self.before.delay_ms, self.after.delay_ms);
        let load = self.before.load.max(self.after.load);
        one.max(two) <= UNSTEADY * one.min(two) && load_max.is_none_or(|most| load <= most)
    }
}

/// Takes pairs until enough are steady, or as many as may be.
async fn pairs(
    cluster: &Cluster,
    form: &Form,
    others: &Others,
    (malformed, hanging): (&Malformed, &Source),
) -> Result<Vec<Pair>> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut before = others.slice(cluster, form.slice).await?;
    let is_steady = |pair: &&Pair| pair.is_steady(form.load_max);
    while pairs.iter().filter(is_steady).count() < PAIRS && pairs.len() < form.pairs_max {
        let disturbance = Disturbance::start(cluster, malformed, hanging).await?;
        let disturbed = others.slice(cluster, form.slice).await;
        let sent = disturbance.end().await?;
        let disturbed = disturbed?;
        let after = others.slice(cluster, form.slice).await?;
        let pair = Pair { before, disturbed, after };
        let steady = if is_steady(&&pair) { "steady" } else { "unsteady" };
        println!("{:.2}, {steady}, {sent} malformed: {pair:.2?}", pair.ratio());
        pairs.push(pair);
        before = after;
    }
    Ok(pairs)
}

/// The median of the steady pairs; of all, where the form allows that too few are steady.
fn ratio(pairs: &[Pair], form: &Form) -> Result<f64> {
    let is_steady = |pair: &&Pair| pair.is_steady(form.load_max);
    let mut ratios: Vec<f64> = pairs.iter().filter(is_steady).map(Pair::ratio).collect();
    if ratios.len() < PAIRS {
        if form.load_max.is_some() {
            bail!("this machine is too unsteady to say: {} pairs: {pairs:.2?}", ratios.len());
        }
        ratios = pairs.iter().map(Pair::ratio).collect();
    }
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.len() / 2;
    Ok(if ratios.len().is_multiple_of(2) {
        f64::midpoint(ratios[middle - 1], ratios[middle])
    } else {
        ratios[middle]
    })
}

/// The sources that are to notice nothing, and what they measure.
struct Others {
    measured: Arc<Measured>,
    lines: Vec<Arc<Line>>,
    tasks: JoinSet<Result<()>>,
}

struct Measured {
    epoch: Instant,
    pace_ms: AtomicU64,
    stop: AtomicBool,
    delays_ms: Mutex<Vec<f64>>,
}

impl Others {
    async fn start(cluster: &Cluster, sources: &[Arc<Source>], pace: Duration) -> Result<Self> {
        let measured = Arc::new(Measured {
            epoch: Instant::now(),
            pace_ms: AtomicU64::new(u64::try_from(pace.as_millis())?),
            stop: AtomicBool::new(false),
            delays_ms: Mutex::default(),
        });
        let (mut lines, mut tasks) = (Vec::new(), JoinSet::new());
        for (at, source) in (0_u32..).zip(sources) {
            let line = Load::line(Plan::new(source, "a"));
            let publisher = line.open(cluster.endpoint(source)?).await?;
            tasks.spawn(steady(line.clone(), publisher, at, measured.clone()));
            lines.push(line);
        }
        Ok(Self { measured, lines, tasks })
    }

    /// What is measured in the next while.
    async fn slice(&self, cluster: &Cluster, slice: Duration) -> Result<Slice> {
        tokio::time::sleep(SETTLES).await;
        self.measured.delays_ms.lock().clear();
        let (cpu, from) = (nodes_cpu(cluster)?, Instant::now());
        tokio::time::sleep(slice).await;
        let took = nodes_cpu(cluster)?.saturating_sub(cpu).as_secs_f64();
        let processors = std::thread::available_parallelism()?.get() as f64;
        let load = took / from.elapsed().as_secs_f64() / processors;
        let mut delays = std::mem::take(&mut *self.measured.delays_ms.lock());
        ensure!(delays.len() >= OTHERS as usize, "{} acks in {slice:?}", delays.len());
        Ok(Slice { delay_ms: middle(&mut delays), load })
    }

    /// Slows the others down until the nodes are no busier than the form wants it.
    async fn calm(&self, cluster: &Cluster, form: &Form) -> Result<()> {
        let Some(load_max) = form.load_max else { return Ok(()) };
        loop {
            let load = self.slice(cluster, form.slice).await?.load;
            let pace_ms = self.measured.pace_ms.load(Ordering::Relaxed);
            println!("load {load:.2} at a record each {pace_ms} ms of each source");
            // With room for what is a little more in a later slice.
            if load <= load_max * 0.9 {
                return Ok(());
            }
            let pace = Duration::from_millis(pace_ms * 3 / 2);
            ensure!(pace <= PACE_MAX, "the nodes take {load:.2} of the machine at rest");
            self.measured.pace_ms.store(pace_ms * 3 / 2, Ordering::Relaxed);
        }
    }

    async fn stop(mut self) -> Result<Vec<Arc<Line>>> {
        self.measured.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.lines)
    }
}

/// Mean of the middle half: it says what is usual, and moves less than the median.
fn middle(delays: &mut [f64]) -> f64 {
    delays.sort_by(f64::total_cmp);
    let half = &delays[delays.len() / 4..delays.len() - delays.len() / 4];
    half.iter().sum::<f64>() / half.len() as f64
}

fn nodes_cpu(cluster: &Cluster) -> Result<Duration> {
    cluster.nodes.iter().map(crate::node::Node::cpu_time).sum()
}

/// One of the others: a record now and then, each ack's delay noted.
async fn steady(
    line: Arc<Line>,
    publisher: Publisher,
    at: u32,
    measured: Arc<Measured>,
) -> Result<()> {
    let mut acks = publisher.acked();
    while !measured.stop.load(Ordering::Relaxed) {
        let pace = Duration::from_millis(measured.pace_ms.load(Ordering::Relaxed));
        tokio::time::sleep_until(measured.epoch + due(measured.epoch.elapsed(), pace, at)).await;
        let sent = Instant::now();
        ensure!(line.send(&publisher)?, "{}: the window holds so few", line.name());
        let wanted = line.sent.lock().len() as u64;
        let acked = acks.wait_for(|progress| progress.acked_through >= wanted);
        let acked = tokio::time::timeout(ACKS_WITHIN, acked).await;
        acked.with_context(|| format!("{}: no ack", line.name()))??;
        line.acked.store(wanted, Ordering::Relaxed);
        measured.delays_ms.lock().push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

/// When a source sends next: each has its own place within the pace, so that they do not all send
/// at once, however late one was.
fn due(now: Duration, pace: Duration, at: u32) -> Duration {
    let place = pace * at / OTHERS;
    let rounds = now.saturating_sub(place).as_nanos() / pace.as_nanos() + 1;
    place + pace * u32::try_from(rounds).expect("a test ends before that")
}

#[test]
fn a_pair_of_a_machine_that_changed_does_not_count() {
    let slice = |delay_ms| Slice { delay_ms, load: 0.2 };
    let pair = |before, disturbed, after| Pair {
        before: slice(before),
        disturbed: slice(disturbed),
        after: slice(after),
    };
    let steady = vec![pair(10.0, 12.0, 10.0); PAIRS];
    assert_eq!(ratio(&steady, &LONG).expect("steady"), 1.2);
    let with = |more: Pair| [&steady[..], &[more; 4]].concat();
    for changed in [pair(100.0, 20.0, 10.0), pair(10.0, 90.0, 80.0)] {
        assert_eq!(ratio(&with(changed), &LONG).expect("enough are steady"), 1.2);
        let error = ratio(&[&steady[1..], &[changed; 9]].concat(), &LONG).expect_err("too few");
        assert!(error.to_string().contains("too unsteady to say"), "{error}");
    }
    let loaded = Pair { after: Slice { load: 0.31, ..slice(10.0) }, ..steady[0] };
    assert!(!loaded.is_steady(LONG.load_max) && loaded.is_steady(SHORT.load_max));
    let unsteady = [pair(10.0, 30.0, 20.0), pair(20.0, 30.0, 40.0)];
    assert_eq!(ratio(&unsteady, &SHORT).expect("all count"), 1.5);
}

#[test]
fn sources_keep_their_places_within_the_pace() {
    let (pace, ms) = (Duration::from_millis(980), Duration::from_millis);
    assert_eq!(due(ms(0), pace, 0), ms(980));
    assert_eq!(due(ms(0), pace, 1), ms(990));
    assert_eq!(due(ms(995), pace, 1), ms(1_970));
    assert_eq!(due(ms(9_810), pace, 97), ms(970 + 9 * 980 + 980));
}
