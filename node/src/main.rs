//! The binary `dtm`: a node, its tools, and the operator's command line.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::Parser;
use dtm_ctl::args::{Cli, Command};
use dtm_ctl::{Exit, Failure};
use dtm_doors::system::SystemClock;
use dtm_doors::telemetry;
use dtm_machine::seams::Clock;
use dtm_node::{cli, config, serve};
use dtm_types::text::Lang;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything is read: whichever command it is may hold keys or payloads in clear.
    if let Err(error) = telemetry::leave_no_core() {
        return fail(&format!("core files cannot be switched off: {error}"), Exit::Failed as u8);
    }
    telemetry::keep_files_private();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string(), Exit::Failed as u8),
    };
    runtime.block_on(run(&cli))
}

async fn run(cli: &Cli) -> ExitCode {
    if let Command::Serve(file) = &cli.command {
        return serve_node(&file.config, cli.globals.lang).await;
    }
    let now_us = SystemClock::start().now_us();
    match cli::run(&cli.command, &cli.globals, now_us).await {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => return fail(&error.tell(&cli.globals), error.exit()),
    }
    match dtm_ctl::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail_with(&failure, cli),
    }
}

async fn serve_node(path: &std::path::Path, lang: Lang) -> ExitCode {
    let loaded = config::load(path)
        .and_then(|loaded| config::check_files(path, &loaded.config).map(|()| loaded));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error.tell(lang), config::EXIT_CONFIG),
    };
    match serve::run(loaded).await {
        Ok(serve::Ended::Stopped) => ExitCode::SUCCESS,
        Ok(serve::Ended::Again) => again(),
        Err(error) => fail(&error.tell(lang), error.exit()),
    }
}

/// The same command in the same process, from the beginning: whoever watches it sees it run on. Where
/// that fails it ends, to be started by its keeper.
fn again() -> ExitCode {
    let own = std::env::current_exe();
    let error = match own {
        Ok(own) => std::process::Command::new(own).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    fail(&format!("this node goes over to another life and cannot start itself: {error}"), 1)
}

fn fail_with(failure: &Failure, cli: &Cli) -> ExitCode {
    match failure {
        Failure::Told => ExitCode::from(failure.exit() as u8),
        _ => fail(&failure.tell(cli.globals.lang), failure.exit() as u8),
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    eprintln!("dtm: {text}");
    ExitCode::from(code)
}
