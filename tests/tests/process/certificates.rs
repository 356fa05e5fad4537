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
use dtm_types::DAY_US;
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
    renew_as_of(cluster, issuing, at, SystemClock::start().now_us())
}

/// The same, as if it had been done at another time.
fn renew_as_of(cluster: &Cluster, issuing: &Issuing, at: usize, now_us: i64) -> Result<Vec<u8>> {
    let node = &cluster.nodes[at];
    let tls = node.folder.join("tls");
    let old = Issuing::facts(&pki::read_certificates(&tls.join("node.pem"))?)?;
    let request = pki::make_request(&node.name)?;
    let names = [node.host.to_string()];
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

/// Renews by the command, as an operator does; the new serial numbers.
async fn renew_by_command(cluster: &Cluster, which: &[&str]) -> Result<Vec<Vec<u8>>> {
    let words = [&["-o", "json", "--reason", "test", "cluster", "renew"], which].concat();
    let said: serde_json::Value = serde_json::from_str(&cluster.dtm(&words).await?)?;
    let renewed = said["renewed"].as_array().context("what was renewed")?;
    let serial = |one: &serde_json::Value| {
        ensure!(one["serial"] != one["former_serial"], "{one}");
        Ok(hex_bytes(one["serial"].as_str().context("a serial")?))
    };
    renewed.iter().map(serial).collect()
}

fn hex_bytes(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(pair).collect()
}

/// The serial numbers that the nodes say they show, n1 first.
async fn said_by_nodes(cluster: &Cluster) -> Result<Vec<Vec<u8>>> {
    let status = cluster.status().await?;
    let mut nodes: Vec<_> = status
        .nodes
        .iter()
        .filter_map(|node| Some((node.node.clone()?.name, node.certificate_serial.to_vec())))
        .collect();
    nodes.sort();
    Ok(nodes.into_iter().map(|(_, serial)| serial).collect())
}

// An operator renews all nodes with one command, then one of them again by its name. Every port shows
// the new certificate when the command returns; no stream is cut, nothing is lost. A node that finds a
// renewal cut off between its two files completes it when it starts.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F23
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_renews_every_node_while_streams_go_on() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    cluster.spread().await?;
    let load = Load::usual(&cluster, 3).await?;
    load.moves(20).await?;
    let former = read(&cluster.nodes[0].folder.join("tls"), "node.pem")?;
    let mut serials = renew_by_command(&cluster, &["--all"]).await?;
    ensure!(serials.len() == NODES, "{serials:?}");
    load.moves(20).await?;
    let again = renew_by_command(&cluster, &["n2"]).await?;
    ensure!(!serials.contains(&again[0]), "a serial number is used once");
    serials[1].clone_from(&again[0]);
    for (at, serial) in serials.iter().enumerate() {
        for (door, name) in DOORS.into_iter().enumerate() {
            let shown = shown(&cluster, at, door).await?;
            ensure!(shown == *serial, "n{} shows another one at {name}", at + 1);
        }
        let file = cluster.nodes[at].folder.join("tls/node.pem");
        let kept = Issuing::facts(&pki::read_certificates(&file)?)?;
        ensure!(kept.serial == *serial, "n{} holds another one", at + 1);
        let names = [("node.key.renewed", "the file of a renewal"), ("node.key.new", "a half")];
        for (name, what) in names {
            ensure!(!file.with_file_name(name).exists(), "n{}: {what} is left", at + 1);
        }
    }
    ensure!(said_by_nodes(&cluster).await? == serials, "status says something else");
    load.moves(20).await?;
    let lines = load.finish().await?;
    for line in &lines {
        let sessions = line.sessions.load(Ordering::Relaxed);
        let troubles = line.troubles.load(Ordering::Relaxed);
        let name = line.name();
        ensure!(sessions == 1 && troubles == 0, "{name}: {sessions} sessions, {troubles} failures");
    }

    // As a crash between the two files leaves it: the key is new, the certificate is not.
    cluster.nodes[0].stop().await?;
    let tls = cluster.nodes[0].folder.join("tls");
    let (key, chain) = (read(&tls, "node.key")?, read(&tls, "node.pem")?);
    std::fs::write(tls.join("node.key.renewed"), format!("{key}{chain}"))?;
    std::fs::write(tls.join("node.pem"), former)?;
    cluster.start_node(0)?;
    cluster.settled(NODES).await?;
    ensure!(shown(&cluster, 0, 1).await? == serials[0], "the renewal was not completed");
    judge(&cluster, &lines).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

// Of a certificate of 397 days less than a third is left: the node renews it by itself. One with more
// left stays.
//
// fault: F23
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_renews_its_certificate_by_itself_in_time() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let issuing = issuing(&cluster)?;
    let now_us = SystemClock::start().now_us();
    for (at, days_ago) in [(1, 200), (2, 300)] {
        cluster.nodes[at].stop().await?;
        let aged = renew_as_of(&cluster, &issuing, at, now_us - days_ago * DAY_US)?;
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        if at == 1 {
            // Longer than the first look after a start takes to come.
            tokio::time::sleep(Duration::from_secs(15)).await;
            ensure!(
                shown(&cluster, at, 0).await? == aged,
                "n2 was renewed with half its life left"
            );
            continue;
        }
        let tls = cluster.nodes[at].folder.join("tls/node.pem");
        until("a certificate of today", TAKEN_WITHIN, async || {
            let own = Issuing::facts(&pki::read_certificates(&tls)?)?;
            ensure!(own.serial != aged && own.not_after_us > now_us + 396 * DAY_US, "{own:?}");
            for (door, name) in DOORS.into_iter().enumerate() {
                let shown = shown(&cluster, at, door).await?;
                ensure!(shown == own.serial, "{name} still shows the old one");
            }
            Ok(())
        })
        .await?;
    }
    cluster.passed();
    Ok(())
}

fn read(folder: &Path, name: &str) -> Result<String> {
    std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned())
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
