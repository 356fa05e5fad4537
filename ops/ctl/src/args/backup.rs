//! `dtm backup`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::NodeArgs;

/// `dtm backup`.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Write a backup of the whole cluster into the folder `backup.folder` of the node that is asked,
    /// and read it back. It continues the newest one there; where there is none it is a full one.
    Create {
        /// Everything, even where a backup is there that could be continued.
        #[arg(long)]
        full: bool,
    },
    /// The backups of a folder.
    List {
        /// The folder, as this machine sees it.
        folder: PathBuf,
    },
    /// Read a backup, and those that it continues, to the last byte. Needs no key. Exit code 20 where
    /// one is damaged or not whole.
    Verify {
        /// The folder, as this machine sees it.
        folder: PathBuf,
        /// Which; the newest where nothing is said.
        #[arg(long, value_name = "ID")]
        backup: Option<String>,
    },
    /// Remove old backups: whole chains, of each life of a cluster all but the newest so many. The newest
    /// chain, which holds all that older ones do, is read to its last byte before anything goes.
    Remove {
        /// The folder, as this machine sees it.
        folder: PathBuf,
        /// Chains that stay, of each life.
        #[arg(long, value_name = "COUNT")]
        keep_chains: NonZeroUsize,
    },
    /// Write the records of one data set out of a backup into files, without a cluster: `records/` with
    /// where each stood, and `publish/`, which `dtm publish` sends again. They are in clear.
    Export(Box<ExportArgs>),
    /// Make the first node of the next life of a cluster out of a backup. Other nodes join it. Run it
    /// where the node is to run; the cluster of before must not run any more.
    Restore(Box<RestoreArgs>),
}

/// Which backup, or which moment of one, and the keys that open it.
#[derive(Clone, Debug, Args)]
pub struct WhichBackup {
    /// Which; the newest where nothing is said, with `--until` the oldest that gives the moment.
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// As of this moment, inclusive, by the time of each group: RFC 3339 with an offset, such as
    /// 2026-11-21T10:00:00+07:00. Nothing that came behind it is taken.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<i64>,
    /// Copy of the folder `keyring` of any node of the cluster, newer than the backup.
    #[arg(long, value_name = "FOLDER")]
    pub keyring: PathBuf,
    /// The master key of that node.
    #[arg(long, value_name = "FILE")]
    pub master: PathBuf,
}

/// `dtm backup export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Folder of the backups.
    #[arg(long, value_name = "FOLDER")]
    pub from: PathBuf,
    /// The backup that is wanted, and what opens it.
    #[command(flatten)]
    pub which: WhichBackup,
    /// Code of the data set.
    #[arg(long)]
    pub dataset: String,
    /// Code of one source; all of them where nothing is said.
    #[arg(long)]
    pub source: Option<String>,
    /// Folder to write into, new or empty.
    #[arg(long, value_name = "FOLDER")]
    pub into: PathBuf,
}

/// `dtm backup restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// The node that is made.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Folder of the backups.
    #[arg(long, value_name = "FOLDER")]
    pub from: PathBuf,
    /// The backup that is wanted, and what opens it.
    #[command(flatten)]
    pub which: WhichBackup,
    /// The incarnation that begins, where the cluster had later ones than the backup's: above them all.
    #[arg(long)]
    pub incarnation: Option<u64>,
}

/// Unix microseconds of a time with an offset.
fn moment(text: &str) -> Result<i64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|error| {
        format!("{error}: name date, time and offset, such as 2026-11-21T10:00:00+07:00")
    })?;
    Ok(time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn a_moment_has_an_offset() {
        assert_eq!(moment("2026-11-21T06:59:59+07:00"), Ok(1_795_219_199_000_000));
        assert_eq!(moment("2026-11-20T23:59:59.5Z"), Ok(1_795_219_199_500_000));
        for unclear in ["2026-11-21T06:59:59", "2026-11-21", "yesterday", ""] {
            assert!(moment(unclear).is_err(), "{unclear:?}");
        }
    }
}
