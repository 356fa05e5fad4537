//! The workloads by name: how many sources, how much in flight, in which steps. One call runs
//! one arm once, on a fresh cluster, and ends with the read-back from every node.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::arms;
use crate::ceilings::{Probe, probe};
use crate::clock::now;
use crate::driver::{Driver, ReadBack, Setup};
use crate::error::Error;
use crate::load::{Drill, Load, Offer, Outcome, connect_all, run, run_on};
use crate::record::Records;
use crate::usage::Usage;
use crate::verify::{Acked, Check, Verdict};

/// Records a source may have in flight in W3 to W6.
pub const WINDOW: u32 = 32;
const W2_BYTES: usize = 1 << 20;
const CALIBRATION: Duration = Duration::from_secs(5);

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Workload {
    /// One source, one record in flight.
    W1,
    /// One source, 1 MiB in flight.
    W2,
    /// 500 sources, 32 records in flight each, saturate.
    W3,
    /// 500 sources, open loop at a share of the arm's own maximum.
    W4,
    /// Many idle sources, then a trickle, then all reconnect at once.
    W5,
    /// W3 with everything on against everything off (arms `ours` and `ours-off`).
    W6,
    /// Open loop at half the maximum while the busiest node is killed.
    W7,
}

/// How one workload is run on all its arms.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Which.
    pub workload: Workload,
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Sources, each with a connection of its own.
    pub sources: u32,
    /// Arms by name.
    pub arms: Vec<String>,
    /// Rounds; the order of the arms turns with each.
    pub rounds: u32,
    /// Seconds before measuring.
    pub warm_up_s: f64,
    /// Seconds measured.
    pub seconds: f64,
    /// Share of the arm's own maximum (W4, W7).
    pub share: f64,
    /// That maximum by arm, in records a second, where a W3 of the same command measured it; an arm
    /// that is not named here is saturated for 5 s first.
    pub most_per_s: BTreeMap<String, f64>,
    /// Kills (W7).
    pub kills: u32,
    /// Seed of the records.
    pub seed: u64,
}

impl Plan {
    /// The workload with its usual sources.
    pub fn new(workload: Workload, record_bytes: usize, arms: &[String]) -> Self {
        let sources = match workload {
            Workload::W1 | Workload::W2 => 1,
            Workload::W5 => 10_000,
            _ => 500,
        };
        Self {
            workload,
            record_bytes,
            sources,
            arms: arms.to_vec(),
            rounds: 3,
            // The first windows of large records alone take seconds.
            warm_up_s: if record_bytes >= 8192 { 10.0 } else { 3.0 },
            seconds: 10.0,
            share: 0.5,
            most_per_s: BTreeMap::new(),
            kills: 3,
            seed: 20_260_125,
        }
    }

    fn window(&self) -> u32 {
        match self.workload {
            Workload::W1 => 1,
            Workload::W2 => {
                u32::try_from((W2_BYTES / self.record_bytes).clamp(1, 4096)).unwrap_or(1)
            }
            _ => WINDOW,
        }
    }
}

/// Delays in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // the names say it
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// Memory and reconnection (W5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Crowd {
    /// Resident bytes of all nodes that an idle source costs.
    pub rss_bytes_per_source: f64,
    /// Seconds from the reconnection of all until each has had a further record acknowledged.
    pub reconnect_s: f64,
}

/// Seconds that the parts of a run took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Phases {
    /// Cluster started, sources registered.
    pub setup_s: f64,
    /// Connected, loaded, drained.
    pub load_s: f64,
    /// All records read from every node.
    pub read_back_s: f64,
}

/// What one arm did in one round.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Arm with its options.
    pub arm: String,
    /// Round, from 0.
    pub round: u32,
    /// Acknowledged records a second; 0 when the read-back or the run failed.
    pub acked_per_s: f64,
    /// The same before the read-back had its say.
    pub acked_per_s_unchecked: f64,
    /// Delays to the acknowledgement.
    pub latency_us: Latency,
    /// Records offered a second (W4, W7).
    pub offered_per_s: Option<f64>,
    /// CPU-µs of all server processes for an acknowledged record; `None` where a process was
    /// killed, since what it had counted is gone.
    pub server_cpu_us: Option<f64>,
    /// CPU-µs of the load generator for an acknowledged record.
    pub client_cpu_us: f64,
    /// Bytes to the device / (acknowledged payload × 3); `None` as above.
    pub device_factor: Option<f64>,
    /// Resident bytes of all server processes at the end; `None` as above.
    pub rss_bytes: Option<u64>,
    /// Differences of the arm's own counters over the measured time.
    pub counters: BTreeMap<String, f64>,
    /// Read-back, a node each; empty where the arm stores nothing.
    pub read_back: Vec<Verdict>,
    /// Longest time without an acknowledgement of a source at each kill, in s (W7).
    pub ack_gaps_s: Vec<f64>,
    /// W5 only.
    pub crowd: Option<Crowd>,
    /// Where the time of the run went.
    pub phases: Phases,
    /// The machine just before.
    pub probe: Probe,
    /// The machine just after, with the arm's processes and files gone.
    pub probe_after: Probe,
    /// Settings of the arm.
    pub settings: serde_json::Value,
    /// Why the figure is 0, if it is.
    pub failures: Vec<String>,
}

impl Run {
    /// A run of which nothing is known but the machine just before.
    pub(crate) fn blank(arm: &str, round: u32, probe: Probe) -> Self {
        Self {
            arm: arm.to_owned(),
            round,
            acked_per_s: 0.0,
            acked_per_s_unchecked: 0.0,
            latency_us: Latency::default(),
            offered_per_s: None,
            server_cpu_us: None,
            client_cpu_us: 0.0,
            device_factor: None,
            rss_bytes: None,
            counters: BTreeMap::new(),
            read_back: Vec::new(),
            ack_gaps_s: Vec::new(),
            crowd: None,
            phases: Phases::default(),
            probe,
            probe_after: probe,
            settings: serde_json::Value::Null,
            failures: Vec::new(),
        }
    }

    /// Nothing failed and every acknowledged record was read back, once and in order.
    pub fn is_sound(&self) -> bool {
        self.acked_per_s > 0.0
    }
}

/// Runs `name` once on a fresh cluster below `folder`.
///
/// # Errors
/// Only when the machine itself cannot be probed. What goes wrong on the arm is in the run.
pub async fn run_once(plan: &Plan, name: &str, round: u32, folder: &Path) -> Result<Run, Error> {
    let mut run = Run::blank(name, round, probe(folder)?);
    let Some(mut driver) = arms::make(name) else {
        run.failures.push(format!("no arm is called {name}"));
        return Ok(run);
    };
    let setup = Setup {
        folder: folder.to_owned(),
        sources: plan.sources,
        records: Arc::new(Records::new(plan.record_bytes, plan.seed)),
        window: plan.window(),
    };
    if let Err(error) = steps(plan, &mut *driver, &setup, &mut run).await {
        run.failures.push(error.to_string());
    }
    run.settings = driver.settings();
    driver.stop().await;
    if run.failures.is_empty() && run.acked_per_s_unchecked == 0.0 {
        run.failures.push("nothing was acknowledged in the measured time".to_owned());
    }
    if run.failures.is_empty() && run.read_back.iter().all(Verdict::clean) {
        run.acked_per_s = run.acked_per_s_unchecked;
    }
    Ok(run)
}

async fn steps(
    plan: &Plan,
    driver: &mut dyn Driver,
    setup: &Setup,
    run_: &mut Run,
) -> Result<(), Error> {
    let start = now();
    driver.setup(setup).await?;
    run_.phases.setup_s = start.elapsed().as_secs_f64();
    let start = now();
    let mut load = Load {
        offer: Offer::Saturate { window: setup.window },
        sources: plan.sources,
        warm_up: Duration::from_secs_f64(plan.warm_up_s),
        measured: Duration::from_secs_f64(plan.seconds),
        records: Arc::clone(&setup.records),
        known: Vec::new(),
        drill: Drill::default(),
    };
    let outcome = match plan.workload {
        Workload::W1 | Workload::W2 | Workload::W3 | Workload::W6 => run(driver, &load).await?,
        Workload::W4 | Workload::W7 => {
            let most_per_s = most_per_s(plan, driver, &mut load, run_).await?;
            let per_s = (most_per_s * plan.share).max(1.0);
            run_.offered_per_s = Some(per_s);
            load.offer = Offer::Open { per_s };
            if plan.workload == Workload::W7 {
                load.drill = Drill { kills: plan.kills };
            }
            run(driver, &load).await?
        }
        Workload::W5 => crowd(driver, &mut load, run_).await?,
    };
    run_.phases.load_s = start.elapsed().as_secs_f64();
    fill(run_, plan, &outcome);
    let start = now();
    read_back(driver, setup, &outcome.known, run_).await?;
    run_.phases.read_back_s = start.elapsed().as_secs_f64();
    Ok(())
}

/// What the arm reaches when it is saturated: as its W3 said, else measured here.
async fn most_per_s(
    plan: &Plan,
    driver: &mut dyn Driver,
    load: &mut Load,
    run_: &mut Run,
) -> Result<f64, Error> {
    if let Some(per_s) = plan.most_per_s.get(&run_.arm) {
        return Ok(*per_s);
    }
    let measured = std::mem::replace(&mut load.measured, CALIBRATION);
    let most = run(driver, load).await?;
    load.measured = measured;
    load.known = most.known;
    run_.failures.extend(most.failures);
    Ok(most.acked as f64 / most.seconds)
}

/// W5: connects all and lets them idle, then a record each every two seconds over the same
/// connections, then all again.
async fn crowd(driver: &mut dyn Driver, load: &mut Load, run_: &mut Run) -> Result<Outcome, Error> {
    let pids = driver.pids();
    let before = Usage::of(&pids).rss_bytes;
    let idle = connect_all(driver, load.sources).await?;
    tokio::time::sleep(load.measured).await;
    let grown = Usage::of(&pids).rss_bytes.saturating_sub(before);
    load.offer = Offer::Open { per_s: f64::from(load.sources) / 2.0 };
    let mut trickle = run_on(driver, load, idle).await?;
    load.known = std::mem::take(&mut trickle.known);
    let start = now();
    let last = crate::load::one_each(driver, load).await?;
    run_.crowd = Some(Crowd {
        rss_bytes_per_source: grown as f64 / f64::from(load.sources),
        reconnect_s: start.elapsed().as_secs_f64(),
    });
    trickle.known = last;
    Ok(trickle)
}

fn fill(run: &mut Run, plan: &Plan, outcome: &Outcome) {
    let at = |quantile| outcome.latency.value_at_quantile(quantile);
    run.latency_us = Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: outcome.latency.max(),
    };
    let acked = outcome.acked.max(1) as f64;
    run.acked_per_s_unchecked = outcome.acked as f64 / outcome.seconds;
    run.server_cpu_us = outcome.servers.map(|servers| servers.cpu_us as f64 / acked);
    run.client_cpu_us = outcome.client.cpu_us as f64 / acked;
    let payload = acked * plan.record_bytes as f64 * 3.0;
    run.device_factor = outcome.servers.map(|servers| servers.written_bytes as f64 / payload);
    run.rss_bytes = outcome.servers.map(|servers| servers.rss_bytes);
    run.counters.clone_from(&outcome.counters);
    run.ack_gaps_s.clone_from(&outcome.ack_gaps_s);
    run.failures.extend(outcome.failures.iter().take(5).cloned());
}

async fn read_back(
    driver: &dyn Driver,
    setup: &Setup,
    known: &[Acked],
    run: &mut Run,
) -> Result<(), Error> {
    use futures::{StreamExt as _, TryStreamExt as _};
    let at_once = if driver.reads_side_by_side() { driver.nodes() } else { 1 };
    let reading = futures::stream::iter(0..driver.nodes()).map(|node| async move {
        let mut check = Check::new(Arc::clone(&setup.records), setup.sources);
        let done = driver.read_back(node, &mut check).await?;
        Ok::<_, Error>((done == ReadBack::Done).then(|| check.finish(known)))
    });
    let verdicts: Vec<Option<Verdict>> = reading.buffered(at_once).try_collect().await?;
    run.read_back = verdicts.into_iter().flatten().collect();
    Ok(())
}
