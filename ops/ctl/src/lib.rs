//! Operator commands of the `dtm` binary: the command line, contexts, output, and every command
//! that talks to a cluster. Commands of the node itself (`serve`, `cluster init` …) are declared
//! in [`args`] and carried out by the binary.
//!
//! ```text
//!  args ─▶ run ─▶ commands ─▶ Remote (context, channel, credential) ─▶ gRPC
//!                     └──────▶ output (table or JSON, Vietnamese or English)
//! ```
//! Owner of the state: the contexts file of the user. Results go to stdout, everything else to
//! stderr.

pub mod args;
mod commands;
pub mod contexts;
mod failure;
pub mod generate;
mod output;
mod remote;
mod request;
mod told;

pub use commands::{record_document, time};
pub use failure::{Exit, Failure};
pub use output::{Printer, confirm};
pub use remote::Remote;
pub(crate) use request::{NewFile, key_files};
pub use request::{Request, make_request, pem, write_new};

use std::pin::Pin;

use args::{Cli, Command};

/// The stylesheet of the pages: those of a node and those of the board.
pub const PAGE_STYLE: &str = include_str!("../templates/page.css");

/// Carries out a command that talks to a cluster, or manages contexts.
///
/// # Errors
/// [`Failure`] with the text for the user and the exit code.
///
/// # Panics
/// On a command of the node itself, which the binary carries out.
pub fn run(cli: &Cli) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + '_>> {
    Box::pin(async move {
        let globals = &cli.globals;
        match &cli.command {
            Command::Cluster(command) => commands::cluster::run(command, globals).await,
            Command::Operator(command) => commands::operator::run(command, globals).await,
            Command::Approval(command) => commands::approval::run(command, globals).await,
            Command::Site(command) => commands::site::run(command, globals).await,
            Command::Backup(command) => commands::backup::run(command, globals).await,
            Command::Availability(command) => commands::availability::run(command, globals).await,
            Command::Drill(command) => commands::drill::run(command, globals),
            Command::Source(command) => commands::source::run(command, globals).await,
            Command::Dataset(command) => commands::dataset::run(command, globals).await,
            Command::Records(command) => commands::records::run(command, globals).await,
            Command::Quarantine(command) => commands::quarantine::run(command, globals).await,
            Command::Console(command) => commands::console::run(command, globals).await,
            Command::Config(command) => commands::config::run(command, globals).await,
            Command::Key(command) => commands::key::run(command, globals).await,
            Command::Ledger(command) => commands::ledger::run(command, globals).await,
            Command::Publish(args) => commands::publish::run(args, globals).await,
            Command::Agent(args) => commands::agent::run(args, globals).await,
            Command::Context(command) => commands::context::run(command, globals),
            other => panic!("the binary carries out {other:?} itself"),
        }
    })
}
