//! How long sources wait for acks when a node dies or is restarted. The figures are printed:
//! `--nocapture` shows them by phase.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, NODES};
use crate::load::{Load, Plan};
use crate::readback::judge;
use crate::wait::is_long;

const SOURCES: usize = 96;
const ALIVE: u64 = 10;
/// So far apart are two records of a stream: far less than the bounds.
const TICK: Duration = Duration::from_millis(50);
/// Sessions follow their leaders over 1.5 s: what that costs counts for the change that moved them.
const CALM: Duration = Duration::from_secs(2);
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
        plans.push(Plan { tick: TICK, ..Plan::new(&source, "a") });
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

// The gaps of one change end where the next begins: all are counted.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F1
// target: P16
// target: P17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ack_gaps_of_kills_and_of_a_rolling_restart() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let load = many(&cluster).await?;
    let (mut kills, mut returns, mut restarts) = (Vec::new(), Vec::new(), Vec::new());
    load.moves(ALIVE).await?;
    let mut busiest = cluster.spread().await?;
    tokio::time::sleep(CALM).await;
    for kill in 0..if is_long() { 30 } else { 2 } {
        let at = busiest;
        begin(&load);
        cluster.nodes[at].kill();
        load.moves(ALIVE).await?;
        tokio::time::sleep(CALM).await;
        kills.push(end(&load, &format!("kill {kill} of n{}", at + 1)));
        begin(&load);
        cluster.start_node(at)?;
        busiest = calm(&mut cluster, &load).await?;
        returns.push(end(&load, &format!("return of n{}", at + 1)));
    }
    for at in 0..NODES {
        begin(&load);
        cluster.nodes[at].stop().await?;
        cluster.start_node(at)?;
        calm(&mut cluster, &load).await?;
        restarts.push(end(&load, &format!("restart of n{}", at + 1)));
    }
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    check("kill", kills)?;
    check("return", returns)?;
    check("restart", restarts)?;
    cluster.passed();
    Ok(())
}

/// Waits until a change shows in full; a node that leads most groups then.
async fn calm(cluster: &mut Cluster, load: &Load) -> Result<usize> {
    cluster.settled(NODES).await?;
    let busiest = cluster.spread().await?;
    load.moves(ALIVE).await?;
    tokio::time::sleep(CALM).await;
    Ok(busiest)
}

fn check(what: &str, mut worst: Vec<Duration>) -> Result<()> {
    worst.sort_unstable();
    println!("worst sources of each {what}: {worst:.0?}");
    let (usual, last) = (worst[worst.len() / 2], worst[worst.len() - 1]);
    ensure!(last <= WORST_MAX, "ack gap after a {what}: {last:?} > {WORST_MAX:?}; all: {worst:?}");
    ensure!(
        usual <= USUAL_MAX,
        "median of the worst ack gaps after a {what}: {usual:?} > {USUAL_MAX:?}; all: {worst:?}"
    );
    Ok(())
}
