//! Certificates of nodes that are renewed while the nodes run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_doors::system::{OsEntropy, SystemClock};
use dtm_machine::seams::Clock as _;
use dtm_node::pki::{self, Issuing};
use dtm_storage::keys::{Keyring, Master};
use dtm_storage::vfs::RealVfs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::{Cluster, NODES};
use crate::load::Load;
use crate::readback::judge;
use crate::wait::until;

/// HTTPS, gRPC, peers.
const DOORS: [&str; 3] = ["https", "grpc", "peers"];
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// The cluster's issuing certificate, from a copy of a node's keyring: a node that runs keeps its own.
fn issuing(cluster: &Cluster) -> Result<Issuing> {
    let folder = &cluster.nodes[0].folder;
    let copy = cluster.path("keyring");
    std::fs::create_dir_all(&copy)?;
    for entry in std::fs::read_dir(folder.join("data/keyring"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
    }
    let master = Master::read(&folder.join("keys/master.key"))?;
    let keyring = Keyring::open(Arc::new(RealVfs), &copy, master, Arc::new(OsEntropy))?;
    std::fs::remove_dir_all(&copy)?;
    let secret = keyring.secret(Issuing::SECRET).context("the issuing certificate")?;
    Issuing::from_secret(&secret).context("the issuing certificate")
}

/// Signs a new key of the node and puts key and certificate in the place of the old ones; the new
/// serial number.
fn renew(cluster: &Cluster, issuing: &Issuing, at: usize) -> Result<Vec<u8>> {
    let node = &cluster.nodes[at];
    let tls = node.folder.join("tls");
    let old = Issuing::facts(&pki::read_certificates(&tls.join("node.pem"))?)?;
    let request = pki::make_request(&node.name)?;
    let (names, now_us) = ([node.host.to_string()], SystemClock::start().now_us());
    let chain = issuing.sign_node(&request.der, old.identity, &names, now_us)?;
    let serial = Issuing::facts(&chain)?.serial;
    ensure!(serial != old.serial, "a serial number is used once");
    replace(&tls.join("node.key"), request.key_pem.as_bytes())?;
    replace(&tls.join("node.pem"), pki::pem(&chain).as_bytes())?;
    Ok(serial)
}

fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    pki::write_private(&new, content)?;
    std::fs::rename(new, path).context("put in place")
}

/// The serial number that a door shows to a new connection of another node.
async fn shown(cluster: &Cluster, at: usize, door: usize) -> Result<Vec<u8>> {
    let node = &cluster.nodes[at];
    let tls = cluster.nodes[(at + 1) % NODES].folder.join("tls");
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(cluster.source_files().ca)? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(tls.join("node.pem"))?;
    let key = PrivateKeyDer::from_pem_file(tls.join("node.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect((node.host, node.ports[door].port())).await?;
    let name = ServerName::try_from(node.host.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let shown = stream.get_ref().1.peer_certificates().context("a certificate")?;
    let shown: Vec<_> = shown.iter().map(|der| der.clone().into_owned()).collect();
    Ok(Issuing::facts(&shown)?.serial)
}

// The connections that are open go on, new ones are made under the new certificates.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F23
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_on_all_ports_under_load() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    // A stream moves with the leader of its group: none moves without a cause after this.
    cluster.spread().await?;
    let load = Load::usual(&cluster, 3).await?;
    load.moves(20).await?;
    let issuing = issuing(&cluster)?;
    for at in 0..NODES {
        let serial = renew(&cluster, &issuing, at)?;
        for (door, name) in DOORS.into_iter().enumerate() {
            until("the new certificate", TAKEN_WITHIN, async || {
                let shown = shown(&cluster, at, door).await?;
                ensure!(shown == serial, "n{} still shows the old one at {name}", at + 1);
                Ok(())
            })
            .await?;
        }
        load.moves(20).await?;
    }
    let lines = load.finish().await?;
    for line in &lines {
        let sessions = line.sessions.load(Ordering::Relaxed);
        let troubles = line.troubles.load(Ordering::Relaxed);
        ensure!(
            sessions == 1 && troubles == 0,
            "{}: {sessions} sessions, {troubles} failures",
            line.name()
        );
    }
    // Every connection of this node is a new one: both sides show what was renewed.
    cluster.nodes[0].stop().await?;
    cluster.start_node(0)?;
    cluster.settled(NODES).await?;
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}
