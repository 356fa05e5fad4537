//! `dtm availability`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `dtm availability`.
#[derive(Debug, Subcommand)]
pub enum AvailabilityCommand {
    /// Watch the system from outside, until told to stop: send a record and open a page at every
    /// public address, and note what came of it in each minute. Run it apart from the cluster.
    Probe(ProbeArgs),
    /// The account of a day, a month or a year: interruptions, availability, what is left of the
    /// year's allowance. Exit code 10 where nothing is left.
    Report {
        /// Day (2026-11-22), month (2026-11) or year (2026), UTC+07:00. The present year where none
        /// is given.
        period: Option<String>,
        /// Folder of a probe; once for each.
        #[arg(long, required = true, value_name = "FOLDER")]
        data: Vec<PathBuf>,
    },
    /// Keep pages of it up to date, until told to stop: how the system is now, day, month and year,
    /// what is left of the allowance, interruptions, drills that are due.
    Board(BoardArgs),
    /// Note planned maintenance. It explains interruptions and excuses none.
    Maintenance {
        /// Folder of a probe.
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
        /// First minute, UTC+07:00 (2026-11-22T22:00).
        #[arg(long, value_name = "TIME")]
        from: String,
        /// The minute after the last.
        #[arg(long, value_name = "TIME")]
        to: String,
        /// What is done.
        #[arg(long, value_name = "TEXT")]
        what: String,
    },
}

/// `dtm availability board`. Needs no cluster: run it where the probe runs, or where its folder is
/// copied to. The pages are files of their own; any web server hands them out.
#[derive(Debug, Args)]
pub struct BoardArgs {
    /// Folder of a probe; once for each.
    #[arg(long, required = true, value_name = "FOLDER")]
    pub data: Vec<PathBuf>,
    /// Folder that the pages are written to: index.html (Vietnamese), en.html, board.json.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Name of the system on the pages.
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Folder of results of `dtm-drill`: drills that are due or were never held stand on the board.
    #[arg(long, value_name = "FOLDER")]
    pub drills: Option<PathBuf>,
    /// Months after which a drill is due again.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub drill_months: u32,
    /// Write them once, and end.
    #[arg(long)]
    pub once: bool,
}

/// `dtm availability probe`. Addresses, certificate of the authority and key of the source are those
/// of the context.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Folder that keeps what was seen, a file a month.
    #[arg(long, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Data set of the record that is sent.
    #[arg(long)]
    pub dataset: String,
    /// File of the record that is sent (JSON). `{id}` in it becomes another text each time.
    #[arg(long, value_name = "FILE")]
    pub record: PathBuf,
    /// Entry page of a public address (https://HOST:PORT/); once for each.
    #[arg(long = "page", required = true, value_name = "URL")]
    pub pages: Vec<String>,
    /// Seconds from one round of attempts to the next.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(5..=60))]
    pub every: u64,
    /// Program that is called with `interrupted` or `restored`, the minute and what does not work,
    /// as soon as it is seen.
    #[arg(long, value_name = "PROGRAM")]
    pub notify: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn the_units_of_systemd_call_what_there_is() {
        let units = [
            include_str!("../../../systemd/dtm-probe.service"),
            include_str!("../../../systemd/dtm-board.service"),
        ];
        for unit in units {
            let unit = unit.replace("\\\n", " ");
            let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
            let line = line.expect("what it starts");
            if let Err(wrong) = Cli::try_parse_from(line.split_whitespace()) {
                panic!("{line}: {wrong}");
            }
        }
    }
}
