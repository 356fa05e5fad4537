//! `faultfs`: the faulty disk by hand.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use dtm_faultfs::{Control, FaultFs, HELP, Options, tell};

/// A file system that passes through to a folder and injects faults.
#[derive(Parser)]
#[command(after_help = HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mounts until `quit` or the end of the standard input; takes commands there and at the socket.
    Mount {
        /// Holds the files.
        backing: PathBuf,
        /// Where programs see them.
        mount_at: PathBuf,
        /// Takes commands of other processes.
        #[arg(long)]
        socket: Option<PathBuf>,
        /// Decides delays.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Syncs do not reach the backing folder's disk.
        #[arg(long)]
        no_sync: bool,
    },
    /// Sends a command to a mounted one.
    Tell {
        /// Its socket.
        socket: PathBuf,
        /// The words of the command.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Mount { backing, mount_at, socket, seed, no_sync } => {
            let options = Options { backing, mount_at, seed, does_sync: !no_sync };
            let disk = Arc::new(FaultFs::mount(options)?);
            let _control =
                socket.map(|path| Control::serve(Arc::clone(&disk), &path)).transpose()?;
            println!("mounted at {}", disk.path().display());
            for line in std::io::stdin().lock().lines() {
                match line?.trim() {
                    "quit" => break,
                    "" => {}
                    "help" => println!("{HELP}"),
                    line => match disk.obey(line) {
                        Ok(told) => println!("{told}"),
                        Err(error) => println!("refused: {:#}", anyhow::Error::new(error)),
                    },
                }
            }
            Ok(())
        }
        Command::Tell { socket, words } => match tell(&socket, &words.join(" ")) {
            Ok(told) => {
                println!("{told}");
                Ok(())
            }
            Err(error) => bail!("{:#}", anyhow::Error::new(error)),
        },
    }
}
