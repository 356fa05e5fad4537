//! `dtm backup`.

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
    /// Make the first node of the next life of a cluster out of a backup. Other nodes join it. Run it
    /// where the node is to run; the cluster of before must not run any more.
    Restore(Box<RestoreArgs>),
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
    /// Which; the newest where nothing is said.
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Copy of the folder `keyring` of any node of the cluster, newer than the backup.
    #[arg(long, value_name = "FOLDER")]
    pub keyring: PathBuf,
    /// The master key of that node.
    #[arg(long, value_name = "FILE")]
    pub master: PathBuf,
    /// The incarnation that begins, where the cluster had later ones than the backup's: above them all.
    #[arg(long)]
    pub incarnation: Option<u64>,
}
