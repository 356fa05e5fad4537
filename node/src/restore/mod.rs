//! `dtm backup restore`: makes the folder of a node that begins the next life of a cluster.
//!
//! ```text
//!  backup, the chain behind it ─┐   keyring (from escrow) ─▶ issuing certificate ─▶ a new node's own
//!  keyring, its master key ─────┴─▶ keys of the backups ─▶ rows, entries
//!    ─▶ FOLDER/data: log, state, keyring, incarnation n + 1 ─▶ FOLDER/dtm.toml, last
//! ```
//! To a moment between two backups: rows of the last cut before it, and the entries from there to the
//! moment through apply ([`dtm_backup::OpenChain`]).
//!
//! The node is a new one, under a new id, and the only voter of every group. Others join it with a
//! token. Whoever is still of the life before is refused by it, and refuses it.
//!
//! Nothing that is there is overwritten. What was begun and could not be ended is removed again; the
//! folder counts as a node once its configuration is in it, which is written last.

mod export;
mod groups;

pub use export::{ExportOptions, export};

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtm_backup::{Checked, Folder, Manifest, Meta, OpenChain, Target};
use dtm_doors::keyring;
use dtm_doors::life;
use dtm_doors::system::OsEntropy;
use dtm_identity::Identity;
use dtm_seal::DataKey;
use dtm_storage::keys::{Keyring, Master};
use dtm_storage::vfs::RealVfs;
use dtm_types::text::Told;
use dtm_types::{BackupId, GroupId, Incarnation, NodeId};
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;

use crate::join;
use crate::pki::{self, InitOptions};
use crate::runtime::boot::Boot;

/// What to restore, and as what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node that is made.
    pub node: InitOptions,
    /// Folder that holds the backups.
    pub from: PathBuf,
    /// Which; `None` = the newest, or the oldest that gives the moment.
    pub backup: Option<String>,
    /// The moment to go back to, Unix microseconds; `None` = everything that the backup holds.
    pub until_us: Option<i64>,
    /// Folder of a keyring that holds the cluster keys, from escrow.
    pub keyring: PathBuf,
    /// The master key that opens it.
    pub master: PathBuf,
    /// The life that begins; `None` = the one behind the last that a backup of the folder knows, which
    /// a cluster with a standby may have had already.
    pub incarnation: Option<u64>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The configuration file.
    pub config: PathBuf,
    /// The node.
    pub node: NodeId,
    /// The backup.
    pub backup: BackupId,
    /// Group time of meta at its anchor, Unix microseconds: what was acknowledged before is here.
    pub anchor_us: i64,
    /// The life that begins.
    pub incarnation: Incarnation,
    /// The moment, where one was asked for.
    pub until_us: Option<i64>,
    /// Its groups, meta first.
    pub groups: Vec<RestoredGroup>,
}

/// A group as it was brought back, before what opens the next life.
#[derive(Clone, Debug)]
pub struct RestoredGroup {
    /// The group.
    pub group: GroupId,
    /// Its last entry.
    pub index: u64,
    /// Entries of the backup behind that one: they are not taken.
    pub beyond: u64,
    /// What it is.
    pub found: Checked,
}

/// Why a cluster was not restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backup, or one that it continues.
    #[error(transparent)]
    Backup(#[from] dtm_backup::Error),
    /// Keyring and master key.
    #[error(transparent)]
    Keys(#[from] dtm_storage::keys::Error),
    /// The keyring lacks what a node needs.
    #[error("the keyring does not hold {0}: name the folder `keyring` of a node of this cluster")]
    Lacking(&'static str),
    /// Files and certificates.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] dtm_storage::log::Error),
    /// The rows.
    #[error(transparent)]
    State(#[from] dtm_storage::state::Error),
    /// A group.
    #[error(transparent)]
    Group(#[from] dtm_cluster::Error),
    /// A life that was lived already.
    #[error(
        "incarnation {asked} was in use: backups of this cluster are here up to incarnation {of}, name a \
         later one than any that it had"
    )]
    Life {
        /// What was asked for.
        asked: u64,
        /// The last that a backup of the folder is of.
        of: u64,
    },
    /// A promotion may have begun lives that the backup does not know.
    #[error(
        "the backup is of a cluster with a standby, of incarnation {of}: name one above all that this \
         cluster ever had (--incarnation)"
    )]
    LifeUnnamed {
        /// That of the backup.
        of: u64,
    },
    /// The files of an export, or a batch that does not open.
    #[error(transparent)]
    Export(dtm_export::Error),
    /// Nothing to export.
    #[error("the backup holds no record of data set {dataset}, source {source_code}")]
    NoRecords {
        /// Its code.
        dataset: String,
        /// Its code; `*` = all of them.
        source_code: String,
    },
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// What people are told in their language, where that is.
    pub fn told(&self) -> Option<Told> {
        match self {
            Self::LifeUnnamed { of } => Some(Told::new("refused.restore.standby").with("of", of)),
            Self::NoRecords { dataset, source_code } => {
                let none = Told::new("refused.export_none").with("dataset", dataset);
                Some(none.with("source", source_code))
            }
            _ => None,
        }
    }
}

/// What is opened before anything is written.
struct Opened {
    target: Folder,
    /// The full backup first, each with its key.
    links: Vec<(Manifest, DataKey)>,
    keyring: Keyring,
    incarnation: Incarnation,
    until_us: Option<i64>,
}

impl Opened {
    fn chain(&self) -> OpenChain<'_> {
        OpenChain { target: &self.target, links: &self.links }
    }

    fn newest(&self) -> &Manifest {
        self.chain().newest()
    }
}

/// The backups that are needed, each with its key, opened by a keyring from escrow.
struct Unlocked {
    target: Folder,
    links: Vec<(Manifest, DataKey)>,
    keyring: Keyring,
}

/// Restores into a new folder. Blocking, on a thread where that is allowed; `progress` gets the bytes
/// done and all bytes.
///
/// # Errors
/// [`Error`]; nothing of a node is left.
pub fn restore(
    options: &Options,
    now_us: i64,
    runtime: &Handle,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, Error> {
    pki::refuse_existing(&options.node.folder)?;
    options.node.check_hosts()?;
    let opened = open(options)?;
    if options.incarnation.is_none() {
        let of = opened.newest().incarnation;
        if Meta::newest(opened.chain())?.has_standby() {
            return Err(Error::LifeUnnamed { of });
        }
    }
    let made = make(options, &opened, now_us, runtime, progress);
    if made.is_err() {
        // Nothing of it was here before.
        for name in ["data", "keys", "tls"] {
            let _ = std::fs::remove_dir_all(options.node.folder.join(name));
        }
    }
    made
}

fn open(options: &Options) -> Result<Opened, Error> {
    let Options { backup, until_us, keyring, master, .. } = options;
    let which = (backup.as_deref(), *until_us);
    let Unlocked { target, links, keyring } = unlock(&options.from, which, keyring, master)?;
    let cluster = links.last().map(|(manifest, _)| manifest.cluster.clone());
    let known = dtm_backup::list(&target)?.into_iter().filter_map(|found| found.manifest.ok());
    let lives = known.filter(|(of, _)| Some(&of.cluster) == cluster.as_ref());
    let of = lives.map(|(of, _)| of.incarnation).max().unwrap_or(0);
    let asked = options.incarnation.unwrap_or(of + 1);
    if asked <= of {
        return Err(Error::Life { asked, of });
    }
    let (incarnation, until_us) = (Incarnation(asked), *until_us);
    Ok(Opened { target, links, keyring, incarnation, until_us })
}

/// Finds a backup, by name or by a moment, and those that it continues, and opens their keys.
fn unlock(
    from: &Path,
    (backup, until_us): (Option<&str>, Option<i64>),
    keyring: &Path,
    master: &Path,
) -> Result<Unlocked, Error> {
    let master = Master::read(master)?;
    let folder = if keyring.is_file() {
        keyring.parent().map(Path::to_owned).unwrap_or_default()
    } else {
        keyring.to_owned()
    };
    let keyring = Keyring::look(Arc::new(RealVfs), &folder, master, Arc::new(OsEntropy))?;
    let target = Folder::new(from);
    let name = match (backup, until_us) {
        (None, Some(until_us)) => dtm_backup::find_at(&target, until_us)?,
        _ => dtm_backup::find(&target, backup)?,
    };
    let mut links = Vec::new();
    for manifest in dtm_backup::chain(&target, &name)? {
        let row = manifest.key.as_ref().ok_or(Error::Lacking("a key for the backup"))?;
        let key: DataKey = keyring.unwrap_data_key(GroupId::META, row)?;
        let of = manifest.id().to_string();
        links.push((dtm_backup::open_manifest(&target as &dyn Target, &of, &key)?, key));
    }
    Ok(Unlocked { target, links, keyring })
}

fn make(
    options: &Options,
    opened: &Opened,
    now_us: i64,
    runtime: &Handle,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, Error> {
    let newest = opened.newest();
    let issuing =
        keyring::issuing(&opened.keyring).ok_or(Error::Lacking("an issuing certificate"))?;
    let node = NodeId(*uuid::Uuid::now_v7().as_bytes());
    let identity = Identity::Node { cluster: newest.cluster_id(), node };
    let request = pki::make_request(&options.node.node_name).map_err(pki::Error::from)?;
    let chain = issuing.sign_node(&request.der, identity, &options.node.advertise, now_us)?;
    let roots: Vec<CertificateDer<'static>> =
        newest.roots.iter().map(|der| der.to_vec().into()).collect();
    let mut row = join::row(&options.node, node);
    // As if it had run once: the next start counts from here.
    row.boot_counter = 1;
    let (failed, groups) = (RefCell::new(None), RefCell::new(Vec::new()));
    let progress = RefCell::new(progress);
    let fill = |data: &Path, master: &Path| -> Result<(), Error> {
        keyring::import(data, master, &opened.keyring.export())?;
        let file = |path: PathBuf| move |source| Error::File { path, source };
        life::write(data, opened.incarnation).map_err(file(data.join(life::FILE)))?;
        let filled =
            groups::fill(data, opened, &row, now_us, runtime, &mut **progress.borrow_mut())?;
        *groups.borrow_mut() = filled;
        let boot = Boot { counter: row.boot_counter, stamp_us: now_us };
        boot.write(data).map_err(file(data.join("boot")))
    };
    let written = pki::write_node(&options.node, &request, &chain, &roots, &|data, master| {
        fill(data, master).map_err(|error| {
            let told = pki::Error::Keyring(error.to_string());
            *failed.borrow_mut() = Some(error);
            told
        })
    });
    let config = written.map_err(|error| failed.take().unwrap_or(Error::Pki(error)))?;
    Ok(Restored {
        config,
        node,
        backup: newest.id(),
        anchor_us: newest.anchor_us(),
        incarnation: opened.incarnation,
        until_us: opened.until_us,
        groups: groups.into_inner(),
    })
}
