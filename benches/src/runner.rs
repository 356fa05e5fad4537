//! Rounds: every arm once a round, the order turned with each (A-B, B-A), a fresh cluster and a
//! fresh folder for each run, the machine probed before each. A round in which the machine
//! changed by more than 20 % is dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::stats::{Median, median, steady};
use crate::workload::{Plan, Run, run_once};

/// All runs of one workload.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// What was run.
    pub plan: Plan,
    /// Every run, in the order in which they were made.
    pub runs: Vec<Run>,
    /// Rounds that count.
    pub kept: Vec<u32>,
    /// Whether no round was steady, so that all were kept all the same.
    pub unsteady: bool,
}

impl Series {
    /// The runs of an arm in the rounds that count, by round.
    pub fn runs_of(&self, arm: &str) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.arm == arm && self.kept.contains(&run.round))
    }

    /// Median of one figure of an arm.
    pub fn figure(&self, arm: &str, figure: impl Fn(&Run) -> f64) -> Option<Median> {
        median(&self.runs_of(arm).map(figure).collect::<Vec<f64>>())
    }

    /// Per-round ratios of one figure, `over` / `under`, in the rounds that have both. A peer
    /// that failed gives no ratio; ours that failed gives 0.
    pub fn ratios(&self, over: &str, under: &str, figure: impl Fn(&Run) -> f64) -> Vec<f64> {
        let below: BTreeMap<u32, f64> =
            self.runs_of(under).map(|run| (run.round, figure(run))).collect();
        self.runs_of(over)
            .filter_map(|run| {
                let under = *below.get(&run.round)?;
                (under > 0.0).then(|| figure(run) / under)
            })
            .collect()
    }
}

/// Runs all arms of `plan` in all rounds below `folder`; says on stderr how far it is.
///
/// # Errors
/// When the machine cannot be probed or the folder cannot be used. An arm that fails is in its
/// run, with throughput 0.
pub async fn series(plan: Plan, folder: &Path) -> Result<Series, Error> {
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..plan.rounds {
        let mut order: Vec<&String> = plan.arms.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (place, arm) in order.into_iter().enumerate() {
            let home = Home::new(folder, &format!("{round}-{place}"))?;
            let run = run_once(&plan, arm, round, home.path()).await?;
            eprintln!("{}", line(&plan, &run));
            runs.push(run);
            // Sockets and page cache of the last arm settle before the next probe.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let mut kept: Vec<u32> = (0..plan.rounds).filter(|round| is_steady(&runs, *round)).collect();
    let unsteady = kept.is_empty();
    if unsteady {
        kept = (0..plan.rounds).collect();
    }
    Ok(Series { plan, runs, kept, unsteady })
}

fn is_steady(runs: &[Run], round: u32) -> bool {
    let probes = |figure: fn(&Run) -> f64| -> Vec<f64> {
        runs.iter().filter(|run| run.round == round).map(figure).collect()
    };
    steady(&probes(|run| run.probe.fdatasync_us)) && steady(&probes(|run| run.probe.rtt_us))
}

fn line(plan: &Plan, run: &Run) -> String {
    let mut text = format!(
        "{:?} {} B round {} {:<24} {:>9.0}/s  p50 {:.2} ms  p99 {:.2} ms  cpu {:.1} + {:.1} us  \
         sync {:.0} us  rtt {:.0} us",
        plan.workload,
        plan.record_bytes,
        run.round + 1,
        run.arm,
        run.acked_per_s,
        run.latency_us.p50 as f64 / 1e3,
        run.latency_us.p99 as f64 / 1e3,
        run.server_cpu_us,
        run.client_cpu_us,
        run.probe.fdatasync_us,
        run.probe.rtt_us,
    );
    for (name, figure) in &run.counters {
        text.push_str(&format!("  {name} {figure:.0}"));
    }
    let phases = run.phases;
    text.push_str(&format!(
        "  (setup {:.1} s, load {:.1} s, read back {:.1} s)",
        phases.setup_s, phases.load_s, phases.read_back_s
    ));
    for failure in &run.failures {
        text.push_str("\n    failed: ");
        text.push_str(failure);
    }
    for (node, verdict) in run.read_back.iter().enumerate().filter(|(_, verdict)| !verdict.clean())
    {
        text.push_str(&format!("\n    node {node} read back wrong: {verdict:?}"));
    }
    text
}

/// A folder of one run, removed with it.
#[derive(Debug)]
pub struct Home(PathBuf);

impl Home {
    /// Creates an empty folder.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn new(folder: &Path, name: &str) -> Result<Self, Error> {
        let path = folder.join(format!("{}-{name}", std::process::id()));
        let what = || Error::io(format!("create {}", path.display()));
        std::fs::create_dir_all(&path).map_err(what())?;
        Ok(Self(path.canonicalize().map_err(what())?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Left-overs of a run are no reason to fail.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
