//! The demo: a real cluster of three processes on this machine, streams from every province, a
//! kill in the middle, everything read back from each node and counted.
//!
//! ```text
//!  Scratch (folder, lock)      Cluster (three `dtm serve`)      Senders (a task a stream)
//!        └────────────────────────── play ──────────────────────────┘
//!            start ─▶ register ─▶ stream ─▶ kill ─▶ restart ─▶ settle ─▶ read back ─▶ verdict
//! ```
//! Owner of the state: this process and its scratch folder. It ends only processes that it
//! started, by their id. Exit code 0 only when nothing is lost, doubled, out of order or strange
//! and all ledgers agree; 1 otherwise; 2 for wrong usage.

mod clock;
mod cluster;
mod generate;
mod history;
mod node;
mod play;
mod ports;
mod quarantine;
mod readback;
mod register;
mod roster;
mod say;
mod scratch;
mod screen;
mod sending;
mod settings;
mod signals;
mod status;
mod table;
mod tour;
mod units;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

use crate::settings::Settings;

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("dtm-demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(play::run(&settings)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dtm-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
