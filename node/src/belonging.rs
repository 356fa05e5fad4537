//! Whether the files that a node starts with are of one node of one cluster. Looked at before a port
//! is opened or a byte is written: a node of mixed files would found or join groups under another's id.
//!
//! ```text
//!  tls.certificate (cluster, node) ──issued under──▶ tls.ca
//!        ├── the same cluster and node as ──▶ node.data: genesis.toml (the node that founded it)
//!        └── the same CA as ────────────────▶ node.data: keyring (its issuing certificate)
//! ```
//! Log and rows say whose they are when they are opened. A file that does not read is told by whoever
//! uses it.

use std::path::{Path, PathBuf};

use dtm_doors::keyring;
use dtm_identity::{Certificate, Identity};
use dtm_storage::keys::Keyring;
use dtm_types::text::Told;
use rustls_pki_types::CertificateDer;

use crate::config::Config;
use crate::pki::{self, Genesis, Issuing};
use crate::tls;

/// A certificate is valid from five minutes before it was made.
const MADE_AFTER_US: i64 = 300_000_000;

/// Files of different nodes or clusters.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.told())]
pub struct Error {
    /// The setting that names the file or its folder.
    key: &'static str,
    /// The file.
    path: PathBuf,
    /// Whose it is, and whose the other is.
    what: Told,
}

impl Error {
    /// In the user's language.
    pub fn told(&self) -> Told {
        let told = Told::new("start.belonging").with("key", self.key);
        told.with("path", self.path.display()).with_told("what", self.what.clone())
    }

    /// For `dtm config check`, which names the setting by itself.
    pub(crate) fn fault(self) -> tls::Fault {
        let what = Told::new("check.belonging").with("path", self.path.display());
        (self.key, what.with_told("what", self.what), Told::new("check.remedy.together"))
    }
}

/// Holds certificate, CA, data folder and keyring against each other. Writes nothing.
///
/// # Errors
/// [`Error`] with the file, what was found and what to do; the process ends with exit code 78.
pub(crate) fn check(config: &Config, keyring: &Keyring) -> Result<(), Error> {
    let (certificate, ca) = (&config.tls.certificate, &config.tls.ca);
    let (Ok(chain), Ok(roots)) = (pki::read_certificates(certificate), pki::read_certificates(ca))
    else {
        return Ok(());
    };
    let Ok(own) = Certificate::parse(&chain[0]) else { return Ok(()) };
    let made_us = own.not_before_us + MADE_AFTER_US;
    if !tls::is_issued_under(&chain, &roots, made_us) {
        let what = Told::new("start.other_ca").with("file", certificate.display());
        return Err(Error { key: "tls.ca", path: ca.clone(), what });
    }
    of_founder(&config.node.data, certificate, &own.identity)?;
    of_keyring(config, keyring, &chain, &roots, &own)
}

/// The node that founded the cluster has its name and the cluster's in the data folder.
fn of_founder(data: &Path, certificate: &Path, own: &Identity) -> Result<(), Error> {
    let (Ok(Some(genesis)), Identity::Node { cluster, node }) = (Genesis::read(data), own) else {
        return Ok(());
    };
    if (&genesis.cluster_id, &genesis.node_id) == (&cluster.to_string(), &node.to_string()) {
        return Ok(());
    }
    let what = Told::new("start.other_founder")
        .with("cluster", genesis.cluster_id)
        .with("node", genesis.node_id)
        .with("file", certificate.display())
        .with("own_cluster", cluster)
        .with("own_node", node);
    Err(Error { key: "node.data", path: data.join(Genesis::FILE), what })
}

/// What the keyring's issuing certificate signs has to hold under the CA.
fn of_keyring(
    config: &Config,
    keyring: &Keyring,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    own: &Certificate,
) -> Result<(), Error> {
    let Some(issuing) = keyring::issuing(keyring) else { return Ok(()) };
    if chain[1..].contains(issuing.certificate()) {
        return Ok(());
    }
    // It may be a newer one of the same CA.
    let made_us = own.not_before_us + MADE_AFTER_US;
    let Some(sample) = sample(&issuing, own, made_us) else { return Ok(()) };
    if tls::is_issued_under(&sample, roots, made_us) {
        return Ok(());
    }
    let path = keyring::folder(&config.node.data);
    let what = Told::new("start.other_keys").with("file", config.tls.certificate.display());
    Err(Error { key: "node.data", path, what })
}

/// A certificate that is only looked at.
fn sample(
    issuing: &Issuing,
    own: &Certificate,
    now_us: i64,
) -> Option<Vec<CertificateDer<'static>>> {
    let request = pki::make_request("sample").ok()?;
    issuing.sign_node(&request.der, own.identity.clone(), &[], now_us).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::SocketAddr;

    use super::*;
    use crate::config;
    use crate::pki::InitOptions;

    const NOW_US: i64 = 1_795_000_000_000_000;

    /// A cluster that was made and has not run.
    fn made(folder: PathBuf) -> PathBuf {
        let options = InitOptions {
            folder: folder.clone(),
            // The same names: only keys tell them apart.
            cluster_name: "c".to_owned(),
            node_name: "n1".to_owned(),
            site: "s".to_owned(),
            zone: "z".to_owned(),
            advertise: vec!["localhost".to_owned()],
            listen: [SocketAddr::from(([127, 0, 0, 1], 0)); 3],
            operator: "admin".to_owned(),
            ingest_groups: 1,
            production: false,
        };
        pki::cluster_init(&options, NOW_US, &|data, master, issuing| {
            let made = keyring::create(data, master, issuing, NOW_US);
            made.map_err(|e| pki::Error::Keyring(e.to_string()))
        })
        .expect("made");
        folder
    }

    fn checked(folder: &Path) -> Result<(), Error> {
        let config = config::load(&folder.join("dtm.toml")).expect("a configuration").config;
        check(&config, &keyring::open(&config).expect("opens"))
    }

    /// Puts files of `from` into `to`, and takes the old ones back.
    fn with_files(from: &Path, to: &Path, files: &[&str]) -> Option<Error> {
        let mut kept = Vec::new();
        for file in files {
            kept.push(fs::read(to.join(file)).expect("there"));
            fs::copy(from.join(file), to.join(file)).expect("copied");
        }
        let found = checked(to).err();
        for (file, content) in files.iter().zip(kept) {
            fs::write(to.join(file), content).expect("written");
        }
        found
    }

    #[test]
    fn files_of_another_cluster_are_told() {
        let home = tempfile::tempdir().expect("a folder");
        let (a, b) = (made(home.path().join("a")), made(home.path().join("b")));
        assert_eq!(checked(&a), Ok(()));
        let tls = ["tls/ca.pem", "tls/node.pem", "tls/node.key"];
        let told = with_files(&b, &a, &tls).expect("another cluster's certificate");
        assert_eq!((told.key, told.path), ("node.data", a.join("data/genesis.toml")));
        let told = with_files(&b, &a, &["tls/ca.pem"]).expect("another cluster's CA");
        assert_eq!((told.key, told.path), ("tls.ca", a.join("tls/ca.pem")));
        let told = with_files(&b, &a, &["tls/node.pem", "tls/node.key"]).expect("not its CA");
        assert_eq!(told.key, "tls.ca");
        // A node that joined has no genesis.
        fs::remove_file(a.join("data/genesis.toml")).expect("removed");
        assert_eq!(checked(&a), Ok(()));
        let told = with_files(&b, &a, &tls).expect("another cluster's keyring");
        assert_eq!((told.key, told.path), ("node.data", a.join("data/keyring")));
        assert_eq!(checked(&a), Ok(()));
    }

    #[test]
    fn the_data_of_another_node_is_told() {
        let home = tempfile::tempdir().expect("a folder");
        let a = made(home.path().join("a"));
        let file = a.join("data/genesis.toml");
        let text = fs::read_to_string(&file).expect("there");
        let own = Genesis::read(&a.join("data")).expect("reads").expect("there").node_id;
        let other = dtm_types::NodeId([9; 16]).to_string();
        fs::write(&file, text.replace(&own, &other)).expect("written");
        let told = checked(&a).expect_err("another node").to_string();
        for word in [&own, &other, "genesis.toml", "node.data", "wrong-cluster.md"] {
            assert!(told.contains(word), "{told}");
        }
    }
}
