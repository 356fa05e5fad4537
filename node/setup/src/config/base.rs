//! A node's configuration from its files: read once, and made again from the same text whenever the
//! cluster's settings change.
//!
//! ```text
//!  dtm.toml, DTM__*  ─▶ Base ─┐
//!  DATA/settings     ─▶ row ──┴▶ Base::with ─▶ Resolved: Config, where each value comes from
//!        ▲ written when meta shows a new version, or by the answer to a join
//! ```
//! A copy of the settings that this node cannot take does not keep it from starting: it starts
//! without them, says so, and asks meta.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dtm_types::command::SettingsRow;
use dtm_types::text::Told;
use prost::Message;

use super::read::Sources;
use super::{Config, Error, Origin, Problem, Resolved};

/// Largest configuration file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The cluster's settings as this node saw them last, in the data folder.
const SETTINGS: &str = "settings";

/// What a node's configuration is made from, beside the cluster's settings.
#[derive(Clone, Debug)]
pub struct Base {
    path: PathBuf,
    /// What paths are relative to.
    folder: PathBuf,
    text: String,
    environment: BTreeMap<String, String>,
}

/// The configuration of a node that is about to start.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// Where each value comes from, in the order of the keys.
    pub origins: Vec<Origin>,
    /// What it was made from.
    pub base: Base,
    /// The cluster's settings as this node saw them last; version 0 where it never did.
    pub settings: SettingsRow,
    /// Why these were not taken.
    pub refused: Option<Error>,
}

/// Reads a file with the overrides of the process's environment, and what the cluster has set as
/// this node saw it last. Paths in the file are relative to its folder.
///
/// # Errors
/// Every problem found, each with its place and what to do.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let base = Base::read(path)?;
    let alone = base.with(&SettingsRow::default())?;
    let seen = seen(&alone.config.node.data);
    let (settings, taken) = match seen {
        Ok(row) => (row.clone(), base.with(&row)),
        Err(error) => {
            let problem = unreadable(&alone.config.node.data.join(SETTINGS), error);
            (SettingsRow::default(), Err(Error(vec![problem])))
        }
    };
    let (resolved, refused) = match taken {
        Ok(resolved) => (resolved, None),
        Err(refused) => (alone, Some(refused)),
    };
    let Resolved { config, origins, .. } = resolved;
    Ok(Loaded { config, origins, base, settings, refused })
}

fn unreadable(path: &Path, error: impl ToString) -> Problem {
    Problem {
        place: path.display().to_string(),
        key: String::new(),
        what: Told::new("config.unreadable").with("what", error.to_string()),
        remedy: Told::new("config.remedy.name_file"),
    }
}

/// The cluster's settings as a data folder has them; none where it has none.
fn seen(data: &Path) -> io::Result<SettingsRow> {
    match fs::read(data.join(SETTINGS)) {
        Ok(bytes) => Ok(SettingsRow::decode(&*bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SettingsRow::default()),
        Err(error) => Err(error),
    }
}

/// Keeps the cluster's settings for the next start. Durable when it returns.
///
/// # Errors
/// What the file system says; the file is the old one then.
pub fn keep(data: &Path, row: &SettingsRow) -> io::Result<()> {
    let fresh = data.join("settings.new");
    let mut file = File::create(&fresh)?;
    file.write_all(&row.encode_to_vec())?;
    file.sync_all()?;
    fs::rename(&fresh, data.join(SETTINGS))?;
    File::open(data)?.sync_all()
}

impl Base {
    /// Reads file and environment.
    ///
    /// # Errors
    /// The file cannot be read. Whether its content holds is asked by [`Base::with`].
    fn read(path: &Path) -> Result<Self, Error> {
        let one = |what: Told, remedy: &'static str| {
            let (place, remedy) = (path.display().to_string(), Told::new(remedy));
            Error(vec![Problem { place, key: String::new(), what, remedy }])
        };
        let unreadable = |error| Told::new("config.unreadable").with("what", error);
        let bytes =
            fs::metadata(path).map_err(|e| one(unreadable(e), "config.remedy.name_file"))?.len();
        if bytes > FILE_BYTES_MAX {
            let what = Told::new("config.too_long").with("bytes", bytes);
            return Err(one(what, "config.remedy.one_mib"));
        }
        let text =
            fs::read_to_string(path).map_err(|e| one(unreadable(e), "config.remedy.utf8"))?;
        let environment = std::env::vars().filter(|(name, _)| name.starts_with("DTM__"));
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let folder = fs::canonicalize(&folder).unwrap_or(folder);
        Ok(Self { path: path.to_owned(), folder, text, environment: environment.collect() })
    }

    /// The configuration under these settings of the cluster.
    ///
    /// # Errors
    /// Every problem found.
    pub fn with(&self, cluster: &SettingsRow) -> Result<Resolved, Error> {
        let Self { path, folder, text, environment } = self;
        let mut resolved = Sources { path, text, environment, cluster }.read()?;
        let config = &mut resolved.config;
        for file in [
            &mut config.node.data,
            &mut config.tls.certificate,
            &mut config.tls.key,
            &mut config.tls.ca,
            &mut config.keys.master_key_file,
        ] {
            *file = folder.join(file.as_path());
        }
        let sites = &mut config.sites;
        for file in [&mut sites.second_certificate, &mut sites.second_key, &mut sites.second_ca] {
            // Empty is not named.
            if !file.as_os_str().is_empty() {
                *file = folder.join(file.as_path());
            }
        }
        Ok(resolved)
    }
}

#[cfg(test)]
#[path = "base_test.rs"]
mod tests;
