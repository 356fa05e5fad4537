//! `dtm backup restore`: makes the folder of a node that begins the next life of a cluster.
//!
//! ```text
//!  backup, the chain behind it ─┐   keyring (from escrow) ─▶ issuing certificate ─▶ a new node's own
//!  keyring, its master key ─────┴─▶ keys of the backups ─▶ rows, entries
//!    ─▶ FOLDER/data: log, state, keyring, incarnation n + 1 ─▶ FOLDER/dtm.toml, last
//! ```
//! The node is a new one, under a new id, and the only voter of every group. Others join it with a
//! token. Whoever is still of the life before is refused by it, and refuses it.
//!
//! Nothing that is there is overwritten. What was begun and could not be ended is removed again; the
//! folder counts as a node once its configuration is in it, which is written last.

mod groups;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtm_backup::{Folder, Manifest, Target};
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
use dtm_doors::keyring;
use dtm_doors::life;
use dtm_doors::system::OsEntropy;

/// What to restore, and as what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node that is made.
    pub node: InitOptions,
    /// Folder that holds the backups.
    pub from: PathBuf,
    /// Which; `None` = the newest.
    pub backup: Option<String>,
    /// Folder of a keyring that holds the cluster keys, from escrow.
    pub keyring: PathBuf,
    /// The master key that opens it.
    pub master: PathBuf,
    /// The life that begins; `None` = the one behind that of the backup, which a cluster with a standby
    /// may have had already.
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
    /// Records that are held, over all groups.
    pub records: u64,
    /// Groups.
    pub groups: u32,
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
    /// Rows of a backup.
    #[error("rows of the backup cannot be read: {0}")]
    Rows(#[from] dtm_machine::seams::StateError),
    /// What was restored is not what was backed up.
    #[error("group {group}: {what}; nothing was restored")]
    Differs {
        /// The group.
        group: GroupId,
        /// How.
        what: String,
    },
    /// A life that was lived already.
    #[error(
        "incarnation {asked} was in use: the backup is of incarnation {of}, name a later one than any \
         that this cluster had"
    )]
    Life {
        /// What was asked for.
        asked: u64,
        /// That of the backup.
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
            _ => None,
        }
    }
}

/// What is opened before anything is written.
struct Opened {
    target: Folder,
    /// The full backup first, each with its key.
    chain: Vec<(Manifest, DataKey)>,
    keyring: Keyring,
    incarnation: Incarnation,
}

impl Opened {
    fn newest(&self) -> &Manifest {
        &self.chain.last().expect("a chain has an end").0
    }
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
        groups::one_life(&opened)?;
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
    let master = Master::read(&options.master)?;
    let folder = if options.keyring.is_file() {
        options.keyring.parent().map(Path::to_owned).unwrap_or_default()
    } else {
        options.keyring.clone()
    };
    let keyring = Keyring::look(Arc::new(RealVfs), &folder, master, Arc::new(OsEntropy))?;
    let target = Folder::new(&options.from);
    let name = dtm_backup::find(&target, options.backup.as_deref())?;
    let mut chain = Vec::new();
    for manifest in dtm_backup::chain(&target, &name)? {
        let row = manifest.key.as_ref().ok_or(Error::Lacking("a key for the backup"))?;
        let key: DataKey = keyring.unwrap_data_key(GroupId::META, row)?;
        let of = manifest.id().to_string();
        chain.push((dtm_backup::open_manifest(&target as &dyn Target, &of, &key)?, key));
    }
    let of = chain.last().map_or(0, |(manifest, _)| manifest.incarnation);
    let asked = options.incarnation.unwrap_or(of + 1);
    if asked <= of {
        return Err(Error::Life { asked, of });
    }
    Ok(Opened { target, chain, keyring, incarnation: Incarnation(asked) })
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
    let (failed, records) = (RefCell::new(None), RefCell::new(0));
    let progress = RefCell::new(progress);
    let fill = |data: &Path, master: &Path| -> Result<(), Error> {
        keyring::import(data, master, &opened.keyring.export())?;
        let file = |path: PathBuf| move |source| Error::File { path, source };
        life::write(data, opened.incarnation).map_err(file(data.join(life::FILE)))?;
        let filled =
            groups::fill(data, opened, &row, now_us, runtime, &mut **progress.borrow_mut())?;
        *records.borrow_mut() = filled;
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
        records: records.into_inner(),
        groups: u32::try_from(newest.groups.len()).unwrap_or(u32::MAX),
    })
}
