//! How long sources wait for acks when a node dies or is restarted. The figures are printed:
//! `--nocapture` shows them by phase.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Load, Plan};
use crate::readback::judge;
use crate::wait::{is_long, until};

const SOURCES: usize = 96;
const ALIVE: u64 = 10;
/// Streams settle after a change; gaps of one change do not count for the next.
const CALM: Duration = Duration::from_secs(3);
/// Of the worst source, generous: the machine may be busy with other tests. The targets stand in
/// the bench harness.
const WORST_MAX: Duration = Duration::from_secs(5);
const USUAL_MAX: Duration = Duration::from_millis(2_500);

/// When things happened on a stream since the last change.
#[derive(Debug)]
pub(crate) struct Pulse {
    change: Instant,
    acked: Instant,
    /// Longest time between two acks.
    longest: Duration,
    cut: Option<Instant>,
    connected: Option<Instant>,
}

impl Pulse {
    pub(crate) fn now() -> Self {
        let now = Instant::now();
        Self { change: now, acked: now, longest: Duration::ZERO, cut: None, connected: None }
    }

    /// The next change begins.
    fn restart(&mut self) {
        *self = Self { acked: self.acked, ..Self::now() };
    }

    pub(crate) fn acked(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.acked);
        self.acked = now;
    }

    pub(crate) fn cut(&mut self) {
        self.cut.get_or_insert_with(Instant::now);
    }

    pub(crate) fn connected(&mut self) {
        self.connected = Some(Instant::now());
    }
}

async fn many(cluster: &Cluster) -> Result<Load> {
    let mut plans = Vec::new();
    for at in 1..=SOURCES {
        let source = cluster.add_source(&format!("src-{at}"), &["notes"]).await?;
        plans.push(Plan::new(&source, "a"));
    }
    Load::start(cluster, plans).await
}

fn begin(load: &Load) {
    load.lines.iter().for_each(|line| line.pulse.lock().restart());
}

/// The longest gap of the worst source; prints what the phases took.
fn end(load: &Load, what: &str) -> Duration {
    let show = |name: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        let last = times.last().copied().unwrap_or_default();
        println!(
            "{what}: {name:>9}  {:>3} streams  p50 {:>7.0?}  p90 {:>7.0?}  max {last:>7.0?}",
            times.len(),
            at(50),
            at(90)
        );
        last
    };
    let of = |pick: &dyn Fn(&Pulse) -> Option<Duration>| -> Vec<Duration> {
        load.lines.iter().filter_map(|line| pick(&line.pulse.lock())).collect()
    };
    show("cut", of(&|pulse| Some(pulse.cut? - pulse.change)));
    show("connected", of(&|pulse| Some(pulse.connected? - pulse.change)));
    show("ack gap", of(&|pulse| Some(pulse.longest)))
}

/// The node that leads most groups, once the leaders are spread.
async fn busiest(cluster: &Cluster) -> Result<usize> {
    until("spread leaders", WITHIN, async || {
        let status = cluster.status().await?;
        let led = |name: &str| {
            let row = status.nodes.iter().find(|n| n.node.as_ref().is_some_and(|n| n.name == name));
            row.map_or(0, |row| row.groups_led)
        };
        let led: Vec<u32> = cluster.nodes.iter().map(|node| led(&node.name)).collect();
        let (most, least) = (led.iter().max().copied(), led.iter().min().copied());
        let (most, least) = (most.context("nodes")?, least.context("nodes")?);
        ensure!(most <= least + 1, "leaders crowd: {led:?}");
        led.iter().position(|count| *count == most).context("nodes")
    })
    .await
}

// holds: ING-1, ING-2, ING-3, ING-4
// fault: F1
// target: P16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ack_gap_when_the_busiest_node_is_killed() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let load = many(&cluster).await?;
    let mut worst = Vec::new();
    for kill in 0..if is_long() { 30 } else { 3 } {
        load.moves(ALIVE).await?;
        let at = busiest(&cluster).await?;
        tokio::time::sleep(CALM).await;
        begin(&load);
        cluster.nodes[at].kill();
        load.moves(ALIVE).await?;
        tokio::time::sleep(CALM).await;
        worst.push(end(&load, &format!("kill {kill} of n{}", at + 1)));
        begin(&load);
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        busiest(&cluster).await?;
        tokio::time::sleep(CALM).await;
        worst.push(end(&load, &format!("return of n{}", at + 1)));
    }
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    check(worst)?;
    cluster.passed();
    Ok(())
}

// holds: ING-1, ING-2, ING-3, ING-4
// target: P17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ack_gap_of_a_rolling_restart() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let load = many(&cluster).await?;
    let mut worst = Vec::new();
    for at in 0..NODES {
        load.moves(ALIVE).await?;
        busiest(&cluster).await?;
        tokio::time::sleep(CALM).await;
        begin(&load);
        tokio::task::block_in_place(|| cluster.nodes[at].stop())?;
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        busiest(&cluster).await?;
        tokio::time::sleep(CALM).await;
        worst.push(end(&load, &format!("restart of n{}", at + 1)));
    }
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    check(worst)?;
    cluster.passed();
    Ok(())
}

fn check(mut worst: Vec<Duration>) -> Result<()> {
    worst.sort_unstable();
    println!("worst sources: {worst:.0?}");
    ensure!(worst[worst.len() - 1] <= WORST_MAX, "{worst:?}");
    ensure!(worst[worst.len() / 2] <= USUAL_MAX, "{worst:?}");
    Ok(())
}
