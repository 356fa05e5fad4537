//! Results on disk: one JSON and one Markdown file a run below `results/`, and `latest.json` with
//! the targets of the last run that covered each, and commit, machine and settings of every run
//! that a figure there comes from. Regressions against the last figures are said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::arms::is_ours;
use crate::ceilings::Ceilings;
use crate::clock::unix_seconds;
use crate::error::Error;
use crate::process::write_file;
use crate::runner::Series;
use crate::stats::{Median, shown};
use crate::targets::{Target, targets};
use crate::tree;
use crate::workload::Run;

/// Where results are kept.
pub fn folder() -> PathBuf {
    tree::benches().join("results")
}

/// What the figures were taken on.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": model.trim_start_matches([' ', '\t', ':']),
        "memory": memory.trim(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// Commit of the tree, with `+` when it has changes.
pub fn commit() -> String {
    let git = |args: &[&str]| -> String {
        let output = Command::new("git").current_dir(tree::benches()).args(args).output();
        output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().into())
    };
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!("{}{}", git(&["rev-parse", "HEAD"]), if dirty { "+" } else { "" })
}

/// What is written of a run.
#[derive(Debug)]
pub struct Taken<'a> {
    /// What was run.
    pub name: &'a str,
    /// Of the tree.
    pub commit: String,
    /// Of the machine.
    pub machine: Value,
    /// When it ended.
    pub unix_s: u64,
    /// Its workloads.
    pub all: &'a [Series],
    /// What the machine could do.
    pub ceilings: &'a Ceilings,
    /// The targets that it covers.
    pub found: BTreeMap<String, Target>,
}

impl<'a> Taken<'a> {
    /// A run that ended just now on this tree and machine.
    pub fn now(name: &'a str, all: &'a [Series], ceilings: &'a Ceilings) -> Self {
        let found = targets(all);
        let (commit, machine, unix_s) = (commit(), machine(), unix_seconds());
        Self { name, commit, machine, unix_s, all, ceilings, found }
    }

    /// Name of its files, without the ending, and its name in `latest.json`.
    fn stem(&self) -> String {
        format!("{}-{}", self.unix_s, self.name.replace([' ', '/'], "-"))
    }

    /// Writes everything.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self) -> Result<(), Error> {
        let body = json!({
            "name": self.name, "commit": self.commit, "machine": self.machine,
            "taken_at_unix_s": self.unix_s, "ceilings": self.ceilings, "series": self.all,
            "targets": self.found,
        });
        let stem = self.stem();
        write_file(&folder().join(format!("{stem}.json")), &pretty(&body))?;
        write_file(&folder().join(format!("{stem}.md")), &self.markdown())?;
        let path = folder().join("latest.json");
        let old = std::fs::read(&path).ok();
        let old: Option<Value> = old.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let old = old.unwrap_or_default();
        for (id, target) in &self.found {
            if let Some(text) = regression(id, old["targets"].get(id), target) {
                eprintln!("{text}");
            }
        }
        write_file(&path, &pretty(&self.merged(&old)))
    }

    /// `latest.json` with this run in it. Figures that the run does not cover stay, and with them
    /// commit, machine and settings of the runs that they come from.
    fn merged(&self, old: &Value) -> Value {
        let part = |name: &str| old[name].as_object().cloned().unwrap_or_default();
        let (mut targets, mut peers, mut settings) =
            (part("targets"), part("peers"), part("settings"));
        let stem = self.stem();
        for (id, target) in &self.found {
            let mut value = json!(target);
            value["commit"] = json!(self.commit);
            value["run"] = json!(stem);
            targets.insert(id.clone(), value);
        }
        for series in self.all {
            for arm in &series.plan.arms {
                let plan = &series.plan;
                let key = format!("{:?} {} B {arm}", plan.workload, plan.record_bytes);
                let rate = rate(series, arm);
                let value = json!({"acked_per_s": rate, "commit": self.commit, "run": stem});
                peers.insert(key, value);
            }
        }
        let plans: Vec<Value> = self.all.iter().map(|series| json!(series.plan)).collect();
        let own = json!({
            "commit": self.commit, "machine": self.machine, "taken_at_unix_s": self.unix_s,
            "plans": plans, "arms": arms(self.all), "ceilings": self.ceilings,
        });
        settings.insert(stem.clone(), own);
        let named: BTreeSet<&str> =
            targets.values().chain(peers.values()).filter_map(|v| v["run"].as_str()).collect();
        settings.retain(|run, _| named.contains(run.as_str()));
        json!({
            "run": stem, "commit": self.commit, "machine": self.machine,
            "settings": settings, "targets": targets, "peers": peers,
        })
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn arms(all: &[Series]) -> BTreeMap<String, Value> {
    let runs = all.iter().flat_map(|series| &series.runs);
    runs.map(|run| (run.arm.clone(), run.settings.clone())).collect()
}

/// Records a second of an arm; none of ours where it lost one.
fn rate(series: &Series, arm: &str) -> Option<Median> {
    let rate = series.figure(arm, |run| Some(run.acked_per_s));
    rate.filter(|_| !is_ours(arm) || series.fault().is_none())
}

/// A sentence when a single-valued target lost more than a tenth.
fn regression(id: &str, old: Option<&Value>, new: &Target) -> Option<String> {
    let (before, after) = (old?["value"].as_f64()?, new.value.as_f64()?);
    let lower_is_better = new.gate.as_f64()? > new.goal.as_f64()?;
    let worse = if lower_is_better { after > before * 1.1 } else { after < before * 0.9 };
    worse.then(|| format!("regression: {id} was {before}, is {after} ({})", new.of))
}

impl Taken<'_> {
    /// The tables of the run.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "# {}\n\nCommit {}; {} cores, {}, Linux {}. Figures are ratios of one run; absolute \
             ones say little.\n",
            self.name,
            self.commit,
            self.machine["cores"],
            self.machine["cpu"],
            self.machine["kernel"]
        );
        for series in self.all {
            table(&mut out, series);
        }
        if !self.found.is_empty() {
            target_table(&mut out, &self.found);
        }
        ceiling_table(&mut out, self.ceilings);
        out
    }
}

fn target_table(out: &mut String, found: &BTreeMap<String, Target>) {
    out.push_str(
        "\n## Targets\n\n| id | value | 95 % | gate | goal | gate passed | steady | of |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (id, target) in found {
        let passed = if target.pass { "yes" } else { "**no**" };
        let steady = if target.steady { "yes" } else { "no" };
        let Target { value, interval, gate, goal, of, .. } = target;
        writeln!(
            out,
            "| {id} | {value} | {interval} | {gate} | {goal} | {passed} | {steady} | {of} |"
        )
        .expect("a string grows");
    }
    let faults = found.values().flat_map(|target| target.lost.iter().chain(&target.failed));
    for fault in faults.collect::<BTreeSet<_>>() {
        writeln!(out, "\n**{fault}**").expect("a string grows");
    }
}

fn ceiling_table(out: &mut String, ceilings: &Ceilings) {
    out.push_str("\n## Ceilings\n\n| what | bytes | figure |\n|---|---|---|\n");
    for (what, unit, rows) in [
        ("append and fdatasync", "/s", &ceilings.fdatasync_per_s),
        ("AES-256-GCM, one core", "MB/s", &ceilings.aes_gcm_mb_per_s),
        ("SHA-256, one core", "MB/s", &ceilings.sha256_mb_per_s),
        ("RocksDB WAL, 32 writers in groups, synced", "/s", &ceilings.rocksdb_wal_per_s),
    ] {
        for (bytes, figure) in rows {
            writeln!(out, "| {what} | {bytes} | {figure:.0} {unit} |").expect("a string grows");
        }
    }
    writeln!(out, "| loopback round trip | 1 | {:.1} us |", ceilings.rtt_us).expect("grows");
}

fn table(out: &mut String, series: &Series) {
    let plan = &series.plan;
    write!(
        out,
        "\n## {:?}, {} B, {} sources, {} rounds of {} s\n\n",
        plan.workload, plan.record_bytes, plan.sources, plan.rounds, plan.seconds
    )
    .expect("a string grows");
    if series.unsteady {
        out.push_str(
            "No round was steady (fdatasync or loopback moved by more than 20 %); all are kept.\n\n",
        );
    } else {
        writeln!(out, "Steady rounds, which count: {} of {}.\n", series.kept.len(), plan.rounds)
            .expect("a string grows");
    }
    out.push_str(
        "| arm | acked/s (95 %) | ours / arm | p50 | p99 | p99.9 ms | CPU-us servers + client | \
         device x | RSS MiB | read back |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for arm in &plan.arms {
        row(out, series, arm);
    }
}

/// A figure that was not measured is a dash; ours that lost a record has a throughput of 0.
fn row(out: &mut String, series: &Series, arm: &str) {
    let is_sound = series.fault().is_none();
    let figure = |f: fn(&Run) -> Option<f64>, digits| {
        shown(series.figure(arm, f).map(|median| median.value), digits)
    };
    let nothing = if is_ours(arm) && !is_sound { "**0**" } else { "–" };
    let ratios = series.ratios("ours", arm, |run| run.acked_per_s);
    let ratio = crate::stats::median(&ratios).filter(|_| arm != "ours" && is_sound);
    let runs: Vec<&Run> = series.runs.iter().filter(|run| run.arm == arm).collect();
    writeln!(
        out,
        "| {arm} | {} | {} | {} | {} | {} | {} + {} | {} | {} | {} |",
        rate(series, arm).map_or_else(|| nothing.to_owned(), spread),
        shown(ratio.map(|median| median.value), 2),
        figure(|run| Some(run.latency_us.p50 as f64 / 1e3), 2),
        figure(|run| Some(run.latency_us.p99 as f64 / 1e3), 2),
        figure(|run| Some(run.latency_us.p999 as f64 / 1e3), 2),
        figure(|run| run.server_cpu_us, 1),
        figure(|run| Some(run.client_cpu_us), 1),
        figure(|run| run.device_factor, 2),
        figure(|run| Some(run.rss_bytes? as f64 / f64::from(1 << 20)), 0),
        verdict(&runs),
    )
    .expect("a string grows");
}

fn spread(median: Median) -> String {
    format!("{:.0} ({:.0} to {:.0})", median.value, median.low, median.high)
}

/// Of all rounds: also one that does not count must not have lost anything.
fn verdict(runs: &[&Run]) -> String {
    let failed = runs.iter().filter(|run| !run.is_sound()).count();
    if failed > 0 {
        let why = runs.iter().find_map(|run| run.failures.first().cloned());
        let why = why.unwrap_or_else(|| "read back wrong".to_owned());
        return format!("**{failed} of {} failed** {}", runs.len(), why.replace('|', "/"));
    }
    let read: u64 = runs.iter().flat_map(|run| &run.read_back).map(|node| node.read).sum();
    if read == 0 { "nothing stored".to_owned() } else { format!("clean, {read} read") }
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
