//! `dtm drill`.

use std::path::PathBuf;

use clap::Subcommand;

/// `dtm drill`. Drills are run by `dtm-drill`, on a cluster that it starts itself on a test machine;
/// a drill on a cluster in service is not part of this version.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// The drills of the book.
    List,
    /// One drill: what it is judged by, and its steps.
    Show {
        /// Name in the book, or a file.
        drill: String,
        /// The file itself, to begin one's own with.
        #[arg(long)]
        toml: bool,
    },
    /// Read files of drills and say what is wrong, with line, key and what is allowed. Exit code 78
    /// where one cannot be run.
    Check {
        /// Files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// The register of past drills and when each is due again, from the folder of results. Exit code
    /// 10 where one is overdue or never passed: for a timer that reminds.
    Due {
        /// Folder of results of `dtm-drill`.
        #[arg(long, value_name = "FOLDER", default_value = "chaos/results")]
        results: PathBuf,
        /// Months after which a drill is due again; a large system drills at least once a year.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=120))]
        months: u32,
        /// Days before it is due in which to remind.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=365))]
        remind_days: u32,
        /// Drills that have to be held; without any, the book and every drill of the folder.
        #[arg(value_name = "DRILL")]
        drills: Vec<String>,
    },
}
