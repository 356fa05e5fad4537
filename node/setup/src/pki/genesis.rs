//! What `dtm cluster init` leaves for the first start: the facts of the first entries of meta.

use std::path::Path;

use dtm_types::INGEST_GROUPS_MAX;
use serde::{Deserialize, Serialize};

use super::{Error, files};

/// Facts of a cluster that was made and not yet started. No secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The cluster.
    pub cluster_id: String,
    /// Its name.
    pub cluster_name: String,
    /// The node that founds it.
    pub node_id: String,
    /// Ingest groups.
    pub ingest_groups: u32,
    /// First operator.
    pub operator_name: String,
    /// SHA-256 of their certificate, hexadecimal.
    pub operator_certificate_digest: String,
    /// End of their certificate, Unix microseconds.
    pub operator_not_after_us: i64,
    /// What destroys takes two people.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub production: bool,
}

impl Genesis {
    /// Its file in the data folder. It stays: the first start reads it, later ones compare the
    /// cluster and node in it with what they hold.
    pub const FILE: &'static str = "genesis.toml";

    /// Reads it from a data folder; `None` where there is none (a node that joined).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Malformed`].
    pub fn read(data: &Path) -> Result<Option<Self>, Error> {
        let path = data.join(Self::FILE);
        if !path.exists() {
            return Ok(None);
        }
        let malformed = |what: String| Error::Malformed { path: path.clone(), what };
        let text =
            String::from_utf8(files::read(&path)?).map_err(|_| malformed("not UTF-8".into()))?;
        let genesis: Self = toml::from_str(&text).map_err(|e| malformed(e.message().to_owned()))?;
        if genesis.ingest_groups > INGEST_GROUPS_MAX {
            let found = genesis.ingest_groups;
            return Err(malformed(format!("{found} ingest groups, at most {INGEST_GROUPS_MAX}")));
        }
        Ok(Some(genesis))
    }

    pub(super) fn write(&self, data: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).expect("plain fields become TOML");
        files::write_public(&data.join(Self::FILE), text.as_bytes())
    }
}
