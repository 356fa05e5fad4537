//! `dtm-sim --seeds N --from SEED --steps N`: runs that many seeds, prints each that breaks a
//! property with its last events, and ends with 1 if one did. A seed that is printed repeats.

#![allow(clippy::disallowed_methods, reason = "tells how long it took by the machine's own clock")]

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

#[derive(Parser)]
#[command(version, about = "Simulation of a group under faults, seed by seed.")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Steps of each.
    #[arg(long, default_value_t = dtm_sim::STEPS)]
    steps: u64,
    /// Runs beside each other.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let Arguments { seeds, from, steps, threads } = Arguments::parse();
    let begun = Instant::now();
    let (next, bad) = (AtomicU64::new(from), AtomicU64::new(0));
    let (acked, faults) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let run = dtm_sim::run(seed, steps, None);
                    acked.fetch_add(run.acked, Ordering::Relaxed);
                    faults.fetch_add(run.faults.all(), Ordering::Relaxed);
                    if !run.holds() {
                        bad.fetch_add(1, Ordering::Relaxed);
                        // Nobody listens any more: the exit code still says it.
                        let _ = write!(std::io::stdout(), "{run}");
                    }
                }
            });
        }
    });
    let bad = bad.into_inner();
    let took = begun.elapsed().as_secs_f64();
    let (acked, faults) = (acked.into_inner(), faults.into_inner());
    let _ = writeln!(
        std::io::stdout(),
        "{seeds} seeds of {steps} steps in {took:.1} s: {faults} faults, {acked} batches acked, {bad} seeds with a breach"
    );
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
