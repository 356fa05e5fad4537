//! Certificates in use, and their exchange while the node runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dtm_identity::Identity;
use dtm_types::{ClusterId, NodeId};
use parking_lot::{Mutex, RwLock};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Door, Error, VERSIONS, is_issued_under, provider};
use crate::config::Tls;
use crate::pki;

const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";
const CA: &str = "tls.ca";
/// Where a file does not read.
const PUT_BACK: &str =
    "put back the file that dtm cluster init or dtm cluster join made, or a copy of it";
/// Where a key is another certificate's.
const PUT_BACK_BOTH: &str =
    "put back key and certificate as they were made together, both of this node";

/// The node's certificates and the configurations made from them.
pub struct Material {
    files: [PathBuf; 3],
    /// Held while the files are written, so that nobody reads half of a renewal.
    files_in_use: Mutex<()>,
    current: RwLock<Arc<Current>>,
}

struct Current {
    leaf: CertificateDer<'static>,
    https: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    peers: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    own: dtm_identity::Certificate,
}

impl Material {
    /// Reads the three files; a renewal that a crash cut off is completed first.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(tls: &Tls) -> Result<Arc<Self>, Error> {
        let files = [tls.certificate.clone(), tls.key.clone(), tls.ca.clone()];
        if pki::complete(&tls.certificate, &tls.key)? {
            tracing::warn!("a renewal of this node's certificate was cut off: completed");
        }
        let current = RwLock::new(Arc::new(Current::read(&files)?));
        Ok(Arc::new(Self { files, files_in_use: Mutex::default(), current }))
    }

    /// Reads the files again and, where they hold, uses them from the next connection on. A node
    /// stays who it is: another node's certificate is refused.
    ///
    /// # Errors
    /// As [`Material::load`]; the old certificates stay in use.
    pub fn reload(&self) -> Result<(), Error> {
        let _in_use = self.files_in_use.lock();
        self.take(Current::read(&self.files)?)
    }

    /// Puts a renewed key (PEM) and its chain in the place of this node's files, durably, and uses
    /// them from the next connection on. What does not hold is refused before anything is written.
    /// Writes and syncs files: not for a runtime's thread.
    ///
    /// # Errors
    /// As [`Material::reload`], or [`Error::File`] where they cannot be written; the old certificates
    /// stay in use.
    pub fn renew(&self, key_pem: &str, chain: &[CertificateDer<'static>]) -> Result<(), Error> {
        let _in_use = self.files_in_use.lock();
        let [certificate, key, ca] = &self.files;
        let private = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| unusable(KEY, key, &"the new one is no private key (PEM)"))?;
        let ca_chain = pki::read_certificates(ca).map_err(of_setting(CA))?;
        let next = Current::of(&self.files, chain, &private, &ca_chain)?;
        if !is_issued_under(chain, &ca_chain, next.own.not_before_us) {
            return Err(unusable(CA, ca, &"the new certificate was not issued under it"));
        }
        self.check_same(&next)?;
        pki::replace_pair(certificate, key, key_pem, chain)?;
        self.take(next)
    }

    /// Whether this node's certificate was issued by this one.
    pub fn is_issued_by(&self, issuing: &CertificateDer<'static>) -> bool {
        let current = Arc::clone(&self.current.read());
        let (own, above) = ([current.leaf.clone()], [issuing.clone()]);
        is_issued_under(&own, &above, current.own.not_before_us)
    }

    fn take(&self, next: Current) -> Result<(), Error> {
        self.check_same(&next)?;
        *self.current.write() = Arc::new(next);
        Ok(())
    }

    /// A node stays who it is.
    fn check_same(&self, next: &Current) -> Result<(), Error> {
        let same = next.own.identity == self.current.read().own.identity;
        if !same {
            let what = format!(
                "is of {}, this node is {}",
                next.own.identity,
                self.current.read().own.identity
            );
            let remedy = "put this node's own certificate back, or renew it";
            return Err(Error::Unusable {
                key: CERTIFICATE,
                path: self.files[0].clone(),
                what,
                remedy,
            });
        }
        Ok(())
    }

    /// How a door answers now.
    pub fn server(&self, door: Door) -> Arc<ServerConfig> {
        let current = self.current.read();
        Arc::clone(match door {
            Door::Https => &current.https,
            Door::Grpc => &current.grpc,
            Door::Peers => &current.peers,
        })
    }

    /// How this node calls others now: with its own certificate, trusting the cluster's root.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.read().client)
    }

    /// The cluster and node that the certificate names.
    pub fn node(&self) -> (ClusterId, NodeId) {
        match self.current.read().own.identity {
            Identity::Node { cluster, node } => (cluster, node),
            // Current::read lets nothing else in.
            _ => unreachable!("the node's certificate names a node"),
        }
    }

    /// Facts of the node's certificate that is in use now.
    pub fn own(&self) -> dtm_identity::Certificate {
        self.current.read().own.clone()
    }

    /// End of the node's certificate, Unix microseconds.
    pub fn not_after_us(&self) -> i64 {
        self.current.read().own.not_after_us
    }
}

impl Current {
    fn read(files: &[PathBuf; 3]) -> Result<Self, Error> {
        let [certificate, key, ca] = files;
        let chain = pki::read_certificates(certificate).map_err(of_setting(CERTIFICATE))?;
        // What is wrong with the certificate is told before what is wrong with the others.
        node_certificate(certificate, &chain)?;
        let ca_chain = pki::read_certificates(ca).map_err(of_setting(CA))?;
        roots(ca, &ca_chain)?;
        Self::of(files, &chain, &private_key(key)?, &ca_chain)
    }

    /// Of what the files hold, or are to hold.
    fn of(
        files: &[PathBuf; 3],
        chain: &[CertificateDer<'static>],
        private: &PrivateKeyDer<'static>,
        ca_chain: &[CertificateDer<'static>],
    ) -> Result<Self, Error> {
        let [certificate, key, ca] = files;
        let leaf =
            chain.first().ok_or_else(|| unusable(CERTIFICATE, certificate, &"it is empty"))?;
        let own = node_certificate(certificate, chain)?;
        let roots = Arc::new(roots(ca, ca_chain)?);
        // A node that joins knows the root by its digest only: this door shows it.
        let shown: Vec<_> = chain.iter().chain(ca_chain).cloned().collect();
        let server = |door| {
            let chain = if door == Door::Grpc { &shown } else { chain };
            server_config(door, chain, (key, private), &roots, certificate)
        };
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|e| unusable(CERTIFICATE, certificate, &e))?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.to_vec(), private.clone_key())
            .map_err(|e| key_refused(key, certificate, &e))?;
        let mut client = client;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            leaf: leaf.clone(),
            https: server(Door::Https)?,
            grpc: server(Door::Grpc)?,
            peers: server(Door::Peers)?,
            client: Arc::new(client),
            own,
        })
    }
}

fn unusable(key: &'static str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    let what = format!("cannot be used: {error}");
    Error::Unusable { key, path: path.to_owned(), what, remedy: PUT_BACK }
}

/// A file that does not read, with the setting that names it.
fn of_setting(key: &'static str) -> impl Fn(pki::Error) -> Error {
    move |error| match error {
        pki::Error::Malformed { path, what } => {
            Error::Unusable { key, path, what: format!("cannot be used: {what}"), remedy: PUT_BACK }
        }
        other => Error::File(other),
    }
}

fn key_refused(key: &Path, certificate: &Path, error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => Error::Unusable {
            key: KEY,
            path: key.to_owned(),
            what: format!("is not the key of the certificate in {}", certificate.display()),
            remedy: PUT_BACK_BOTH,
        },
        other => unusable(KEY, key, other),
    }
}

pub(super) fn node_certificate(
    path: &Path,
    chain: &[CertificateDer<'static>],
) -> Result<dtm_identity::Certificate, Error> {
    let own =
        dtm_identity::Certificate::parse(&chain[0]).map_err(|e| unusable(CERTIFICATE, path, &e))?;
    match own.identity {
        Identity::Node { .. } => Ok(own),
        other => Err(unusable(CERTIFICATE, path, &format!("it names {other}, not a node"))),
    }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = zeroize::Zeroizing::new(pki::read(path).map_err(of_setting(KEY))?);
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| unusable(KEY, path, &"it holds no private key (PEM)"))
}

pub(super) fn roots(
    path: &Path,
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|e| unusable(CA, path, &e))?;
    }
    Ok(roots)
}

fn server_config(
    door: Door,
    chain: &[CertificateDer<'static>],
    (key, private): (&Path, &PrivateKeyDer<'static>),
    roots: &Arc<RootCertStore>,
    certificate: &Path,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
    let verifier = match door {
        Door::Peers => verifier,
        Door::Https | Door::Grpc => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|e| unusable(CERTIFICATE, certificate, &e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|e| unusable(CERTIFICATE, certificate, &e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), private.clone_key())
        .map_err(|e| key_refused(key, certificate, &e))?;
    config.alpn_protocols = match door {
        Door::Https => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Door::Grpc | Door::Peers => vec![b"h2".to_vec()],
    };
    // Without resumption each connection is checked against the roots of now.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Looks at the files every `interval` and reloads them when one has changed; ends with
/// `shutdown`. A change that does not hold is logged and tried again at the next change.
pub async fn watch(
    material: Arc<Material>,
    interval: Duration,
    shutdown: tokio_util::sync::CancellationToken,
) {
    let mut seen = stamps(&material.files);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let now = stamps(&material.files);
        // In the middle of a renewal they are looked at again later: nobody waits here for its disk.
        if now == seen || material.files_in_use.is_locked() {
            continue;
        }
        seen = now;
        match material.reload() {
            Ok(()) => {
                tracing::info!(not_after_us = material.not_after_us(), "certificates reloaded")
            }
            Err(error) => {
                tracing::error!(%error, "certificates not reloaded: the old ones stay in use")
            }
        }
    }
}

/// Time and size of each file; a missing one counts as a change of its own.
fn stamps(files: &[PathBuf; 3]) -> [Option<(SystemTime, u64)>; 3] {
    [0, 1, 2].map(|i| {
        let data = fs::metadata(&files[i]).ok()?;
        Some((data.modified().ok()?, data.len()))
    })
}
