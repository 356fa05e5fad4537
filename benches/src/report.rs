//! Results on disk: one JSON and one Markdown file a run below `results/`, and `latest.json` with
//! the targets of the last run that covered each. Regressions against the last figures are said.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::ceilings::Ceilings;
use crate::clock::unix_seconds;
use crate::error::Error;
use crate::process::write_file;
use crate::runner::Series;
use crate::stats::Median;
use crate::targets::{Target, targets};
use crate::workload::Run;

/// Where results are kept.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
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
        let output =
            Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output();
        output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().into())
    };
    let dirty = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!("{}{}", git(&["rev-parse", "HEAD"]), if dirty { "+" } else { "" })
}

/// Writes everything and returns the Markdown.
///
/// # Errors
/// When a file cannot be written.
pub fn write(name: &str, all: &[Series], ceilings: &Ceilings) -> Result<String, Error> {
    let commit = commit();
    let found = targets(all);
    let text = markdown(name, &commit, all, ceilings);
    let body = json!({
        "name": name, "commit": commit, "machine": machine(), "taken_at_unix_s": unix_seconds(),
        "ceilings": ceilings, "series": all, "targets": found,
    });
    let stem = format!("{}-{}", unix_seconds(), name.replace([' ', '/'], "-"));
    write_file(&folder().join(format!("{stem}.json")), &pretty(&body))?;
    write_file(&folder().join(format!("{stem}.md")), &text)?;
    merge_latest(name, &commit, all, ceilings, &found)?;
    Ok(text)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn merge_latest(
    name: &str,
    commit: &str,
    all: &[Series],
    ceilings: &Ceilings,
    found: &BTreeMap<String, Target>,
) -> Result<(), Error> {
    let path = folder().join("latest.json");
    let old: Value = std::fs::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut targets = old["targets"].as_object().cloned().unwrap_or_default();
    for (id, target) in found {
        let mut value = json!(target);
        value["commit"] = json!(commit);
        value["run"] = json!(name);
        if let Some(text) = regression(id, targets.get(id), target) {
            eprintln!("{text}");
        }
        targets.insert(id.clone(), value);
    }
    let mut peers = old["peers"].as_object().cloned().unwrap_or_default();
    for series in all {
        for arm in &series.plan.arms {
            let key = format!("{:?} {} B {arm}", series.plan.workload, series.plan.record_bytes);
            let rate = series.figure(arm, |run| run.acked_per_s);
            peers.insert(key, json!({"acked_per_s": rate, "commit": commit, "run": name}));
        }
    }
    let plans: Vec<Value> = all.iter().map(|series| json!(series.plan)).collect();
    let latest = json!({
        "commit": commit, "machine": machine(), "run": name,
        "settings": {"plans": plans, "arms": settings(all), "ceilings": ceilings},
        "targets": targets, "peers": peers,
    });
    write_file(&path, &pretty(&latest))
}

fn settings(all: &[Series]) -> BTreeMap<String, Value> {
    let runs = all.iter().flat_map(|series| &series.runs);
    runs.map(|run| (run.arm.clone(), run.settings.clone())).collect()
}

/// A sentence when a single-valued target lost more than a tenth.
fn regression(id: &str, old: Option<&Value>, new: &Target) -> Option<String> {
    let (before, after) = (old?["value"].as_f64()?, new.value.as_f64()?);
    let lower_is_better = new.gate.as_f64()? > new.goal.as_f64()?;
    let worse = if lower_is_better { after > before * 1.1 } else { after < before * 0.9 };
    worse.then(|| format!("regression: {id} was {before}, is {after} ({})", new.of))
}

/// The tables of a run.
pub fn markdown(name: &str, commit: &str, all: &[Series], ceilings: &Ceilings) -> String {
    let found = &targets(all);
    let machine = machine();
    let mut out = format!(
        "# {name}\n\nCommit {commit}; {} cores, {}, Linux {}. Figures are ratios of one run; \
         absolute ones say little.\n",
        machine["cores"], machine["cpu"], machine["kernel"]
    );
    for series in all {
        table(&mut out, series);
    }
    if !found.is_empty() {
        out.push_str("\n## Targets\n\n| id | value | 95 % | gate | goal | gate passed | of |\n");
        out.push_str("|---|---|---|---|---|---|---|\n");
        for (id, target) in found {
            let passed = if target.pass { "yes" } else { "**no**" };
            let Target { value, interval, gate, goal, of, .. } = target;
            writeln!(out, "| {id} | {value} | {interval} | {gate} | {goal} | {passed} | {of} |")
                .expect("a string grows");
        }
    }
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
    out
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
        out.push_str("No round was steady (fdatasync or loopback moved by more than 20 %); all are kept.\n\n");
    } else if series.kept.len() < plan.rounds as usize {
        writeln!(out, "Rounds kept: {} of {}.\n", series.kept.len(), plan.rounds).expect("grows");
    }
    out.push_str(
        "| arm | acked/s (95 %) | ours / arm | p50 | p99 | p99.9 ms | CPU-us servers + client | \
         device x | RSS MiB | read back |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for arm in &plan.arms {
        let figure = |f: fn(&Run) -> f64| series.figure(arm, f).map_or(0.0, |m| m.value);
        let ratio = crate::stats::median(&series.ratios("ours", arm, |run| run.acked_per_s));
        let runs: Vec<&Run> = series.runs_of(arm).collect();
        writeln!(
            out,
            "| {arm} | {} | {} | {:.2} | {:.2} | {:.2} | {:.1} + {:.1} | {:.2} | {:.0} | {} |",
            series.figure(arm, |run| run.acked_per_s).map_or_else(|| "-".into(), spread),
            ratio
                .filter(|_| arm != "ours")
                .map_or_else(|| "-".into(), |m| format!("{:.2}", m.value)),
            figure(|run| run.latency_us.p50 as f64 / 1e3),
            figure(|run| run.latency_us.p99 as f64 / 1e3),
            figure(|run| run.latency_us.p999 as f64 / 1e3),
            figure(|run| run.server_cpu_us),
            figure(|run| run.client_cpu_us),
            figure(|run| run.device_factor),
            figure(|run| run.rss_bytes as f64 / f64::from(1 << 20)),
            verdict(&runs),
        )
        .expect("a string grows");
    }
}

fn spread(median: Median) -> String {
    format!("{:.0} ({:.0} to {:.0})", median.value, median.low, median.high)
}

fn verdict(runs: &[&Run]) -> String {
    let failed = runs.iter().filter(|run| run.acked_per_s == 0.0).count();
    if failed > 0 {
        let why = runs.iter().find_map(|run| run.failures.first().cloned()).unwrap_or_default();
        return format!("**{failed} of {} failed** {}", runs.len(), why.replace('|', "/"));
    }
    let read: u64 = runs.iter().flat_map(|run| &run.read_back).map(|node| node.read).sum();
    if read == 0 { "nothing stored".to_owned() } else { format!("clean, {read} read") }
}
