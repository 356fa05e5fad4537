//! Rounds: every arm once a round, the order turned with each (A-B, B-A), a fresh cluster and a
//! fresh folder for each run, the machine probed before and after each. A round in which the
//! machine changed by more than 20 % is dropped; where that is every round, all are kept, and the
//! tables and targets say that none was steady. A loss in any round, dropped or kept, is a loss.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::arms::is_ours;
use crate::ceilings::{Probe, probe};
use crate::error::Error;
use crate::stats::{Median, median, shown, steady};
use crate::workload::{Plan, Run, Workload, run_once};

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

/// What went wrong on arms of ours in any round, a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Records that were missing, doubled, out of order or other than sent.
    pub lost: Vec<String>,
    /// Runs that did not end as they should.
    pub failed: Vec<String>,
}

impl Fault {
    /// Nothing went wrong.
    pub fn is_none(&self) -> bool {
        self.lost.is_empty() && self.failed.is_empty()
    }
}

impl Series {
    /// What went wrong on arms of ours.
    pub fn fault(&self) -> Fault {
        let mut fault = Fault::default();
        for run in self.runs.iter().filter(|run| is_ours(&run.arm)) {
            let at = format!("{:?} round {} {}", self.plan.workload, run.round + 1, run.arm);
            let nodes = run.read_back.iter().enumerate();
            let dirty = nodes.filter(|(_, verdict)| !verdict.clean());
            fault.lost.extend(dirty.map(|(node, verdict)| {
                format!(
                    "{at}, node {}: {} missing, {} doubled, {} out of order, {} not as sent",
                    node + 1,
                    verdict.missing,
                    verdict.doubled,
                    verdict.disordered,
                    verdict.foreign
                )
            }));
            let why = run.failures.first();
            fault.failed.extend(why.map(|why| format!("{at}: {why}")));
        }
        fault
    }

    /// Whether a W3 tells what its arms reach, for the W4 or W7 of `plan`.
    fn bounds(&self, plan: &Plan) -> bool {
        self.plan.workload == Workload::W3
            && matches!(plan.workload, Workload::W4 | Workload::W7)
            && self.plan.record_bytes == plan.record_bytes
            && self.plan.sources == plan.sources
    }

    /// Tells a plan that follows what the arms of this W3 reached, where it asks for a share of that.
    pub fn tell(&self, plan: &mut Plan) {
        if !self.bounds(plan) {
            return;
        }
        for arm in &self.plan.arms {
            let most = self.figure(arm, |run| Some(run.acked_per_s));
            plan.most_per_s.extend(most.map(|most| (arm.clone(), most.value)));
        }
    }

    /// The runs of an arm in the rounds that count, by round.
    pub fn runs_of(&self, arm: &str) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.arm == arm && self.kept.contains(&run.round))
    }

    /// The sound ones among them. What [`Series::fault`] names is never only left out: whoever takes
    /// a figure of ours asks that as well.
    pub fn sound(&self, arm: &str) -> impl Iterator<Item = &Run> {
        self.runs_of(arm).filter(|run| run.is_sound())
    }

    /// Median of one figure of an arm over its sound runs that have it.
    pub fn figure(&self, arm: &str, figure: impl Fn(&Run) -> Option<f64>) -> Option<Median> {
        median(&self.sound(arm).filter_map(figure).collect::<Vec<f64>>())
    }

    /// Per-round ratios of one figure, `over` / `under`, in the rounds in which both are sound.
    pub fn ratios(&self, over: &str, under: &str, figure: impl Fn(&Run) -> f64) -> Vec<f64> {
        let below: BTreeMap<u32, f64> =
            self.sound(under).map(|run| (run.round, figure(run))).collect();
        let ratio = |run: &Run| {
            let under = *below.get(&run.round)?;
            (under > 0.0).then(|| figure(run) / under)
        };
        self.sound(over).filter_map(ratio).collect()
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
            let mut run = {
                let home = Home::new(folder, &format!("{round}-{place}"))?;
                run_once(&plan, arm, round, home.path()).await?
            };
            // Sockets and page cache of the arm settle before the machine is looked at again.
            tokio::time::sleep(Duration::from_millis(500)).await;
            run.probe_after = probe(Home::new(folder, "probe")?.path())?;
            eprintln!("{}", line(&plan, &run));
            runs.push(run);
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
    let probes = |figure: fn(&Probe) -> f64| -> Vec<f64> {
        let of_round = runs.iter().filter(|run| run.round == round);
        of_round.flat_map(|run| [figure(&run.probe), figure(&run.probe_after)]).collect()
    };
    steady(&probes(|probe| probe.fdatasync_us)) && steady(&probes(|probe| probe.rtt_us))
}

fn line(plan: &Plan, run: &Run) -> String {
    let mut text = format!(
        "{:?} {} B round {} {:<24} {:>9.0}/s  p50 {:.2} ms  p99 {:.2} ms  cpu {} + {:.1} us  \
         sync {:.0} to {:.0} us  rtt {:.0} to {:.0} us",
        plan.workload,
        plan.record_bytes,
        run.round + 1,
        run.arm,
        run.acked_per_s,
        run.latency_us.p50 as f64 / 1e3,
        run.latency_us.p99 as f64 / 1e3,
        shown(run.server_cpu_us, 1),
        run.client_cpu_us,
        run.probe.fdatasync_us,
        run.probe_after.fdatasync_us,
        run.probe.rtt_us,
        run.probe_after.rtt_us,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Verdict;

    fn run(arm: &str, round: u32, (before, after): (f64, f64)) -> Run {
        let at = |fdatasync_us| Probe { fdatasync_us, rtt_us: 50.0 };
        let mut run = Run::blank(arm, round, at(before));
        run.probe_after = at(after);
        run.acked_per_s = 100.0;
        run
    }

    fn series(workload: Workload, runs: Vec<Run>) -> Series {
        let plan = Plan::new(workload, 1024, &["ours".to_owned(), "etcd".to_owned()]);
        Series { plan, runs, kept: vec![0], unsteady: false }
    }

    #[test]
    fn a_machine_that_changes_during_a_single_run_is_noticed() {
        assert!(is_steady(&[run("ours", 0, (100.0, 119.0))], 0));
        assert!(!is_steady(&[run("ours", 0, (100.0, 121.0))], 0), "one arm, and after it slower");
        let two = [run("ours", 0, (100.0, 100.0)), run("etcd", 0, (100.0, 130.0))];
        assert!(!is_steady(&two, 0));
        assert!(is_steady(&two, 1), "another round");
    }

    #[test]
    fn a_loss_is_told_also_of_a_round_that_does_not_count() {
        let mut dirty = run("ours", 2, (1.0, 1.0));
        dirty.read_back = vec![Verdict::default(), Verdict { doubled: 3, ..Verdict::default() }];
        dirty.acked_per_s = 0.0;
        let mut ended = run("ours-off", 1, (1.0, 1.0));
        ended.failures.push("no answer".to_owned());
        let mut peer = run("etcd", 0, (1.0, 1.0));
        peer.failures.push("not ours".to_owned());
        let fault =
            series(Workload::W3, vec![run("ours", 0, (1.0, 1.0)), dirty, ended, peer]).fault();
        let lost = "W3 round 3 ours, node 2: 0 missing, 3 doubled, 0 out of order, 0 not as sent";
        assert_eq!(fault.lost, [lost]);
        assert_eq!(fault.failed, ["W3 round 2 ours-off: no answer"]);
        assert!(!fault.is_none());
    }

    #[test]
    fn what_w3_reached_is_told_to_those_who_take_a_share_of_it() {
        let w3 = series(Workload::W3, vec![run("ours", 0, (1.0, 1.0))]);
        let mut half = Plan::new(Workload::W4, 1024, &["ours".to_owned()]);
        w3.tell(&mut half);
        assert_eq!(half.most_per_s, BTreeMap::from([("ours".to_owned(), 100.0)]));
        for mut other in [
            Plan::new(Workload::W4, 256, &["ours".to_owned()]),
            Plan::new(Workload::W6, 1024, &["ours".to_owned()]),
        ] {
            w3.tell(&mut other);
            assert!(other.most_per_s.is_empty());
        }
    }
}
