//! Who is of another cluster: its CA and the certificates that were issued under it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_client::{Endpoint, Error, TlsFiles};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::Cluster;
use crate::https::metric_at;
use crate::wait::until;

const HANDSHAKES: &str = "dtm_connections_refused_total{door=\"grpc\",reason=\"handshake\"}";
const WITHIN: Duration = Duration::from_secs(10);

/// What another cluster's operator has.
async fn files(cluster: &Cluster) -> Result<TlsFiles> {
    let folder = cluster.path("stranger");
    let ca = folder.join("tls/ca.pem");
    if !ca.exists() {
        let folder = folder.display().to_string();
        let init = ["cluster", "init", "--folder", &folder, "--name", "stranger", "--no-context"];
        cluster.dtm(&init).await?;
    }
    let own = |name: &str| -> Option<PathBuf> { Some(folder.join("operator").join(name)) };
    Ok(TlsFiles { ca, certificate: own("admin.pem"), key: own("admin.key") })
}

/// A client with the wrong CA, or with a certificate of another, comes to a clear end at one node,
/// which counts it.
pub(crate) async fn are_refused(cluster: &Cluster, at: usize) -> Result<()> {
    let stranger = files(cluster).await?;
    let address = cluster.nodes[at].grpc.to_string();
    let seed = [address.clone()];
    let before = metric_at(cluster, at, HANDSHAKES).await?;
    let wrong_ca = TlsFiles { ca: stranger.ca.clone(), certificate: None, key: None };
    // One attempt: a publisher would try again for as long as it may.
    let refused = Endpoint::new(seed.clone(), &wrong_ca)?.channel(&address).await;
    let error = refused.expect_err("another CA");
    ensure!(matches!(error, Error::Connect { .. }), "wrong CA: {error}");
    ensure!(error.to_string().contains("docs/errors/wrong-cluster.md"), "wrong CA: {error}");

    // The library says it before it asks anybody, a client of another make is told by the node.
    let mixed = TlsFiles { ca: cluster.source_files().ca, ..stranger };
    let refused = Endpoint::new(seed, &mixed);
    let error = refused.expect_err("a certificate of another CA");
    ensure!(matches!(error, Error::OtherCluster { .. }), "{error}");
    let error = shakes_hands(cluster, at, &mixed).await.expect_err("a certificate of another CA");
    let told = format!("{error:#}");
    ensure!(told.contains("UnknownCA") || told.contains("DecryptError"), "no clear end: {told}");
    until("both are counted", WITHIN, async || {
        let counted = metric_at(cluster, at, HANDSHAKES).await? - before;
        ensure!(counted == 2.0, "{counted} of 2 handshakes");
        Ok(())
    })
    .await
}

/// Connects with these files, whatever they are, and waits for the node's first word.
async fn shakes_hands(cluster: &Cluster, at: usize, files: &TlsFiles) -> Result<()> {
    let (chain, key) = (files.certificate.as_ref(), files.key.as_ref());
    let (chain, key) = (chain.context("a certificate")?, key.context("a key")?);
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&files.ca)? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(chain)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain.collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let node = &cluster.nodes[at];
    let tcp = TcpStream::connect(node.grpc).await?;
    let name = ServerName::try_from(node.host.to_string())?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    // A server judges the client's certificate after the client has done its part.
    let mut word = [0];
    let read = tokio::time::timeout(WITHIN, stream.read_exact(&mut word)).await;
    read.context("it says nothing")??;
    Ok(())
}
