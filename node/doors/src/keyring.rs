//! The node's keyring: where it lies and how it is made, opened and received.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtm_setup::config::Config;
use dtm_setup::pki::Issuing;
use dtm_storage::keys::{Error, Keyring, Master};
use dtm_storage::vfs::RealVfs;

use crate::system::OsEntropy;

/// Folder of the keyring in the data folder.
const FOLDER: &str = "keyring";

/// The keyring of a data folder.
pub fn folder(data: &Path) -> PathBuf {
    data.join(FOLDER)
}

/// Opens the keyring of a node that is set up.
///
/// # Errors
/// Names the file and what to do; the process ends with exit code 78.
pub fn open(config: &Config) -> Result<Keyring, Error> {
    let master = Master::read(&config.keys.master_key_file)?;
    Keyring::open(Arc::new(RealVfs), &folder(&config.node.data), master, Arc::new(OsEntropy))
}

/// As [`open`], and writes nothing.
///
/// # Errors
/// As [`open`].
pub fn look(config: &Config) -> Result<Keyring, Error> {
    let master = Master::read(&config.keys.master_key_file)?;
    Keyring::look(Arc::new(RealVfs), &folder(&config.node.data), master, Arc::new(OsEntropy))
}

/// Makes master key file and keyring of a new cluster, and keeps the issuing certificate in it.
///
/// # Errors
/// As [`Keyring::create`] and [`Master::create`].
pub fn create(
    data: &Path,
    master_file: &Path,
    issuing: &Issuing,
    now_us: i64,
) -> Result<(), Error> {
    let master = Master::create(master_file, &OsEntropy)?;
    let keyring =
        Keyring::create(Arc::new(RealVfs), &folder(data), master, Arc::new(OsEntropy), now_us)?;
    keyring.put_secret(Issuing::SECRET, &issuing.to_secret())
}

/// Makes master key file and keyring of a node that joins, from another node's export.
///
/// # Errors
/// As [`Keyring::import`] and [`Master::create`].
pub fn import(data: &Path, master_file: &Path, exported: &[u8]) -> Result<(), Error> {
    let master = Master::create(master_file, &OsEntropy)?;
    Keyring::import(Arc::new(RealVfs), &folder(data), master, Arc::new(OsEntropy), exported)
        .map(|_| ())
}

/// The issuing certificate of the cluster with its key, where this node holds it.
pub fn issuing(keyring: &Keyring) -> Option<Issuing> {
    Issuing::from_secret(&keyring.secret(Issuing::SECRET)?)
}
