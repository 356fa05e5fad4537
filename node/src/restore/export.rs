//! `dtm backup export`: the records of one data set, out of a backup into files.

use std::path::PathBuf;

use dtm_backup::{OpenChain, Wanted};
use dtm_export::{Exported, With};
use dtm_types::BackupId;

use super::{Error, Unlocked, unlock};

/// What to export, and where to.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Folder that holds the backups.
    pub from: PathBuf,
    /// Which; `None` = the newest, or the oldest that gives the moment.
    pub backup: Option<String>,
    /// Folder of a keyring that holds the cluster keys, from escrow.
    pub keyring: PathBuf,
    /// The master key that opens it.
    pub master: PathBuf,
    /// Which records.
    pub wanted: Wanted,
    /// Folder to write into, new or empty.
    pub into: PathBuf,
}

/// Exports; from which backup. Blocking; `progress` gets the number of records so far.
///
/// # Errors
/// [`Error`]; nothing of it is left.
pub fn export(
    options: &ExportOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<(BackupId, Exported), Error> {
    let ExportOptions { backup, keyring, master, wanted, .. } = options;
    let which = (backup.as_deref(), wanted.until_us);
    let Unlocked { target, links, keyring } = unlock(&options.from, which, keyring, master)?;
    let chain = OpenChain { target: &target, links: &links };
    let with = With {
        open_key: &|group, row| {
            keyring.unwrap_data_key(group, row).map_err(|error| dtm_types::chain(&error))
        },
        document: &|record| dtm_ctl::record_document(record).to_string(),
    };
    match dtm_export::export(chain, wanted, &options.into, with, progress) {
        Ok(done) if done.records == 0 => {
            // Two empty folders are all that it wrote.
            for name in ["records", "publish", ""] {
                let _ = std::fs::remove_dir(options.into.join(name));
            }
            let (dataset, source) = (wanted.dataset.clone(), wanted.source.clone());
            let source_code = source.unwrap_or_else(|| "*".to_owned());
            Err(Error::NoRecords { dataset, source_code })
        }
        Ok(done) => Ok((chain.newest().id(), done)),
        Err(dtm_export::Error::Backup(error)) => Err(Error::Backup(error)),
        Err(error) => Err(Error::Export(error)),
    }
}
