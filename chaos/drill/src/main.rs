//! Runs drills: for each one it starts a real cluster of `dtm` processes on this machine, puts
//! sources on it, does the drill's steps, takes them back, reads everything back from every node
//! and writes a report.
//!
//! ```text
//!  book, files ─▶ Drill ─▶ Ground (loopback or namespaces, disks, clocks) ─▶ Cluster ─▶ Drilled
//!                                                                                         │
//!  results ◀── Report ◀── dtm_scenario::run(drill, hands = Drilled) ◀─────────────────────┘
//! ```
//! Owner of the state: this process and a scratch folder. It ends only processes that it started,
//! by their id. Exit code 0 only when every drill passed; 1 otherwise; 2 for wrong usage and for a
//! drill that is refused as it is written.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

mod certificates;
mod clock;
mod cluster;
mod faults;
mod ground;
mod hands;
mod history;
mod load;
mod loss;
mod node;
mod readback;
mod restore;
mod results;
mod say;
mod settings;
mod show;
mod sites;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Parser;
use dtm_scenario::{Clock, Drill, LatestDrill, Report};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::ground::{Ground, Needs};
use crate::hands::Drilled;
use crate::results::Results;
use crate::settings::Settings;

fn main() -> ExitCode {
    let settings = Settings::parse();
    say::speak(settings.lang);
    let drills = match settings.drills() {
        Ok(drills) => drills,
        Err(error) => {
            eprintln!("dtm-drill: {error:#}");
            return ExitCode::from(2);
        }
    };
    match run_all(&settings, &drills) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dtm-drill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs them one after the other; whether all passed.
fn run_all(settings: &Settings, drills: &[Drill]) -> Result<bool> {
    let dtm = settings.dtm()?;
    let results = Results::open(&settings.results)?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(stop.clone())?;
    let mut ends = Vec::new();
    for drill in drills.iter().map(|drill| settings.sized(drill)) {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        eprintln!("{}: {}", drill.name, drill.title.of(settings.lang));
        let began = clock::Wall.now();
        let end = match run_one(settings, &drill, &dtm, &stop) {
            Ok(report) => {
                let path = results.keep(&report)?;
                let shown = settings.results.join(&path).display().to_string();
                eprintln!("  {}", say::text("drill.run.report", &[("path", &shown)]));
                LatestDrill::ran(&report, path)
            }
            Err(error) => {
                let why = format!("{error:#}");
                LatestDrill::not_run(&drill, began, why)
            }
        };
        results.note(end.clone())?;
        eprintln!("  {}", show::verdict(&end));
        ends.push(end);
    }
    println!("{}", show::table(&ends));
    Ok(ends.len() == drills.len() && ends.iter().all(|end| end.pass))
}

/// Runs one, on a thread of its own, which may live in another network namespace.
///
/// # Errors
/// Why it could not be begun: the machine lacks something, or the cluster did not come up.
fn run_one(
    settings: &Settings,
    drill: &Drill,
    dtm: &Path,
    stop: &Arc<AtomicBool>,
) -> Result<Report> {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| drill_in(settings, drill, dtm, stop));
        run.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the drill panicked")))
    })
}

fn drill_in(settings: &Settings, drill: &Drill, dtm: &Path, stop: &AtomicBool) -> Result<Report> {
    let scratch = tempfile::Builder::new().prefix("dtm-drill-").tempdir().context("scratch")?;
    let ground = Ground::build(scratch.path(), Needs::of(drill), &drill.cluster)?;
    let outside = ground.outside().cloned();
    if let Some(outside) = &outside {
        outside.join()?;
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all();
    if let Some(outside) = outside {
        runtime.on_thread_start(move || {
            // A thread that stayed where it was would reach nobody, which every wait would tell.
            outside.join().expect("the namespace lives as long as its network");
        });
    }
    let runtime = runtime.build()?;
    let started = Cluster::start(dtm, scratch.path(), ground, &drill.cluster);
    let cluster = runtime.block_on(started).context("the cluster does not come up");
    let cluster = cluster.inspect_err(|_| keep_logs(settings, drill, scratch.path()))?;
    let mut drilled = Drilled::new(runtime, cluster, settings.scale());
    let version = drilled.runtime.block_on(drilled.cluster.dtm(&["--version"]))?;
    drilled.fact("Phiên bản · Version", version.trim());
    drilled.fact("Máy · Machine", &show::machine());
    let report = dtm_scenario::run(drill, &mut drilled, &clock::Wall, stop);
    if report.verdict != dtm_scenario::Verdict::Passed {
        keep_logs(settings, drill, scratch.path());
    }
    Ok(report)
}

/// The nodes' logs of a drill that did not pass, beside the results.
fn keep_logs(settings: &Settings, drill: &Drill, scratch: &Path) {
    let kept = settings.results.join(&drill.name).join("logs");
    let copy = || -> Result<()> {
        std::fs::create_dir_all(&kept)?;
        for entry in std::fs::read_dir(scratch)? {
            let path = entry?.path();
            if let Some(name) = path.file_name()
                && path.extension().is_some_and(|ending| ending == "log")
            {
                std::fs::copy(&path, kept.join(name))?;
            }
        }
        Ok(())
    };
    let path = kept.display().to_string();
    match copy() {
        Ok(()) => eprintln!("  {}", say::text("drill.run.logs", &[("path", &path)])),
        Err(error) => eprintln!("  {path}: {error:#}"),
    }
}

/// Ctrl-C, `kill` and a closed terminal stop the drill that runs; it is taken back and reported.
fn watch_signals(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = {
        let _inside = runtime.enter();
        kinds.map(signal).into_iter().collect::<std::io::Result<Vec<_>>>()?
    };
    let watch = move || {
        runtime.block_on(async {
            let [a, b, c] = &mut signals[..] else { return };
            tokio::select! {
                _ = a.recv() => {}
                _ = b.recv() => {}
                _ = c.recv() => {}
            }
        });
        eprintln!("{}", say::text("drill.run.stopping", &[]));
        stop.store(true, Ordering::SeqCst);
        // Whoever asks again is not heard: what was done is taken back first.
        runtime.block_on(std::future::pending::<()>());
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
    Ok(())
}
